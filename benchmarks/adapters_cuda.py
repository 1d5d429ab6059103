"""python -m benchmarks.adapters_cuda: the bank on a GPU, eager and as a CUDA graph of a fixed size, beside PEFT.

The base runs in bfloat16 under autocast, factors are stored in bfloat16. Milliseconds a batch, medians, the device
waited for. `--device cpu` runs the same code without graphs, to see that it works; its times mean nothing. Needs torch,
transformers and peft alone.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.adapters_serve import ALPHA, PEFT_PEOPLE, RANK, encoder, forecaster, patchtst, peft_of
from hallmark.adapters.bank import AdapterBank, spec_of

PEOPLE = (8, 64, 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: there is no CUDA device here: run it where one is, or --device cpu for a smoke test")
    torch.manual_seed(0)
    for name, make in (("forecaster", forecaster), ("patchtst", patchtst), ("encoder", encoder)):
        print(f"{name}, bfloat16, rank {RANK}, all linear layers")
        for people in PEOPLE:
            print("  ", compare(make(), people, device, arguments.repeats), flush=True)


@torch.no_grad()
def compare(case: Any, people: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Time one batch of different people, every way."""
    model, targets, make, look = case
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    block = (np.random.default_rng(0).standard_normal((people, spec.size)) * 0.02).astype(np.float32)
    inputs = {name: tensor.to(device) for name, tensor in make(people).items()}
    model = model.to(device)
    bank = AdapterBank(copy.deepcopy(model), spec, people, torch.bfloat16)
    bank.put(1, block)
    rows = torch.arange(1, people + 1, device=device)

    def base() -> Tensor:
        return look(model(**inputs))

    def ours() -> Tensor:
        return look(bank(rows, **inputs))

    calls: dict[str, Callable[[], Any]] = {"base": base, "bank": ours}
    if device.type == "cuda":
        calls |= {"base graph": graphed(base), "bank graph": graphed(ours)}
    if people <= PEFT_PEOPLE:
        peft, names = peft_of(model, targets, spec, block).to(device), [f"p{i}" for i in range(people)]
        calls["peft"] = lambda: peft(**inputs, adapter_names=names)
    found = {f"{name}_ms": round(clock(call, device, repeats), 3) for name, call in calls.items()}
    with torch.autocast(device.type, torch.bfloat16):
        exact = AdapterBank(copy.deepcopy(model), spec, people)
        exact.put(1, block)
        found["bfloat16 against float32 factors"] = float((ours() - look(exact(rows, **inputs))).abs().max())
    return {"subjects": people, **found}


def graphed(call: Callable[[], Tensor]) -> Callable[[], Any]:
    """Record a call of fixed sizes as a CUDA graph; its inputs are overwritten in place from then on."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        call()
    return graph.replay


def clock(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median milliseconds of a call."""
    times = []
    with torch.autocast(device.type, torch.bfloat16):
        for _ in range(repeats + 3):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
