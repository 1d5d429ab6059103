"""python -m benchmarks.adapters_serve: rows of different people in one pass, the bank beside the base and beside PEFT.

Every row has another person's adapter (rank 4, all linear layers). CPU milliseconds a batch, medians of alternating
runs on one thread; `x base` is the bank's time over the base model's, `PEFT / bank` PEFT's mixed batch over the bank's;
both are timed eager and, up to 64 people, under torch.compile at that size (which needs a C++ compiler).
Models: the PatchTST forecaster at the size that the pipeline trains, the facts' PatchTST (d128, 4 layers, 288 readings)
and a six-layer encoder of width 384 on 32 tokens, all with random weights: times do not depend on them.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hallmark.adapters.bank import AdapterBank, AdapterSpec, spec_of
from hallmark.adapters.cache import AdapterCache
from hallmark.adapters.files import PackedStore, unflatten, write_packed, write_peft
from hallmark.families.forecasting.network import Forecaster, Shape
from hallmark.families.forecasting.panel import Floats
from hallmark.families.forecasting.patchtst import PatchTSTBodyConfig

RANK, ALPHA = 4, 8
PEOPLE = (1, 8, 16, 64, 256, 1024)
PEFT_PEOPLE = 64  # PEFT registers an adapter in tens of milliseconds: more would take minutes
Case = tuple[nn.Module, str, Callable[[int], dict[str, Tensor]], Callable[[Any], Tensor]]


def forecaster() -> Case:
    """The forecaster with a PatchTST body: 144 readings and 207 inputs, 112 horizons."""
    shape = Shape(207, 67, 144, 112, (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95))
    body = PatchTSTBodyConfig(12, 64, 128, 2, 4, 256, 0.1)
    model = Forecaster(body.build(shape), shape, body.lora_targets, 0.1, 0.1, 2.0).eval()

    def batch(rows: int) -> dict[str, Tensor]:
        sizes = {"x": 207, "recent": 144, "anchor": 112, "correction": 112, "habit": 112}
        found = {name: torch.randn(rows, size) for name, size in sizes.items()}
        return found | {name: torch.ones(rows) for name in ("known", "adapted", "maturity")}

    return model, body.lora_targets, batch, lambda out: out["mean"]


def patchtst() -> Case:
    """The PatchTST of the measured facts."""
    from transformers import PatchTSTConfig, PatchTSTForPrediction

    sizes = {"d_model": 128, "num_hidden_layers": 4, "num_attention_heads": 8, "ffn_dim": 256}
    lengths = {"context_length": 288, "prediction_length": 288, "patch_length": 12, "patch_stride": 12}
    model = PatchTSTForPrediction(PatchTSTConfig(num_input_channels=1, **sizes, **lengths)).eval()
    targets = r".*\.(q_proj|k_proj|v_proj|out_proj|ff\.0|ff\.3|input_embedding|projection)"
    return model, targets, lambda rows: {"past_values": torch.randn(rows, 288, 1)}, lambda out: out.prediction_outputs


def encoder() -> Case:
    """A BERT-type encoder of MiniLM's size."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertModel(BertConfig(vocab_size=1000, **sizes)).eval()
    targets = r".*\.(query|key|value|dense)"
    return (
        model,
        targets,
        lambda rows: {"input_ids": torch.randint(0, 1000, (rows, 32))},
        lambda out: out.last_hidden_state,
    )


def alternate(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median CPU milliseconds of several calls, run in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(next(iter(found.values()))) < 3:
        for name, call in calls.items():
            start = time.process_time()
            call()
            found[name].append((time.process_time() - start) * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def peft_of(model: nn.Module, targets: str, spec: AdapterSpec, block: Floats) -> Any:
    """PEFT around a copy of the model, one adapter p0, p1 … for every row of factors."""
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, bias="none")
    peft = get_peft_model(copy.deepcopy(model), config, adapter_name="p0").eval()
    for i, row in enumerate(block):
        if i:
            peft.add_adapter(f"p{i}", config)
        state = {}
        for name, (a, b) in unflatten(row, spec).items():
            state[f"base_model.model.{name}.lora_A.weight"] = a.clone()
            state[f"base_model.model.{name}.lora_B.weight"] = b.clone()
        set_peft_model_state_dict(peft, state, adapter_name=f"p{i}")
    return peft


@torch.no_grad()
def mixed(case: Case, seconds: float) -> list[dict[str, Any]]:
    """Time batches of different people."""
    model, targets, batch, look = case
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    rows = []
    most = max(PEOPLE)
    block = (np.random.default_rng(0).standard_normal((most, spec.size)) * 0.02).astype(np.float32)
    bank = AdapterBank(copy.deepcopy(model), spec, most)
    bank.put(1, block)
    peft = peft_of(model, targets, spec, block[:PEFT_PEOPLE])
    for people in PEOPLE:
        inputs, slots = batch(people), torch.arange(1, people + 1)
        calls: dict[str, Callable[[], Any]] = {
            "base": lambda inputs=inputs: model(**inputs),  # type: ignore[misc]
            "bank": lambda inputs=inputs, slots=slots: bank(slots, **inputs),  # type: ignore[misc]
        }
        row: dict[str, Any] = {"subjects": people}
        if people <= PEFT_PEOPLE:
            names = [f"p{i}" for i in range(people)]
            calls["peft"] = lambda inputs=inputs, names=names: peft(**inputs, adapter_names=names)  # type: ignore[misc]
            theirs = look(calls["peft"]())
            row["difference"] = float((look(calls["bank"]()) - theirs).abs().max())
            row["effect"] = float((look(calls["base"]()) - theirs).abs().max())
            quick, together = torch.compile(model, dynamic=False), torch.compile(bank, dynamic=False)
            calls["compiled base"] = lambda inputs=inputs, quick=quick: quick(**inputs)  # type: ignore[misc]
            calls["compiled bank"] = lambda inputs=inputs, slots=slots, together=together: together(slots, **inputs)  # type: ignore[misc]
        times = alternate(calls, seconds)
        row |= {f"{name}_ms": round(ms, 2) for name, ms in times.items()}
        row["x base"] = round(times["bank"] / times["base"], 2)
        if "compiled bank" in times:
            row["compiled, x compiled base"] = round(times["compiled bank"] / times["compiled base"], 2)
        if "peft" in times:
            row["PEFT / bank"] = round(times["peft"] / times["bank"], 1)
        rows.append(row)
        print(row, flush=True)
    return rows


@torch.no_grad()
def residents(case: Case, seconds: float) -> dict[str, Any]:
    """Ten thousand people resident: memory, throughput whoever is resident, and the price of a miss."""
    model, _, batch, _ = case
    targets = r".*\.(q_proj|k_proj|v_proj|out_proj)"
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    many = 10_000
    found: dict[str, Any] = {"numbers a person": spec.size, "GB resident": round(many * spec.size * 4 / 1e9, 3)}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "adapters.safetensors"
        generator = np.random.default_rng(0)
        people = ((f"p{i}", (generator.standard_normal(spec.size) * 0.02).astype(np.float32)) for i in range(many))
        write_packed(people, many, spec, file)
        inputs = batch(64)
        seats = {}
        for size in (1, 100, many):
            seats[size] = AdapterCache(AdapterBank(copy.deepcopy(model), spec, size), PackedStore(file, spec))
            seats[size].warm([f"p{i}" for i in range(size)])
        calls = {}
        for size, here in seats.items():
            asked = [f"p{i % size}" for i in np.random.default_rng(1).integers(0, size, 64)]
            calls[str(size)] = lambda here=here, asked=asked: here.forward(asked, **inputs)  # type: ignore[misc]
        found["ms at residents"] = {name: round(ms, 2) for name, ms in alternate(calls, seconds).items()}
        small = AdapterCache(AdapterBank(copy.deepcopy(model), spec, 64), PackedStore(file, spec))
        misses = []
        for i in range(400):
            start = time.perf_counter()
            small.warm([f"p{i}"])
            misses.append((time.perf_counter() - start) * 1000)
        found["p95 ms of a miss"] = round(float(np.percentile(misses[64:], 95)), 2)
    print(found, flush=True)
    return found


def loading(case: Case) -> dict[str, Any]:
    """Load a thousand adapters: packed file and directories into the bank, beside PEFT's load_adapter."""
    from peft import PeftModel

    model, targets, _, _ = case
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    many, few = 1000, 20
    block = (np.random.default_rng(0).standard_normal((many, spec.size)) * 0.02).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "adapters.safetensors"
        write_packed(((f"p{i}", row) for i, row in enumerate(block)), many, spec, file)
        for i in range(few):
            write_peft(unflatten(block[i], spec), spec, Path(scratch) / str(i), targets)
        start = time.process_time()
        AdapterCache(AdapterBank(copy.deepcopy(model), spec, many), PackedStore(file, spec)).warm(
            [f"p{i}" for i in range(many)]
        )
        ours = time.process_time() - start
        peft = PeftModel.from_pretrained(copy.deepcopy(model), str(Path(scratch) / "0"), adapter_name="p0")
        start = time.process_time()
        for i in range(1, few):
            peft.load_adapter(str(Path(scratch) / str(i)), adapter_name=f"p{i}")
        theirs = (time.process_time() - start) / (few - 1) * many
    found = {"bank_s": round(ours, 2), "peft_s": round(theirs, 1), "x faster": round(theirs / ours)}
    print(f"1,000 adapters, CPU s (PEFT from {few - 1}, which grows with how many are there): {found}", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of alternating runs a batch size")
    parser.add_argument("--out", type=Path, default=Path("reports/adapters_serve.json"))
    parser.add_argument("--plot", type=Path, default=Path("reports/adapters.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for name, make in (("forecaster", forecaster), ("patchtst", patchtst), ("encoder", encoder)):
        print(f"\n{name}: rows of different people, rank {RANK}, all linear layers")
        found[name] = mixed(make(), arguments.seconds)
    print("\nPatchTST, attention layers, packed file of 10,000 people, batches of 64")
    found["residents"] = residents(patchtst(), arguments.seconds)
    found["loading"] = loading(patchtst())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1))
    plot(found, arguments.plot)


def plot(found: dict[str, Any], file: Path) -> None:
    """Draw time against people, a panel a model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = ("forecaster", "patchtst", "encoder")
    figure, axes = pyplot.subplots(1, len(names), figsize=(12, 4), layout="constrained")
    styles = {
        "base": ("base model, no adapter", "0.6"),
        "bank": ("bank", "C0"),
        "peft": ("PEFT, mixed batch", "C3"),
    }
    for axis, name in zip(axes, names, strict=True):
        for key, (label, color) in styles.items():
            points = [(row["subjects"], row[f"{key}_ms"]) for row in found[name] if f"{key}_ms" in row]
            axis.loglog(*zip(*points, strict=True), marker="o", label=label, color=color)
        axis.set(title=name, xlabel="people in one batch, a row each", ylabel="CPU ms a batch, one thread")
        axis.grid(True, alpha=0.3)
    axes[-1].legend(loc="lower right")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
