"""python -m benchmarks.adapters_train: many people's LoRA adapters trained at once, beside a sequential PEFT loop.

Same batches, same starting factors, same AdamW; CPU seconds on one thread. The PEFT loop wraps the base once and resets
the factors for every person, which is the cheapest way PEFT offers. The largest difference of any factor is printed.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.adapters_serve import ALPHA, RANK, forecaster, patchtst
from hallmark.adapters.bank import AdapterBank, spec_of
from hallmark.adapters.files import flatten, unflatten
from hallmark.adapters.training import LoraSettings, SubjectExamples, initial_row, sample_examples, train_adapters

WINDOWS = 200  # a person


class Scored(torch.nn.Module):
    """A PatchTST with the loss of every row."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, past_values: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Squared errors by row."""
        error = ((self.model(past_values=past_values).prediction_outputs[..., 0] - target) ** 2).sum(1)
        weight = torch.full_like(error, target.shape[1])
        return {"row_loss": error, "row_weight": weight, "loss": error.sum() / weight.sum()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, nargs="*", default=[16])
    parser.add_argument("--chunk", type=int, nargs="*", default=[16, 32, 64])
    parser.add_argument("--out", type=Path, default=Path("reports/adapters_train.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = []
    for name, (model, targets, make, _) in (("forecaster", forecaster()), ("patchtst", patchtst())):
        inputs = make(WINDOWS)
        if name == "patchtst":
            model, targets = Scored(model), targets.replace(r".*\.", r"model\..*\.", 1)
        inputs["target"] = torch.randn(WINDOWS, 288 if name == "patchtst" else 112)
        for rows in arguments.rows:
            found += compare(name, model, targets, inputs, rows, arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1))


def compare(
    name: str, model: Any, targets: str, inputs: dict[str, Tensor], rows: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train everybody both ways."""
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    no_examples = np.empty(0, dtype=np.int64)
    generator = np.random.default_rng(0)
    people = [
        SubjectExamples(f"p{i}", generator.permutation(WINDOWS)[: generator.integers(40, WINDOWS)], no_examples)
        for i in range(arguments.people)
    ]

    def batch(examples: Any, split: str) -> dict[str, Tensor]:
        return {key: value[examples] for key, value in inputs.items()}

    settings = LoraSettings(RANK, ALPHA, arguments.steps, rows, 2e-4, 0.01, 0, arguments.steps, 9, 1, 1)
    alone, theirs = sequential(model, targets, spec, people, batch, settings)
    found = []
    for chunk in arguments.chunk:
        settings = LoraSettings(RANK, ALPHA, arguments.steps, rows, 2e-4, 0.01, 0, arguments.steps, 9, chunk, 1)
        bank = AdapterBank(copy.deepcopy(model), spec, chunk)
        start = time.process_time()
        together = np.stack([t.row for t in train_adapters(bank, people, batch, settings)])
        ours = time.process_time() - start
        row = {
            "model": name,
            "subjects": len(people),
            "rows a person": rows,
            "at once": chunk,
            "peft_s": round(theirs, 1),
        }
        row |= {"bank_s": round(ours, 1), "ratio": round(theirs / ours, 2)}
        row["difference"] = float(np.abs(together - alone).max())
        print(row, flush=True)
        found.append(row)
    return found


def sequential(
    model: Any, targets: str, spec: Any, people: list[SubjectExamples], batch: Any, settings: LoraSettings
) -> tuple[Any, float]:
    """PEFT, one person after the other; returns the factors and CPU seconds."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, bias="none")
    peft = get_peft_model(copy.deepcopy(model), config).eval()
    modules = {n: m for n, m in peft.base_model.model.named_modules() if n in spec.shapes}
    first = unflatten(initial_row(spec, settings.seed), spec)
    weights = [p for p in peft.parameters() if p.requires_grad]
    found = []
    start = time.process_time()
    for person in people:
        with torch.no_grad():
            for name, (a, b) in first.items():
                modules[name].lora_A["default"].weight.copy_(a)
                modules[name].lora_B["default"].weight.copy_(b)
        optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        for step in range(settings.steps):
            peft(**batch(sample_examples(person, settings, step), "train"))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        made = {
            n: (m.lora_A["default"].weight.detach().clone(), m.lora_B["default"].weight.detach().clone())
            for n, m in modules.items()
        }
        found.append(flatten(made, spec))
    return np.stack(found), time.process_time() - start


if __name__ == "__main__":
    main()
