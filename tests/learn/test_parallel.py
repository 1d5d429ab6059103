"""Fits at the same time: the same results as one after the other, and an end to every process whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from hallmark.errors import ConfigError, HallmarkError
from hallmark.learn.parallel import Report, map_parallel, run_parallel
from tests.toys import ROOT

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="jobs share the GPU here, one after the other")


def quiet(name: str, step: int, steps: int, loss: float) -> None:
    """Show nothing."""


def fit(seed: int, report: Report) -> torch.Tensor:
    """A little training, which depends on the seed alone."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(64, 64)
    rule = torch.optim.AdamW(model.parameters())
    for step in range(20):
        rule.zero_grad()
        model(torch.randn(128, 64)).square().mean().backward()
        rule.step()
        report(step + 1, 20, float(step))
    return model.weight.detach()


def jobs() -> dict[str, Any]:
    return {f"job-{seed}": lambda report, seed=seed: fit(seed, report) for seed in range(5)}


@pytest.mark.parametrize("at_once", [2, 3])
def test_results_are_those_of_one_after_the_other(at_once: int) -> None:
    expected = run_parallel(jobs(), 1, quiet)
    found = run_parallel(jobs(), at_once, quiet)
    assert list(found) == list(expected)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=0)


def test_progress_of_every_job_arrives_in_order() -> None:
    seen: dict[str, list[int]] = {}
    run_parallel(jobs(), 2, lambda name, step, steps, loss: seen.setdefault(name, []).append(step))
    assert seen == {name: list(range(1, 21)) for name in jobs()}


def test_no_more_run_at_once_than_asked(tmp_path: Path) -> None:
    def count(report: Report) -> int:
        mine = tmp_path / str(os.getpid())
        mine.touch()
        time.sleep(0.3)
        running = len(list(tmp_path.iterdir()))
        mine.unlink()
        return running

    assert max(run_parallel({str(i): count for i in range(6)}, 2, quiet).values()) == 2


def raise_config(report: Report) -> None:
    raise ConfigError("train.x=1: set train.x=2")


def raise_value(report: Report) -> None:
    raise ValueError("no window\nsecond line")


def die(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(report: Report) -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (raise_config, r"^train\.x=1: set train\.x=2$"),
        (raise_value, r"^fitting 'bad' failed: ValueError: no window$"),
        (die, r"^the process that fits 'bad' ended with signal 9: if memory ran out, set n_jobs=1"),
    ],
)
def test_a_failure_is_told_and_ends_the_others(job: Any, told: str) -> None:
    before = set(psutil.Process().children())
    start = time.monotonic()
    with pytest.raises(HallmarkError, match=told):
        run_parallel({"waiting": wait, "bad": job}, 2, quiet)
    assert time.monotonic() - start < 30
    assert set(psutil.Process().children()) <= before


def test_whoever_follows_may_stop_all() -> None:
    class Enough(Exception):
        pass

    def stop(name: str, step: int, steps: int, loss: float) -> None:
        raise Enough

    before = set(psutil.Process().children())
    with pytest.raises(Enough):
        run_parallel(jobs(), 2, stop)
    assert set(psutil.Process().children()) <= before


PARENT = """
import os, sys, time
from hallmark.learn.parallel import run_parallel
def work(report):
    print(os.getpid(), flush=True)
    time.sleep(60)
run_parallel({"a": work, "b": work}, 2, print)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_nobody_outlives_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(child) and psutil.Process(child).status() != "zombie" for child in children)


def test_large_results_come_back_whole() -> None:
    def large(report: Report) -> Any:
        return np.arange(3_000_000)

    found = run_parallel({"a": large, "b": large}, 2, quiet)
    assert all(np.array_equal(value, np.arange(3_000_000)) for value in found.values())


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_shared_out_work_comes_back_in_order(at_once: int) -> None:
    seen: list[tuple[int, int]] = []
    found = map_parallel(
        list(range(7)), lambda item: item * 10, at_once, lambda done, total: seen.append((done, total))
    )
    assert found == [0, 10, 20, 30, 40, 50, 60]
    assert {total for _, total in seen} == {7}


def test_nothing_to_share_out_is_nothing() -> None:
    assert map_parallel([], lambda item: item, 2, lambda done, total: None) == []
