"""The trainer: deterministic, resumed after kill -9 with the same bytes, and it keeps the best average."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.short_run import short_run
from hallmark.learn.moving_average import EmaModel
from hallmark.learn.trainer import TrainConfig, fit, quiet
from tests.toys import ROOT


def config(**changes: object) -> TrainConfig:
    values = {
        "budget_tflop": 2e-5,
        "batch_size": 32,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "evaluate_every": 5,
        "patience": 100,
        "seed": 3,
    }
    return short_run(**{**values, **changes})


class Toy(nn.Module):
    """A regression with dropout, so that the generators matter."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.Dropout(dropout), nn.GELU(), nn.Linear(16, 1))

    def forward(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"loss": ((self.body(x) - target) ** 2).mean()}


def data(seed: int, delay: float = 0.0, rows: int = 256) -> tuple[int, object]:
    generator = np.random.default_rng(seed)
    x = torch.from_numpy(generator.normal(size=(rows, 8)).astype(np.float32))
    y = x.sum(1, keepdim=True) + 0.1

    def make(positions: list[int]) -> dict[str, Tensor]:
        time.sleep(delay)
        return {"x": x[positions], "target": y[positions]}

    return rows, make


def trained(where: Path, delay: float = 0.0, dropout: float = 0.3, **changes: object) -> dict[str, Tensor]:
    quiet()
    torch.manual_seed(0)
    model, _ = fit(Toy(dropout), data(1, delay), data(2), config(**changes), where)  # type: ignore[arg-type]
    return model.state_dict()


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_two_runs_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = trained(tmp_path / "a")
    assert same(first, trained(tmp_path / "b"))
    assert not same(first, trained(tmp_path / "c", seed=4))


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    where = str(tmp_path / "cut")
    code = f"from tests.learn.test_trainer import trained; from pathlib import Path; trained(Path({where!r}), 0.05)"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "cut").glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert same(whole, trained(tmp_path / "cut"))


def test_a_run_killed_after_its_last_step_makes_no_further_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, first = fit(Toy(), data(1), data(2), config(), tmp_path)  # type: ignore[arg-type]
    torch.manual_seed(0)
    again, second = fit(Toy(), data(1), data(2), config(), tmp_path)  # type: ignore[arg-type]
    assert first == second
    assert same(whole.state_dict(), again.state_dict())


def test_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    changes = {"learning_rate": 1e-12, "patience": 2}
    torch.manual_seed(0)
    _, first = fit(Toy(), data(1), data(2), config(**changes), tmp_path)  # type: ignore[arg-type]
    torch.manual_seed(0)
    _, second = fit(Toy(), data(1), data(2), config(**changes), tmp_path)  # type: ignore[arg-type]
    assert first == second


def test_training_learns_and_keeps_the_best_evaluation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, result = fit(Toy(), data(1), data(2), config(), tmp_path)  # type: ignore[arg-type]
    losses = dict(result.curve)
    assert losses[result.best_step] == result.valid_loss == min(losses.values())
    assert result.valid_loss < losses[5]


def test_it_stops_when_valid_no_longer_improves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, result = fit(Toy(), data(1), data(2), config(learning_rate=1e-12, patience=2), tmp_path)  # type: ignore[arg-type]
    assert len(result.curve) <= 4


def test_the_budget_decides_the_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, small = fit(Toy(), data(1), data(2), config(budget_tflop=1e-5), tmp_path / "s")  # type: ignore[arg-type]
    _, large = fit(Toy(), data(1), data(2), config(budget_tflop=2e-5), tmp_path / "l")  # type: ignore[arg-type]
    assert abs(large.steps - 2 * small.steps) <= 1


def test_the_average_is_evaluated_and_the_weights_are_trained() -> None:
    averaged = EmaModel(Toy(), 0.9)
    for _ in range(200):  # past its warm-up
        averaged.update()
    with torch.no_grad():
        averaged.model.body[0].weight += 1.0
    before = averaged.average[0].clone()
    averaged.update()
    moved = averaged.average[0] - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-3, atol=1e-3)


def test_accumulated_gradients_are_those_of_the_large_batch(tmp_path: Path) -> None:
    steady = {"dropout": 0.0}
    whole = trained(tmp_path / "whole", **steady)
    halves = trained(tmp_path / "halves", batch_size=16, gradient_accumulation=2, **steady)
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: install g++")
def test_a_compiled_model_learns_the_same_and_keeps_its_names(tmp_path: Path) -> None:
    plain, compiled = (
        trained(tmp_path / str(compiled), compile=compiled, dropout=0.0, precision="fp32") for compiled in (False, True)
    )
    assert set(plain) == set(compiled)
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: training on a GPU is not run here")
def test_training_on_a_gpu_ends_near_training_on_a_cpu(tmp_path: Path) -> None:
    code = "from tests.learn.test_trainer import trained; from pathlib import Path; import torch; "
    code += f"torch.save(trained(Path({str(tmp_path / 'cpu')!r}), dropout=0.0), {str(tmp_path / 'cpu.pt')!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True)
    expected = torch.load(tmp_path / "cpu.pt", weights_only=True)
    for name, value in trained(tmp_path / "gpu", dropout=0.0).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3)


def test_a_checkpoint_that_was_being_written_when_the_process_died_is_left_out(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    torch.manual_seed(0)

    def dies(step: int, steps: int, loss: float) -> None:
        if step == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Toy(), data(1), data(2), config(), tmp_path / "cut", dies)  # type: ignore[arg-type]
    (tmp_path / "cut" / "checkpoint-10" / "trainer_state.json").unlink()
    assert (tmp_path / "cut" / "checkpoint-5" / "trainer_state.json").is_file()
    assert same(whole, trained(tmp_path / "cut"))
