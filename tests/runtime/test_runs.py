"""Runs that meet each other, are interrupted, fail or are taken back: no false record, one line, nothing lost.

Real commands on made-up trades, the task whose stages take seconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from hallmark.files import sha256
from tests.toys import compose
from tests.workspace import copy_repository, environment, run

pytestmark = pytest.mark.slow

STAGES = ("prepare", "train", "evaluate", "package")
OUTS = ("data/prepared", "models/current", "reports/evaluation", "bundle")
SMALL = (
    "experiment=trades",
    "data.trades=2500",
    "model.candidates.0.iterations=20",
    "evaluate.gates=[]",
    "package.bento=false",
)
SET = [part for setting in SMALL for part in ("-S", setting)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on which the small task ran once, committed."""
    where = copy_repository(tmp_path_factory.mktemp("runs") / "repository")
    settle(where)
    done = run(where, "python", "-m", "runtime.repro")
    assert done.returncode == 0, done.stderr[-3000:]
    commit(where)
    return where


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(made, tmp_path / "repository", symlinks=True))


def settle(where: Path, *overrides: str) -> None:
    text = yaml.safe_dump(compose(*SMALL, *overrides), sort_keys=False)
    (where / "params.yaml").write_text(text)


def commit(where: Path) -> None:
    for command in (["git", "add", "-A"], ["git", "commit", "-qm", "made"]):
        subprocess.run(command, cwd=where, check=True, env=environment(where))


def state(where: Path) -> dict[str, str]:
    """What must be as it was: the lock and every output."""
    found = {out: sha256(where / out) for out in OUTS if (where / out).exists()}
    return {**found, "dvc.lock": (where / "dvc.lock").read_text()}


def start(where: Path, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=where,
        env=environment(where),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said")


def last_line(text: str) -> str:
    return [line for line in text.splitlines() if line.strip()][-1]


def edit_parameters(where: Path) -> None:
    file = where / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["train"]["seed"] = 3
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def edit_code(where: Path) -> None:
    with (where / "hallmark" / "tasks" / "trades" / "task.py").open("a") as file:
        file.write("\nLATER = 1\n")


def lose_output(where: Path) -> None:
    """Take away what `dvc exp run` takes away before it sees that a stage is at work."""
    mark = where / "models" / "current" / "made_from.json"
    while not mark.is_file():
        time.sleep(0.01)
    mark.unlink()


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "parameters": (edit_parameters, "params.yaml: train.seed was 0 and became 3 while"),
    "code": (edit_code, "hallmark/tasks/trades/task.py changed while"),
    "output": (lose_output, "models/current was emptied while"),
}


@pytest.mark.parametrize(
    ("stage", "edit"), [*((stage, "parameters") for stage in STAGES), ("train", "code"), ("train", "output")]
)
def test_an_edit_in_the_middle_of_a_stage_fails_and_changes_nothing(repository: Path, stage: str, edit: str) -> None:
    change, told = EDITS[edit]
    before = state(repository)
    process = start(repository, "dvc", "repro", "--force", "--single-item", stage)
    wait_for(process, f"[{STAGES.index(stage) + 1}/4] {stage}")
    change(repository)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(600) != 0
    subprocess.run(["git", "checkout", "-q", "hallmark"], cwd=repository, check=True)  # the edit of the code
    assert f"error: {told} {stage} ran" in said
    assert state(repository) == before


def test_an_experiment_beside_a_run_is_refused_and_the_run_does_not_claim_its_parameters(repository: Path) -> None:
    """`dvc exp run` writes params.yaml before it is refused: the lock must not say that the run had that seed."""
    long = "model.candidates.0.iterations=6000"
    settle(repository, long)
    before = state(repository)
    first = start(repository, "dvc", "repro", "--force", "--single-item", "train")
    wait_for(first, "[2/4] train")
    os.killpg(first.pid, signal.SIGSTOP)  # on a fast machine it would end before the second has started
    second = run(repository, "dvc", "exp", "run", *SET, "-S", long, "-S", "train.seed=3")
    os.killpg(first.pid, signal.SIGCONT)
    assert second.returncode != 0
    assert first.wait(600) != 0
    assert first.stderr is not None
    assert "train.seed was 0 and became 3 while train ran" in first.stderr.read()
    assert state(repository) == before


def test_our_own_command_refuses_a_second_run_before_it_writes_anything(repository: Path) -> None:
    settle(repository, "model.candidates.0.iterations=6000")
    written = (repository / "params.yaml").read_text()
    first = start(repository, "python", "-m", "runtime.repro", "--force", "train")
    wait_for(first, "[2/4] train")
    os.killpg(first.pid, signal.SIGSTOP)  # on a fast machine it would end before the second has started
    second = run(repository, "python", "-m", "runtime.repro", *SET, "-S", "train.seed=3")
    assert (second.returncode, len(second.stderr.splitlines())) == (1, 1)
    assert "works in this folder: wait until it has ended, nothing was changed" in second.stderr
    assert (repository / "params.yaml").read_text() == written
    os.killpg(first.pid, signal.SIGKILL)  # what it would have made is of no interest
    first.wait(300)


def test_results_of_other_parameters_are_not_taken_for_this_runs(repository: Path) -> None:
    """Whatever DVC believes, an output says itself which parameters are behind it."""
    edit_parameters(repository)
    done = run(repository, "python", "-m", "pipelines", "evaluate")
    assert done.returncode == 1
    assert "models/current was made from other parameters than params.yaml now has (section 'train')" in done.stderr


def test_a_known_configuration_comes_back_from_the_cache(repository: Path) -> None:
    before = state(repository)
    done = run(repository, "python", "-m", "runtime.repro", *SET, "-S", "train.seed=1", "-S", "data.seed=7")
    assert done.returncode == 0, done.stderr
    assert "[2/4] train" in done.stderr
    assert state(repository) != before
    settle(repository)
    done = run(repository, "python", "-m", "runtime.repro")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("known result, taken from the cache") == 4
    assert "[2/4] train" not in done.stderr
    assert "accuracy on test" in done.stdout  # the table is shown all the same
    assert state(repository) == before


def test_an_experiment_ends_with_figures_and_verdicts(repository: Path) -> None:
    done = run(repository, "python", "-m", "runtime.repro", *SET, "-S", "train.seed=2")
    assert done.returncode == 0, done.stderr
    assert "accuracy on test" in done.stdout
    assert "no gates are set" in done.stdout
    assert "version  trades" in done.stdout
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True, check=True
    )
    files = {line[3:] for line in changed.stdout.splitlines()}
    assert files <= {"params.yaml", "dvc.lock", "reports/evaluation/metrics.json"}  # no pointer is wrapped anew


def test_an_experiment_that_fails_puts_parameters_back(repository: Path) -> None:
    before, written = state(repository), (repository / "params.yaml").read_text()
    done = run(repository, "python", "-m", "runtime.repro", *SET, "-S", "data.trades=30")
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert "params.yaml is back to what the earlier results were made from" in done.stderr
    assert (repository / "params.yaml").read_text() == written
    assert state(repository) == before


def test_an_experiment_that_fails_before_its_first_stage_puts_parameters_back(repository: Path) -> None:
    before, written = state(repository), (repository / "params.yaml").read_text()
    settings = ["-S", "experiment=trades", "-S", "data=xrp_eth", "-S", "data.path=absent.parquet"]
    done = run(repository, "python", "-m", "runtime.repro", *settings)
    assert done.returncode == 1
    told, restored = done.stderr.splitlines()[-2:]
    assert told.startswith("error: absent.parquet is not there: correct the path in the configuration")
    assert restored == "params.yaml is back to what the earlier results were made from"
    assert (repository / "params.yaml").read_text() == written
    assert state(repository) == before


def test_a_repro_that_fails_leaves_an_edit_of_the_user(repository: Path) -> None:
    settle(repository, "data.trades=30")
    written = (repository / "params.yaml").read_text()
    done = run(repository, "python", "-m", "runtime.repro")
    assert done.returncode == 1
    assert last_line(done.stderr).startswith("error: ")
    assert (repository / "params.yaml").read_text() == written


def misspelt(where: Path) -> None:
    file = where / "params.yaml"
    file.write_text(file.read_text().replace("task:", "tsak:", 1))


def broken(where: Path) -> None:
    with (where / "params.yaml").open("a") as file:
        file.write("\n  - [\n")


def gone(where: Path) -> None:
    (where / "params.yaml").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (misspelt, "params.yaml has no section 'task': it has 'tsak'"),
        (broken, "params.yaml is no YAML (line"),
        (gone, "params.yaml is missing: run `make params`"),
    ],
)
def test_bad_parameters_are_one_line(repository: Path, damage: Callable[[Path], None], told: str) -> None:
    damage(repository)
    done = run(repository, "python", "-m", "runtime.repro")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"error: {told}")


def test_a_killed_stage_is_one_line_and_its_results_are_in_the_cache(repository: Path) -> None:
    before = state(repository)
    process = start(repository, "python", "-m", "runtime.repro", "--force", "train")
    wait_for(process, "[2/4] train")
    [stage] = psutil.Process(process.pid).children()
    stage.kill()
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(300) == 1
    assert last_line(said).startswith(
        "error: train was killed by signal 9 (out of memory?): the earlier results are in"
    )
    assert run(repository, "dvc", "checkout", "train").returncode == 0  # the message names the stage
    assert state(repository) == before


@pytest.mark.parametrize("command", [("-m", "runtime.repro", "--force", "train"), ("-m", "pipelines", "train")])
def test_ctrl_c_is_one_line_and_130(repository: Path, command: tuple[str, ...]) -> None:
    before = state(repository)
    settle(repository, "model.candidates.0.iterations=100000")
    process = start(repository, sys.executable, *command)
    wait_for(process, "[2/4] train")
    time.sleep(10)  # by then it trains, wherever it runs
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(300) == 130, said
    assert "Traceback" not in said
    assert last_line(said) == "error: interrupted; the next run resumes from the last checkpoint"
    assert state(repository) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which takes root")
def test_a_full_disk_is_one_line_and_the_earlier_bundle_stays(made: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200M", "tmpfs", str(disk)], check=True)
    try:
        skipped = shutil.ignore_patterns(".bentoml", "cache")
        where = Path(shutil.copytree(made, disk / "repository", symlinks=True, ignore=skipped))
        before = sha256(where / "bundle")
        with (disk / "filler").open("wb") as filler:
            free = shutil.disk_usage(disk).free - 4_000
            filler.write(b"\0" * free)
        done = run(where, "python", "-m", "pipelines", "package")
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if not line.startswith("[4/4]")]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: the disk is full")
        (disk / "filler").unlink()
        assert sha256(where / "bundle") == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_every_tasks_last_bundle_is_kept(repository: Path) -> None:
    assert (repository / "bundles" / "trades" / "hallmark.json").is_file()
    answered = run(
        repository, "python", "-m", "hallmark.cli", "predict", "examples/trades.json", "examples/trades.json"
    )
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.count("hallmark_sha256") == 2
    assert len(answered.stdout.splitlines()) < 60
