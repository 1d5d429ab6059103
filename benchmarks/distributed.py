"""One process, DDP and FSDP2 over two, on CPUs: CPU seconds a step and rank, and what a rank holds.

    python -m benchmarks.distributed [--width 256] [--steps 20]

A language model of four layers is trained by the trainer itself, each time with the same examples a step.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.short_run import short_run
from hallmark.families.language.causal_lm import FromScratch
from hallmark.learn.processes import rank, run
from hallmark.learn.trainer import fit, quiet

LENGTH, ROWS = 64, 8


class Model(nn.Module):
    """A language model with `loss`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = FromScratch(2048, width, 4, 4, 1.0, 1e-3).model(0, LENGTH)

    def forward(self, input_ids: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the mean loss."""
        logits = self.body(input_ids=input_ids, use_cache=False).logits
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())}


def main() -> None:
    """Print a line per way of training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    reference: dict[str, float] = {}
    for name in ("none", "ddp", "fsdp2"):
        processes = 1 if name == "none" else 2
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out.json"
            run(processes, work, name, processes, options.width, options.steps, Path(scratch), out)
            found = json.loads(out.read_text())
        reference = reference or found
        gap = max(abs(a - b) for a, b in zip(found["sample"], reference["sample"], strict=True))
        print(
            f"{name:6} {processes} process{'es' if processes > 1 else '  '}: {found['cpu']:.3f} CPU s and "
            f"{found['wall']:.3f} s a step and rank; parameters and average {found['held'] / 1e6:.1f} MB a rank "
            f"({found['held'] / reference['held']:.2f}), optimiser {found['state'] / 1e6:.1f} MB "
            f"({found['state'] / reference['state']:.2f}); weights differ by at most {gap:.1e}",
            flush=True,
        )


def work(name: str, processes: int, width: int, steps: int, scratch: Path, out: Path) -> None:
    """Train, and let the first rank write what it took."""
    quiet()
    torch.manual_seed(0)
    model = Model(width)
    tokens = torch.randint(0, 2048, (256, LENGTH + 1), generator=torch.Generator().manual_seed(1))

    def make(rows: list[int]) -> dict[str, Tensor]:
        return {"input_ids": tokens[rows, :-1], "target": tokens[rows, 1:]}

    flop = 6.0 * sum(value.numel() for value in model.parameters()) * LENGTH  # of a row
    config = short_run(
        budget_tflop=flop * ROWS * steps / 1e12, batch_size=ROWS // processes, distributed=name, processes=processes
    )
    times: list[tuple[float, float]] = []
    sizes: dict[str, int] = {}
    from hallmark.learn import trainer

    updated = trainer.EmaModel.update

    def noting(self: Any) -> None:
        updated(self)
        sizes["held"] = sum(_bytes(p) for p in self.parameters())

    optimizers: list[Any] = []
    stepped = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        optimizers[:] = [self]
        return stepped(self, *args, **kwargs)

    trainer.EmaModel.update = noting  # type: ignore[method-assign]
    torch.optim.AdamW.step = step  # type: ignore[method-assign]
    follow = lambda *_: times.append((time.process_time(), time.perf_counter()))  # noqa: E731
    trained, _ = fit(model, (256, make), (16, make), config, scratch / name, follow)
    if rank() == 0:
        state = sum(_bytes(v) for s in optimizers[0].state.values() for v in s.values() if isinstance(v, Tensor))
        (first, last), count = (times[3], times[-1]), len(times) - 4
        sample = [float(p.flatten()[0]) for p in trained.parameters()]
        figures = {"cpu": (last[0] - first[0]) / count, "wall": (last[1] - first[1]) / count, "state": state, **sizes}
        out.write_text(json.dumps({**figures, "sample": sample}))


def _bytes(tensor: Tensor) -> int:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.numel() * local.element_size()


if __name__ == "__main__":
    main()
