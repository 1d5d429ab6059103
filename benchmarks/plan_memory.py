"""Predicted peak memory against what was measured in PEFT's method comparison on an L40S, nothing fitted.

    python -m benchmarks.plan_memory RUNS.csv [--only NAME]

RUNS.csv: columns run, model, batch, seq, measured_gb, trainable. Adapter configurations are those of the runs
(benchmarks/plan_runs.json; huggingface/peft, method_comparison/MetaMathQA, Apache-2.0). A run whose number of trainable
parameters is not the measured one is refused, not predicted. Beside ours, what four formulas say of the same runs.
"""

import argparse
import json
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hallmark.plan.fake import network_of
from hallmark.plan.step import StepCost, trace_step

RUNS = Path(__file__).parent / "plan_runs.json"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}


def main() -> None:
    """Print a line per run, and the errors of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    runs, adapters = pd.read_csv(options.runs), json.loads(RUNS.read_text())
    print(f"{'run':58} {'measured':>8} {'planned':>8} {'error':>7} {'s':>5}   states  4×W  +34sbh +5as²b")
    errors: list[list[float]] = []
    for run in runs.to_dict("records"):
        if options.only not in run["run"]:
            continue
        began = time.perf_counter()
        try:
            cost = planned(run, adapters[run["run"]])
        except Exception as error:  # each method of PEFT has errors of its own on the meta device
            refused(run, f"{type(error).__name__}: {' '.join(str(error).split())[:90]}")
            continue
        seconds = time.perf_counter() - began
        if cost.trainable != run["trainable"]:
            refused(run, f"{cost.trainable:,} parameters learn, not {run['trainable']:,}")
            continue
        figures = [cost.peak / 1e9, *formulas(cost, run)]
        row = [figure / run["measured_gb"] - 1 for figure in figures]
        errors.append(row)
        others = " ".join(f"{share:+6.0%}" for share in row[1:])
        print(
            f"{run['run']:58} {run['measured_gb']:8.2f} {figures[0]:8.2f} {row[0]:+7.1%} {seconds:5.1f}   {others}",
            flush=True,
        )
    table = pd.DataFrame(errors, columns=["ours", "states", "4 x weights", "+ 34sbh", "+ 34sbh + 5as2b"])
    print(f"\n{len(table)} of {len(runs)} runs")
    summary = pd.DataFrame(
        {
            "mean": table.mean(),
            "median": table.median(),
            "mean absolute": table.abs().mean(),
            "worst": table.abs().max(),
        }
    )
    print(summary.map(lambda share: f"{share:+.1%}").to_string())
    print(f"planner: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def refused(run: dict[str, Any], why: str) -> None:
    """Print a run that is not predicted."""
    print(f"{run['run']:58} {run['measured_gb']:8.2f} refused: {why}")


def planned(run: dict[str, Any], settings: dict[str, Any]) -> StepCost:
    """Trace a step of the run as its script makes it: AdamW in fp32 for adapters, bf16 for the rest, no autocast."""
    from peft import get_peft_config, get_peft_model

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.json"
        file.write_text(json.dumps(LLAMA))
        network = network_of(file, torch.bfloat16)
    network.config.use_cache = True
    config = get_peft_config(dict(settings["adapter"]))
    torch.manual_seed(0)
    in_fp32 = not settings.get("adapters_in_bf16")
    try:
        model = get_peft_model(network, config, autocast_adapter_dtype=in_fp32, low_cpu_mem_usage=True)
    except TypeError:  # prompt learning has no such argument
        model = get_peft_model(network, config, autocast_adapter_dtype=in_fp32)
    for name, value in model.named_parameters():
        if settings.get("frozen", "\n") in name:
            value.requires_grad_(False)
    tokens = torch.zeros((int(run["batch"]), int(run["seq"])), dtype=torch.int64)
    batch = {"input_ids": tokens, "labels": tokens}  # texts that were cut at the same length: no padding, no mask
    kept: list[Any] = []

    def loss(model: Any, batch: Any) -> Any:
        outputs = model(**batch)
        kept[:] = [outputs]  # the script's variable holds logits and cache until the next step
        return outputs.loss

    return trace_step(model, batch, lambda p: torch.optim.AdamW(p, foreach=True), clip=1.0, loss=loss)


def formulas(cost: StepCost, run: dict[str, Any]) -> list[float]:
    """Return GB by the usual formulas: states alone; four times the weights; with activations of two kinds."""
    weights, learns = 2 * cost.parameters / 1e9, cost.trainable * 12 / 1e9
    s, b, h, a, layers = (
        run["seq"],
        run["batch"],
        LLAMA["hidden_size"],
        LLAMA["num_attention_heads"],
        LLAMA["num_hidden_layers"],
    )
    linear, attention = 34 * s * b * h * layers / 1e9, 5 * a * s * s * b * layers / 1e9
    return [weights + learns, 4 * weights, weights + learns + linear, weights + learns + linear + attention]


if __name__ == "__main__":
    main()
