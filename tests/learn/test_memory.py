"""Memory: what a LoRA run holds, and a step that does not fit: said with the numbers, or halved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hallmark.errors import MemoryExhausted
from hallmark.learn.memory import is_out_of_memory
from hallmark.learn.moving_average import EmaModel
from hallmark.learn.trainer import fit, quiet
from tests.learn.test_distributed import examples, network, settings
from tests.learn.test_trainer import config, data, same, trained
from tests.toys import ROOT

# In a process of its own, whose address space has a limit: the batch of the configuration does not fit into it.
LIMITED = """
import resource, sys
from pathlib import Path
from tests.learn.test_memory import wide
from hallmark.errors import HallmarkError
import torch
torch.zeros(8, 8).matmul(torch.zeros(8, 8))
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]) * 2**20,) * 2)
try:
    print(wide(Path(sys.argv[1]), sys.argv[2]))
except HallmarkError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Wide(torch.nn.Module):
    """A network whose activations are 256 MB a batch of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        spread = self.body(x).repeat(1, 2**20).sin().cos()
        return {"loss": ((spread.mean(1, keepdim=True) - target) ** 2).mean()}


def wide(where: Path, on_oom: str) -> str:
    quiet()
    torch.manual_seed(0)
    changes = {"budget_tflop": 1e-12, "batch_size": 64, "on_oom": on_oom, "evaluate_every": 1}
    _, result = fit(Wide(), data(1), data(2, rows=8), config(**changes), where)  # type: ignore[arg-type]
    assert result.spent is not None
    return json.dumps([result.spent.batch_size, result.spent.gradient_accumulation, result.valid_loss])


def limited(where: Path, on_oom: str, mebibytes: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(where), on_oom, str(mebibytes)], cwd=ROOT, capture_output=True, text=True
    )


def test_a_step_that_does_not_fit_says_the_numbers_and_the_remedy(tmp_path: Path) -> None:
    run = limited(tmp_path / "run", "raise", 700)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        "MemoryExhausted: memory is exhausted in a step of train.batch_size=64 ("
    )
    assert "-S train.batch_size=32 -S train.gradient_accumulation=2" in run.stderr


def test_a_step_that_does_not_fit_is_halved_until_it_does(tmp_path: Path) -> None:
    run = limited(tmp_path / "run", "shrink", 700)
    assert run.returncode == 0, run.stderr[-2000:]
    batch, accumulation, loss = json.loads(run.stdout)
    assert batch < 64
    assert batch * accumulation == 64, "a step is made of the same examples"
    assert loss == pytest.approx(json.loads(wide(tmp_path / "free", "raise"))[2], rel=1e-5)


def test_other_errors_are_not_taken_for_exhausted_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert issubclass(MemoryExhausted, Exception)


def test_the_average_and_the_checkpoint_of_a_lora_run_hold_what_learns(tmp_path: Path) -> None:
    quiet()
    model = network("lora")
    learns = sum(value.numel() for value in model.parameters() if value.requires_grad)
    averaged = EmaModel(model, 0.9)
    assert sum(value.numel() for value in averaged.average) == learns
    assert {id(v) for v in averaged.model.parameters()} == {id(v) for v in model.parameters()}, "no frozen copy"
    fit(model, examples(1), examples(2), settings("none"), tmp_path)
    file = next(tmp_path.glob("checkpoint-*/model.safetensors"))
    assert file.stat().st_size < 2 * learns * 4 + 20_000


def test_accumulated_batches_are_checkpointed_and_recomputed_to_the_same_weights(tmp_path: Path) -> None:
    quiet()
    plain, _ = fit(network("lora"), examples(1), examples(2), settings("none"), tmp_path / "plain")
    again, _ = fit(
        network("lora"), examples(1), examples(2), settings("none", gradient_checkpointing=True), tmp_path / "again"
    )
    assert same(plain.state_dict(), again.state_dict())


def test_a_network_without_layers_cannot_recompute(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"train\.gradient_checkpointing=true: this network has no layers"):
        trained(tmp_path, gradient_checkpointing=True)
