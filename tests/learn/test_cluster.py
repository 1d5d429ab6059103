"""A Ray cluster: the results of a loop, workers that are lost, errors without Ray's text, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hallmark import batch
from hallmark.batch import predict_file
from hallmark.errors import ConfigError, DataError, HallmarkError
from hallmark.families.forecasting import history
from hallmark.families.forecasting.base_model import load_base
from hallmark.learn import cluster
from hallmark.learn.cluster import ENGINE
from hallmark.learn.parallel import map_parallel
from hallmark.model import Model
from tests.families.forecasting.test_refresh import begun, same_bytes, taken
from tests.toys import ROOT


@pytest.fixture(scope="module", autouse=True)
def _on_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(ENGINE, "ray")
        yield
        if cluster._started.cache_info().currsize:
            cluster._started().shutdown()
            cluster._started.cache_clear()


def test_results_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(300, 300, generator=torch.Generator().manual_seed(1))

    def work(item: int) -> bytes:
        rows = torch.randn(64, 300, generator=torch.Generator().manual_seed(item))
        return (rows @ weights).softmax(1).numpy().tobytes()

    seen: list[tuple[int, int]] = []
    spread = map_parallel(range(40), work, 2, lambda done, total: seen.append((done, total)))
    monkeypatch.delenv(ENGINE)
    assert spread == map_parallel(range(40), work, 1, lambda *_: None)
    assert seen[-1][1] == 40


def test_a_worker_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def make() -> Any:
        return die_once

    def die_once(item: int) -> int:
        (tmp_path / f"{item}-{os.getpid()}").touch()
        if item == 3 and len(list(tmp_path.glob("3-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    assert list(cluster.stream(make, iter(range(12)))) == [item * item for item in range(12)]
    assert len(list(tmp_path.glob("3-*"))) == 2, "its first worker was killed"


def test_an_error_is_what_the_function_raised() -> None:
    def refuse(item: int) -> int:
        raise DataError(f"row {item} is broken")

    def fail(item: int) -> int:
        return [][item]

    with pytest.raises(DataError, match=r"^row \d is broken$"):
        map_parallel([1, 2], refuse, 2, lambda *_: None)
    with pytest.raises(HallmarkError, match=r"^a worker failed: IndexError: list index out of range$"):
        map_parallel([1, 2], fail, 2, lambda *_: None)


def test_an_engine_that_does_not_exist_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE, "rey")
    with pytest.raises(ConfigError, match="HALLMARK_ENGINE='rey' is no engine: known are processes, ray"):
        map_parallel([1], str, 1, lambda *_: None)


def test_a_refresh_has_the_bytes_of_a_loop(trained: Path, prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "TOGETHER", 1)
    rows, assembler = prepared.rows, load_base(trained / "base").assembler
    old = rows["timestamp"] < rows["timestamp"].max() - pd.Timedelta(days=3)
    _, state = begun(rows[old], assembler)
    spread = taken(state, rows[~old], assembler)
    monkeypatch.delenv(ENGINE)
    same_bytes(spread, taken(state, rows[~old], assembler))


def test_a_file_is_answered_byte_for_byte_as_by_a_loop(
    bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PART", 4)
    rows = [json.dumps(row) for row in requests_by_subject.values()]
    source = tmp_path / "in.ndjson"
    source.write_text("\n".join([*rows, "{broken", *rows]))
    spread = predict_file(Model(bundle), source, tmp_path / "ray.parquet")
    monkeypatch.delenv(ENGINE)
    assert predict_file(Model(bundle), source, tmp_path / "loop.parquet") == spread
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "loop.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.ndjson", "loop.parquet", "ray.parquet"])


def test_a_driver_that_is_killed_goes_on_after_its_last_part(
    bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path
) -> None:
    rows = [json.dumps(row) for row in requests_by_subject.values()]
    source, target = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    source.write_text("\n".join((rows * 40)[:120]))
    code = (
        "from hallmark import kernels; kernels.pin(); import sys; from pathlib import Path\n"
        "from hallmark import batch\n"
        "from hallmark.model import Model; batch.PART = 4\n"
        "print(batch.predict_file(Model(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, str(bundle), str(source), str(target)]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts, deadline = tmp_path / ".out.ndjson.parts", time.monotonic() + 600
    while len(list(parts.glob("part-*.json"))) < 3 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    driver.kill()
    said = driver.communicate()[1]
    assert driver.returncode == -signal.SIGKILL, said
    assert not target.exists()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("part-*.json")}
    assert 3 <= len(kept) < 30
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batch, "PART", 4)
        patched.delenv(ENGINE)
        patched.setattr(batch, "_score", lambda *given, **kw: seen.append(given[2][0]) or batch_score(*given, **kw))
        counts = predict_file(Model(bundle), source, target)
    assert counts == {"forecast": 120}
    assert len(seen) == 30 - len(kept), "what was finished is not done again"
    found = [json.loads(line)["row"] for line in target.read_text().splitlines()]
    assert found == list(range(120))
    assert not parts.exists()


batch_score = batch._score


def test_nothing_is_left_of_the_cluster_when_its_process_is_killed() -> None:
    code = (
        "import os; from hallmark.learn import cluster; cluster._started(); print(os.getpid(), flush=True); "
        "import time; time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        begun = children(driver.pid)
        assert begun
        driver.kill()
    deadline = time.monotonic() + 300
    while (left := [pid for pid in begun if runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def runs(pid: int) -> bool:
    """Whether a process does anything; one that has ended and that no one has waited for does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def children(pid: int) -> list[int]:
    """Raylet and workers; agents, which compute nothing, end a minute later."""
    import psutil

    found = psutil.Process(pid).children(recursive=True)
    named = [child for child in found if child.name() == "raylet" or child.name().startswith("ray::")]
    return [child.pid for child in named if not child.name().endswith("Agent")]


def test_numpy_and_torch_in_a_worker_have_the_kernels_of_this_process() -> None:
    from hallmark import kernels

    [[there, threads]] = map_parallel_of_two(lambda _: [kernels.describe(), torch.get_num_threads()])
    assert there == kernels.describe()
    assert threads == torch.get_num_threads()


def map_parallel_of_two(work: Any) -> list[Any]:
    """Apply a function on two workers, which must agree."""
    first, second = map_parallel([0, 1], work, 2, lambda *_: None)
    assert np.all(first == second)
    return [first]
