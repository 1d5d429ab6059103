"""The guide to new tasks, followed to the letter: its own code blocks become two tasks that run end to end."""

import json
import re
from pathlib import Path

import pytest

from hallmark.prove.bundle import open_bundle
from tests.toys import ROOT
from tests.workspace import copy_repository, run

GUIDE = (ROOT / "docs" / "new-task.md").read_text()
HALVES = GUIDE.split("# A new forecasting task")
BLOCKS = [re.findall(r"```\w+\n(?:#|//) (\S+)\n(.*?)```", half, re.DOTALL) for half in HALVES]


@pytest.mark.parametrize(("half", "files"), [(0, 10), (1, 7)])
def test_a_new_task_takes_under_a_hundred_lines(half: int, files: int) -> None:
    lines = [line for _, text in BLOCKS[half] for line in text.splitlines() if line.strip() and line[0] != "#"]
    assert len(BLOCKS[half]) == files
    assert 50 < len(lines) < 100


def followed(half: int, where: Path) -> Path:
    """A copy of the repository with the files of one half of the guide."""
    copy_repository(where)
    for name, text in BLOCKS[half]:
        assert not (where / name).exists()
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    return where


@pytest.mark.slow
def test_the_guides_own_blocks_become_a_task_that_answers(tmp_path: Path) -> None:
    where = followed(0, tmp_path / "repository")
    done = run(where, "python", "-m", "runtime.repro", "-S", "experiment=flowers", "-S", "package.bento=false")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    hallmark, digest = open_bundle(where / "bundle")
    assert (hallmark.task, hallmark.version) == ("flowers", "1.0.0")
    assert hallmark.metrics["accuracy"] > 0.8
    assert [v["status"] for v in hallmark.verdicts] == ["passed"]
    said = run(where, "python", "-m", "hallmark.cli", "predict", "--json", "examples/flowers.json")
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert (answer["kind"], answer["hallmark_sha256"]) == ("setosa", digest)
    assert answer["probability"] > 0.8
    refused = run(where, "python", "-m", "hallmark.cli", "predict", "examples/sentiment.json")
    assert refused.returncode == 1
    assert "is no request for flowers" in refused.stderr


@pytest.mark.slow
def test_a_forecasting_task_of_another_unit_and_grid_runs_to_a_personal_forecast(tmp_path: Path) -> None:
    where = followed(1, tmp_path / "repository")
    done = run(where, "python", "-m", "runtime.repro", "-S", "experiment=load", "-S", "package.bento=false")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    hallmark, _ = open_bundle(where / "bundle")
    assert (hallmark.task, [v["status"] for v in hallmark.verdicts]) == ("load", ["passed", "passed"])
    said = run(where, "python", "ask.py")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("adapter [(60, ")
    assert said.stdout.count("'kW'") == 6
    medians = [float(found) for found in re.findall(r", ([\d.]+), 'kW'", said.stdout)]
    assert all(0 < median < 50 for median in medians)
    assert max(medians) > 1.2 * min(medians)  # a day is not flat
    report = (where / "reports" / "evaluation" / "report.html").read_text()
    assert "mg/dL" not in report
    assert "kW" in report
