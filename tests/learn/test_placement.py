"""Networks on another device: what is asked and what is answered stays on the CPU, or one line says what is missing."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from bentos.engine import Engine
from hallmark.errors import ConfigError
from hallmark.learn.placement import attach
from hallmark.model import Model

NO_CUDA = "no CUDA device: answers on a GPU are not computed here"


class Seen(torch.nn.Module):
    """Notes what it was given."""

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, name: str) -> dict[str, Any]:
        self.given = (x, mask, name)
        return {"doubled": 2 * x, "pair": (mask, 1)}


def test_every_tensor_is_moved_and_nothing_else_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, moved = Seen(), []
    attach(network, torch.device("cpu", 0))
    to = torch.Tensor.to

    def noted(self: torch.Tensor, device: Any, *rest: Any) -> torch.Tensor:
        moved.append((self.shape, device))
        return to(self, "cpu", *rest)

    monkeypatch.setattr(torch.Tensor, "to", noted)
    for twin in (network, copy.deepcopy(network)):
        moved.clear()
        answer = twin(torch.ones(2), mask=torch.zeros(3), name="a")
        assert twin.given[2] == "a"
        assert answer["doubled"].tolist() == [2, 2]
        assert answer["pair"][1] == 1
        there, back = torch.device("cpu", 0), torch.device("cpu")
        assert moved == [((2,), there), ((3,), there), ((2,), back), ((3,), back)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_cuda_device_a_service_says_so_before_it_starts(bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"device=cuda: torch .* sees no CUDA device here: choose cpu"):
        Engine(bundle, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
def test_a_gpu_answers_as_the_cpu_does_but_for_rounding(bundle: Path, requests_by_subject: dict[str, Any]) -> None:
    requests = list(requests_by_subject.values())
    on_cpu, on_gpu = (Model(bundle, device=device).predict(requests) for device in ("cpu", "cuda"))
    for mine, theirs in zip(on_gpu, on_cpu, strict=True):
        for step, other in zip(mine.forecast, theirs.forecast, strict=True):  # type: ignore[attr-defined]
            assert step.median_mg_dl == pytest.approx(other.median_mg_dl, abs=0.2)


def test_a_task_without_a_network_says_that_it_answers_on_the_cpu() -> None:
    from tests.toys import trained_task

    toy = trained_task("experiment=trades", "data.trades=2500", "model.candidates.0.iterations=60")
    model = Model.__new__(Model)
    model.device, model.damaged, model.directory = "cuda", (), toy.trained
    model.task, model.learner, model.digest, model.named = toy.task, toy.learner, "0" * 64, ("trades", "1.0.0")
    model.hallmark = type("Named", (), {"task": "trades", "version": "1.0.0"})()
    with pytest.raises(ConfigError, match="the models of trades answer on the CPU alone"):
        model.open_again()
