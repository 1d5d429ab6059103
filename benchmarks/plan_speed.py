"""Time and memory of the planner itself: language models of which there is only the configuration file.

python -m benchmarks.plan_speed
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "tie_word_embeddings": False},
}
SHARED = {"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
TEXT = ("experiment=text", "train.batch_size=1", "model.candidates.0.context_length=2048")
PLANS = {
    "1B, everything learns": ("1B", ()),
    "8B, LoRA, recomputed activations": (
        "8B",
        ("strategy@model.strategy=lora_all", "train.gradient_checkpointing=true"),
    ),
    "8B, everything learns, 8 ranks of FSDP2": (
        "8B",
        ("train.gradient_checkpointing=true", "train.distributed=fsdp2", "train.processes=8"),
    ),
}


def main() -> None:
    """Print a line per plan."""
    for name, (size, settings) in PLANS.items():
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "config.json"
            file.write_text(json.dumps({**SHARED, **SIZES[size]}))
            options = [part for setting in (*TEXT, *settings) for part in ("-S", setting)]
            began = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, "-m", "hallmark.cli", "plan", *options, "--model", str(file), "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as child:
                assert child.stdout is not None
                said = child.stdout.read()
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - began
        if child.returncode:
            sys.exit(f"{name}: the planner failed: run `hallmark plan` with the same settings")
        [run] = json.loads(said)["on_gpu"]
        print(
            f"{name:42} {seconds:5.1f} s, {used.ru_utime + used.ru_stime:5.1f} CPU s, {used.ru_maxrss / 1e6:.2f} GB; "
            f"peak of a GPU {run['peak'] / 1e9:.1f} GB, {run['trainable']:,} of {run['parameters']:,} learn",
            flush=True,
        )


if __name__ == "__main__":
    main()
