"""Many adapters at once: each as PEFT would train it alone, whoever else is trained beside it."""

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from hallmark.adapters.bank import AdapterBank, spec_of
from hallmark.adapters.files import PackedStore, flatten, unflatten
from hallmark.adapters.training import (
    LoraSettings,
    SubjectExamples,
    Trained,
    initial_row,
    sample_examples,
    train_adapters,
    train_distributed,
)
from tests.adapters.test_bank import CASES
from tests.toys import ROOT

SETTINGS = LoraSettings(2, 4, 6, 8, 5e-3, 0.01, 0, 2, 100, 3, 1)
CASES_HERE = ("residual_mlp", "patchtst")


class World:
    """A forecaster and people with differently many examples."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model, self.targets, make, _ = CASES[name]()
        self.spec = spec_of(self.model, self.targets, "base", 2, 4)
        inputs = make(200)
        g = torch.Generator().manual_seed(1)
        target = torch.randn(200, 3, generator=g)
        target[torch.rand(200, 3, generator=g) < 0.1] = float("nan")
        self.inputs = {**inputs, "target": target}
        sizes = (30, 9, 50, 12, 41)
        starts = np.cumsum((0, *sizes))
        self.people = [
            SubjectExamples(
                f"p{i}", np.arange(starts[i], starts[i + 1] - 4), np.arange(starts[i + 1] - 4, starts[i + 1])
            )
            for i in range(len(sizes))
        ]

    def batch(self, examples: Any, part: str) -> dict[str, Tensor]:
        return {name: value[examples] for name, value in self.inputs.items()}

    def train(self, settings: LoraSettings = SETTINGS, people: Any = None, **more: Any) -> list[Trained]:
        bank = AdapterBank(copy.deepcopy(self.model), self.spec, settings.subjects_at_once)
        return list(train_adapters(bank, people or self.people, self.batch, settings, **more))

    def peft(self, person: SubjectExamples, settings: LoraSettings) -> Any:
        """PEFT alone, on the same batches from the same start."""
        config = LoraConfig(r=2, lora_alpha=4, target_modules=self.targets, bias="none")
        model = get_peft_model(copy.deepcopy(self.model), config).eval()
        first = unflatten(initial_row(self.spec, settings.seed), self.spec)
        modules = dict(model.base_model.model.named_modules())
        with torch.no_grad():
            for name, (a, b) in first.items():
                modules[name].lora_A["default"].weight.copy_(a)
                modules[name].lora_B["default"].weight.copy_(b)
        weights = [p for p in model.parameters() if p.requires_grad]
        rate = settings.learning_rate if person.learning_rate is None else person.learning_rate
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=settings.weight_decay)
        for step in range(settings.steps):
            model(**self.batch(sample_examples(person, settings, step), "train"))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        found = {n: (modules[n].lora_A["default"].weight, modules[n].lora_B["default"].weight) for n in first}
        return flatten({n: (a.detach(), b.detach()) for n, (a, b) in found.items()}, self.spec)


@pytest.fixture(params=CASES_HERE)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def last_step(settings: LoraSettings) -> LoraSettings:
    """Settings under which the last step is kept: nobody has valid examples to choose another."""
    return dataclasses.replace(settings, evaluate_every=settings.steps)


def test_each_is_what_peft_trains_alone(world: World) -> None:
    people = [dataclasses.replace(p, valid=p.valid[:0]) for p in world.people]
    people[1] = dataclasses.replace(people[1], learning_rate=1e-3)
    for person, found in zip(people, world.train(last_step(SETTINGS), people), strict=True):
        np.testing.assert_allclose(found.row, world.peft(person, SETTINGS), rtol=0, atol=1e-5)


def test_nobody_depends_on_who_else_is_trained(world: World) -> None:
    together = world.train()
    for person, found in zip(world.people, together, strict=True):
        [alone] = world.train(dataclasses.replace(SETTINGS, people=1), [person])
        np.testing.assert_allclose(found.row, alone.row, rtol=0, atol=1e-6)
        assert found.step == alone.step


def test_two_runs_give_the_same_bytes() -> None:
    world = World("residual_mlp")
    for one, two in zip(world.train(), world.train(), strict=True):
        np.testing.assert_array_equal(one.row, two.row)
        assert dataclasses.replace(one, row=two.row) == two


def test_the_best_evaluation_is_kept_and_a_subject_stops_alone() -> None:
    world = World("residual_mlp")
    settings = dataclasses.replace(SETTINGS, steps=40, patience=2)
    people = [dataclasses.replace(p, learning_rate=1.0 if i == 0 else None) for i, p in enumerate(world.people)]
    found = world.train(settings, people)
    assert found[0].step < found[1].step
    [calm] = world.train(settings, [people[1]])
    np.testing.assert_allclose(found[1].row, calm.row, rtol=0, atol=1e-6)
    bank = AdapterBank(copy.deepcopy(world.model), world.spec, 1)
    for person, one in zip(people, found, strict=True):
        bank.put(1, one.row[None])
        with torch.no_grad():
            loss = bank(1, **world.batch(person.valid, "valid"))["loss"]
        assert float(loss) == pytest.approx(one.loss, abs=1e-5)


def test_a_subject_that_diverges_keeps_its_last_good_evaluation() -> None:
    world = World("residual_mlp")
    wild = dataclasses.replace(world.people[0], learning_rate=1e30)
    [found] = world.train(dataclasses.replace(SETTINGS, evaluate_every=1), [wild])
    assert np.isfinite(found.row).all()


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    world = World("residual_mlp")

    class Killed(Exception):
        pass

    whole, calls = world.train(), 0

    def batch(examples: Any, part: str) -> dict[str, Tensor]:
        nonlocal calls
        calls += part == "train"
        if calls == 5:
            raise Killed
        return World.batch(world, examples, part)

    bank = AdapterBank(copy.deepcopy(world.model), world.spec, SETTINGS.subjects_at_once)
    with pytest.raises(Killed):
        list(train_adapters(bank, world.people, batch, SETTINGS, tmp_path))
    assert list(tmp_path.glob("*.safetensors"))
    again, resumed = world.train(checkpoints=tmp_path), []
    np.testing.assert_array_equal([t.row for t in again], [t.row for t in whole])
    resumed = world.train(checkpoints=tmp_path)
    np.testing.assert_array_equal([t.row for t in resumed], [t.row for t in whole])


def test_checkpoints_of_other_people_are_not_taken_up(tmp_path: Path) -> None:
    world = World("residual_mlp")
    world.train(checkpoints=tmp_path)
    others = list(reversed(world.people))
    np.testing.assert_array_equal(
        [t.row for t in world.train(people=others, checkpoints=tmp_path)], [t.row for t in world.train(people=others)]
    )


def train_here(out: str) -> None:
    """One process of a training that torchrun may have split."""
    torch.set_num_threads(1)
    world = World("residual_mlp")
    bank = AdapterBank(world.model, world.spec, SETTINGS.subjects_at_once)
    train_distributed(bank, world.people, world.batch, SETTINGS, Path(out))


def test_two_processes_make_the_same_file_as_one(tmp_path: Path) -> None:
    one, two, script = tmp_path / "one.safetensors", tmp_path / "two.safetensors", tmp_path / "run.py"
    train_here(str(one))
    script.write_text(f"from tests.adapters.test_training import train_here\ntrain_here({str(two)!r})\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert one.read_bytes() == two.read_bytes()
    assert PackedStore(one, World("residual_mlp").spec).subjects == [f"p{i}" for i in range(5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.safetensors", "run.py", "two.safetensors"]
