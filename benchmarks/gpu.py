"""python -m benchmarks.gpu: what a GPU is for: answers, training of forecasters and adapters, language models.

Every part is printed as one JSON object: times are medians with the device waited for, memory is the allocator's peak,
and a share is that of the bf16 matrix product measured first on the same card. `--device cpu --small` runs the same
code at a size that ends soon, to see that it works; its times mean nothing. Needs the library alone.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.adapters_serve import ALPHA, RANK, forecaster
from benchmarks.crowd import read_example, requests
from benchmarks.short_run import short_run
from hallmark.adapters.bank import AdapterBank, spec_of
from hallmark.adapters.training import LoraSettings, SubjectExamples, train_adapters
from hallmark.families.language.causal_lm import CausalLm
from hallmark.families.language.encoder import Full, Lora
from hallmark.files import read_json
from hallmark.learn.trainer import TrainConfig, fit, quiet, seed_everything
from hallmark.model import Model

STEPS = 12  # of a training run; the first two are left out of its time
LLAMA_1B = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
"""Shape of Llama 3.2 1B: 1.24 · 10⁹ weights, drawn at random."""
SMALL = {**LLAMA_1B, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="*", default=["service", "forecaster", "adapters", "causal_lm"])
    parser.add_argument("--out", type=Path, default=Path("reports/gpu.json"))
    options = parser.parse_args()
    quiet()
    seed_everything(0, 1)
    peak = peaks(options.device, options.small)
    found: list[dict[str, Any]] = [peak]
    tflops, length = peak["matmul_bf16_tflops"], 32 if options.small else 1024
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("service", lambda: service(options.bundle, options.device, 64 if options.small else 1024)),
        ("forecaster", lambda: forecasting(options.device, options.small, tflops)),
        ("adapters", lambda: adapters(options.device, 16 if options.small else 256)),
        ("causal_lm", lambda: language("lora", 4, length, options, tflops)),
        ("causal_lm", lambda: language("lora", 16, length, options, tflops)),
        ("causal_lm", lambda: language("full", 4, length, options, tflops)),
    ]
    for name, part in parts:
        if name not in options.parts:
            continue
        try:
            found.append(part())
        except Exception as error:  # one part that fails is reported, the others are measured
            found.append({"part": "failed", "error": f"{type(error).__name__}: {error}"[:600]})
        print(json.dumps(found[-1]), flush=True)
        if options.device == "cuda":
            torch.cuda.empty_cache()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


def clock(call: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a call, the device waited for."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def peaks(device: str, small: bool) -> dict[str, Any]:
    """What the card gives: a bf16 matrix product and a copy in its own memory."""
    size = 256 if small else 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = clock(lambda: a @ b, device, 20)
    block = torch.randn(size * size, device=device)
    copied = clock(block.clone, device, 20)
    named = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    found = {
        "part": "peaks",
        "device": named,
        "torch": torch.__version__,
        "matmul_bf16_tflops": 2 * size**3 / seconds / 1e12,
        "copy_tb_s": round(2 * block.nbytes / copied / 1e12, 3),
    }
    print(json.dumps(found), flush=True)
    return found


def service(bundle: Path, device: str, count: int) -> dict[str, Any]:
    """Answers of a bundle: alone and in batches, on the CPU and on the device; equal bytes, whatever the batch."""
    models = {place: Model(bundle, device=place) for place in dict.fromkeys(("cpu", device))}
    kind = models["cpu"].task.request_type()
    people = [str(entry["subject_id"]) for entry in read_json(bundle / "subjects" / "subjects.json")]
    example = read_example(models["cpu"].hallmark.task)
    asked = [kind.model_validate(r) for r in requests(example, [people[i % len(people)] for i in range(count)])]
    found: dict[str, Any] = {"part": "service", "requests": count, "subjects": len(people)}
    texts: dict[str, list[str]] = {}
    for place, model in models.items():
        predictor = model.predictor
        texts[place] = [answer.model_dump_json() for answer in predictor.predict(asked)]
        found[f"{place}_ms_alone"] = round(1000 * clock(lambda p=predictor: p.predict(asked[:1]), device, 30), 2)  # type: ignore[misc]
        for rows in (64, count):
            seconds = clock(lambda p=predictor, r=rows: p.predict(asked[:r]), device, 1 if rows > 64 else 8)  # type: ignore[misc]
            found[f"{place}_answers_s_at_{rows}"] = round(rows / seconds)
        alone = [predictor.predict([request])[0].model_dump_json() for request in asked[:256]]
        found[f"{place}_differ_from_the_row_alone"] = sum(a != b for a, b in zip(alone, texts[place], strict=False))
        again = [answer.model_dump_json() for answer in model.open_again().predict(asked[::-1])][::-1]
        found[f"{place}_differ_when_replayed"] = sum(a != b for a, b in zip(again, texts[place], strict=True))
    pairs = [
        abs(mine["median_mg_dl"] - theirs["median_mg_dl"])
        for one, other in zip(texts["cpu"], texts[device], strict=True)
        for mine, theirs in zip(json.loads(one)["forecast"], json.loads(other)["forecast"], strict=True)
    ]
    return {**found, "largest_difference_mg_dl": max(pairs), "by": str(json.loads(texts[device][0])["served_by"])}


def config(rows: int, tflop: float) -> TrainConfig:
    """Settings of a short run."""
    return short_run(
        budget_tflop=tflop,
        batch_size=rows,
        learning_rate=1e-4,
        weight_decay=0.01,
        ema_decay=0.99,
        patience=2,
        precision="auto",
    )


def trained(
    model: torch.nn.Module, make: Callable[[list[int]], dict[str, Tensor]], rows: int, device: str, peak: float
) -> dict[str, Any]:
    """Train by the library's own trainer: seconds of a step, peak memory, FLOPs and their share of the peak."""
    from torch.utils.flop_counter import FlopCounterMode

    model.to(device)
    batch = {name: tensor.to(device) for name, tensor in make(list(range(rows))).items()}
    with FlopCounterMode(display=False) as counter:
        model(**batch)["loss"].backward()
    model.zero_grad()
    flops, ends, memory = float(counter.get_total_flops()), [], {}

    def step_ended(*_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
            memory["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
            memory["reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 3)
            if not ends:  # what came before counted FLOPs, in float32
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        settings = config(rows, STEPS * flops / 1e12)
        fit(model, (rows * STEPS, make), (rows, make), settings, Path(scratch), step_ended)
    seconds = statistics.median(np.diff(ends)[1:])
    weights = sum(p.numel() for p in model.parameters())
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = {"weights": weights, "trainable": learns, "batch": rows, "ms_a_step": round(1000 * seconds, 2)}
    found |= {"tflop_a_step": round(flops / 1e12, 4), "share_of_peak": round(flops / 1e12 / seconds / peak, 4)}
    return found | memory


def forecasting(device: str, small: bool, peak: float) -> dict[str, Any]:
    """Train the forecaster with a PatchTST body."""
    model, _, batch, _ = forecaster()
    rows = 8 if small else 1024
    examples = batch(rows * 2) | {"target": torch.randn(rows * 2, 112)}
    found = trained(
        model.train(), lambda ids: {n: t[np.asarray(ids) % (2 * rows)] for n, t in examples.items()}, rows, device, peak
    )
    return {"part": "forecaster", **found, "windows_s": round(1000 * rows / found["ms_a_step"])}


def adapters(device: str, people: int) -> dict[str, Any]:
    """Train many people's LoRA adapters at once, on the CPU and on the device."""
    model, targets, batch, _ = forecaster()
    inputs = batch(200) | {"target": torch.randn(200, 112)}
    spec = spec_of(model, targets, "base", RANK, ALPHA)
    generator = np.random.default_rng(0)
    chosen = [
        SubjectExamples(f"p{i}", generator.permutation(200)[:100], np.empty(0, dtype=np.int64)) for i in range(people)
    ]
    found: dict[str, Any] = {"part": "adapters", "subjects": people}
    rows = {}
    for place in dict.fromkeys(("cpu", device)):
        settings = LoraSettings(RANK, ALPHA, 20, 16, 2e-4, 0.01, 0, 20, 9, 64, 1)
        bank = AdapterBank(copy.deepcopy(model), spec, 64).to(place)

        def make(examples: Any, split: str, place: str = place) -> dict[str, Tensor]:
            return {key: value[examples].to(place) for key, value in inputs.items()}

        start = time.perf_counter()
        rows[place] = np.stack([t.row for t in train_adapters(bank, chosen, make, settings)])
        found[f"{place}_subjects_s"] = round(people / (time.perf_counter() - start), 2)
    return {**found, "largest_difference": float(np.abs(rows["cpu"] - rows[device]).max())}


def language(kind: str, rows: int, length: int, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """Train a language model of Llama 3.2 1B's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(**(SMALL if options.small else LLAMA_1B), attn_implementation="sdpa")
    with torch.device(options.device):
        body = LlamaForCausalLM(shape)
    strategy = Full() if kind == "full" else Lora(16, 32, 0.0, "all-linear")
    model = CausalLm(strategy.apply(body)).train()
    ids = torch.randint(0, shape.vocab_size, (64, length))

    def make(chosen: list[int]) -> dict[str, Tensor]:
        batch = ids[np.asarray(chosen) % 64]
        return {"input_ids": batch, "target": batch}

    found = trained(model, make, rows, options.device, peak)
    what = {"part": "causal_lm", "strategy": asdict(strategy) if kind != "full" else "full", "length": length}
    return {**what, **found, "tokens_s": round(1000 * rows * length / found["ms_a_step"])}


if __name__ == "__main__":
    main()
