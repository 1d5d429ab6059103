"""Work that several processes share: the same result, one set of files, errors that say which process failed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hallmark.build import build
from hallmark.contracts import Prepared, no_progress
from hallmark.errors import ConfigError, DataError, HallmarkError
from hallmark.files import sha256, tree_digests
from hallmark.learn.processes import device, rank, run, world
from hallmark.stages import train as stage


@pytest.fixture(scope="module")
def files(prepared: Prepared, tmp_path_factory: Any) -> Path:
    where: Path = tmp_path_factory.mktemp("prepared")
    for name in ("rows", "subjects", "splits"):
        getattr(prepared, name).to_parquet(where / f"{name}.parquet", index=False)
    return where


def _note(where: Path) -> None:
    (where / f"{rank()}-of-{world()}").touch()


def _fail(where: Path) -> None:
    if rank() == 1:
        raise DataError("this is what went wrong")


def test_every_process_works_and_an_error_names_its_process(tmp_path: Path) -> None:
    run(1, _note, tmp_path)
    run(2, _note, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"0-of-1", "0-of-2", "1-of-2"}
    with pytest.raises(HallmarkError, match=r"process 1 of 2 failed: .*this is what went wrong"):
        run(2, _fail, tmp_path)


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, and there is one")
def test_a_base_trained_by_two_processes_is_one_base_and_the_same_again(
    task: Any, learner: Any, params: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    candidates = build(params["model"]["candidates"][:1])
    config = dataclasses.replace(build(params["train"]), processes=2, distributed="ddp")
    found = []
    settings = build(params["personalise"])
    settings = dataclasses.replace(settings, lora=dataclasses.replace(settings.lora, people=2))
    for name in ("one", "two"):
        out = tmp_path / name
        stage.fit_base(task, learner, candidates, config, files, out, no_progress)
        assert {p.name for p in out.iterdir()} == {"base", "training.json"}
        found.append(sha256(out))
    stage.personalise(task, learner, files, tmp_path / "one", settings, no_progress)
    assert found[0] == found[1]
    both = dataclasses.replace(settings, processes=2)
    stage.personalise(task, learner, files, tmp_path / "two", both, no_progress)
    assert tree_digests(tmp_path / "one" / "subjects") == tree_digests(tmp_path / "two" / "subjects")


def test_more_processes_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"more than the 1 GPUs of this machine.*: set -S train\.processes=1"):
        device()


def test_a_run_goes_on_with_another_number_of_processes_from_the_same_checkpoints(
    task: Any, learner: Any, params: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of checkpoints depends on what is trained, not on who trains it."""
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []
    monkeypatch.setattr(stage, "run", lambda processes, work, *arguments, **_: seen.append(arguments[6]))
    monkeypatch.setattr(stage.FileRef, "to", classmethod(lambda cls, path, rows=None: cls(str(path), "0" * 64)))
    config, candidates = build(params["train"]), build(params["model"]["candidates"][:1])
    for changes in ({}, {"processes": 2, "distributed": "fsdp2"}, {"on_oom": "shrink"}, {"seed": 9}):
        changed = dataclasses.replace(config, **changes)
        stage.fit_base(task, learner, candidates, changed, files, tmp_path / "out", no_progress)
    assert seen[0] == seen[1] == seen[2] != seen[3]
