"""Training that several processes share: the weights of one process, sharded parameters, resume, a rank that dies."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hallmark.errors import DataError, HallmarkError
from hallmark.families.language.encoder import Full, Lora
from hallmark.learn.processes import rank, run
from hallmark.learn.trainer import fit, quiet
from tests.learn.test_trainer import config

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, and there is one")
VOCABULARY, LENGTH = 64, 12
LORA = Lora(rank=4, alpha=8.0, dropout=0.0, targets="all-linear")


class Tiny(nn.Module):
    """A language model of two layers, with `loss`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        logits = self.body(input_ids=input_ids, use_cache=False).logits
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())}


def network(strategy: str) -> Tiny:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    body = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
        )
    )
    return Tiny((LORA if strategy == "lora" else Full()).apply(body))


def examples(seed: int) -> tuple[int, Any]:
    tokens = torch.randint(0, VOCABULARY, (64, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return 64, lambda rows: {"input_ids": tokens[rows, :-1], "target": tokens[rows, 1:]}


def settings(distributed: str, **changes: Any) -> Any:
    alone = distributed == "none"
    budget = {
        "budget_tflop": 3e-4,
        "batch_size": 16 if alone else 8,
        "processes": 1 if alone else 2,
        "distributed": distributed,
        "evaluate_every": 4,
    }
    return config(**{**budget, **changes})


def train(out: Path, checkpoints: Path, strategy: str, train_config: Any, dies_at: int = 0, cut_at: int = 0) -> None:
    """Fit, and let the first process write weights and what it held; `dies_at`: kill the second one at a step, once."""
    quiet()

    def follow(step: int, steps: int, loss: float) -> None:
        if dies_at and step == dies_at and rank() == 1 and not (out.parent / "died").exists():
            (out.parent / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if cut_at and step == cut_at:
            raise DataError("cut here")

    model = network(strategy)
    held: list[int] = []
    from hallmark.learn import trainer

    original = trainer.EmaModel.update

    def noting(self: Any) -> None:
        original(self)
        held[:] = [sum(_local(p).numel() for p in self.parameters())]

    trainer.EmaModel.update = noting  # type: ignore[method-assign]
    try:
        trained, result = fit(model, examples(1), examples(2), train_config, checkpoints, follow)
    finally:
        trainer.EmaModel.update = original  # type: ignore[method-assign]
    if rank() == 0:
        state = {name: value.contiguous().clone() for name, value in trained.named_parameters()}
        save_file({**state, "held": torch.tensor(held or [0]), "steps": torch.tensor(result.steps)}, str(out))


def _local(parameter: Tensor) -> Tensor:
    local: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local


def trained(tmp_path: Path, name: str, strategy: str, train_config: Any, **changes: Any) -> dict[str, Tensor]:
    out = tmp_path / f"{name}.safetensors"
    checkpoints = changes.pop("checkpoints", tmp_path / name)
    run(
        train_config.processes, train, out, checkpoints, strategy, train_config, *changes.values(),
        restarts=train_config.restarts,
    )  # fmt: skip
    return load_file(str(out))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> dict[str, Tensor]:
    """The weights of a sharded run that was never cut."""
    return trained(tmp_path_factory.mktemp("whole"), "whole", "full", settings("fsdp2"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: Any) -> Path:
    """Checkpoints of a sharded run that was cut after its second validation pass."""
    where: Path = tmp_path_factory.mktemp("cut")
    with pytest.raises(HallmarkError, match="cut here"):
        trained(where, "cut", "full", settings("fsdp2"), dies_at=0, cut_at=10)
    assert (where / "cut" / "checkpoint-8").is_dir()
    return where / "cut"


def close(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert one.keys() == two.keys()
    for name in one.keys() - {"held"}:
        torch.testing.assert_close(
            one[name], two[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_two_processes_make_the_weights_of_one_and_shards_are_half(tmp_path: Path, strategy: str) -> None:
    alone = trained(tmp_path, "alone", strategy, settings("none"))
    copies = trained(tmp_path, "ddp", strategy, settings("ddp"))
    shards = trained(tmp_path, "fsdp2", strategy, settings("fsdp2"))
    assert int(alone["steps"]) > 8
    close(copies, alone)
    close(shards, alone)
    assert copies["held"] == alone["held"]
    assert shards["held"] <= 0.55 * alone["held"], "every process holds its part alone"


def test_accumulation_checkpointing_and_shards_together(tmp_path: Path) -> None:
    alone = trained(tmp_path, "alone", "lora", settings("none"))
    changes = {"batch_size": 4, "gradient_accumulation": 2, "gradient_checkpointing": True}
    close(trained(tmp_path, "both", "lora", settings("fsdp2", **changes)), alone)


@pytest.mark.parametrize("goes_on", ["none", "ddp", "fsdp2"])
def test_a_checkpoint_of_two_is_resumed_by_one_and_by_two(
    tmp_path: Path, cut: Path, whole: dict[str, Tensor], goes_on: str
) -> None:
    shutil.copytree(cut, tmp_path / "cut")
    close(trained(tmp_path, "resumed", "full", settings(goes_on), checkpoints=tmp_path / "cut"), whole)


def test_a_rank_that_is_killed_costs_no_step_that_was_checkpointed(tmp_path: Path) -> None:
    undisturbed = trained(tmp_path, "undisturbed", "full", settings("ddp"))
    began = time.monotonic()
    killed = trained(tmp_path, "killed", "full", settings("ddp", restarts=1), dies_at=10)
    assert (tmp_path / "died").exists()
    assert time.monotonic() - began < 120
    close(killed, undisturbed, tolerance=0.0)


def test_a_rank_that_is_killed_without_restarts_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HallmarkError, match=r"process 1 of 2 failed: .*SIGKILL") as error:
        trained(tmp_path, "killed", "full", settings("ddp"), dies_at=2)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "killed.safetensors").exists()
