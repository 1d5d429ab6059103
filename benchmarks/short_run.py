"""Settings of a short training run, which benchmarks change where they need."""

from typing import Any

from hallmark.learn.trainer import TrainConfig


def short_run(**changes: Any) -> TrainConfig:
    """Return settings without early stopping, on one process and one thread."""
    values: dict[str, Any] = {
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "warmup_share": 0.1,
        "ema_decay": 0.9,
        "evaluate_every": 10**6,
        "patience": 1,
        "seed": 0,
        "threads": 1,
        "precision": "fp32",
        "compile": False,
        "gradient_accumulation": 1,
        "gradient_checkpointing": False,
        "on_oom": "raise",
        "distributed": "none",
        "processes": 1,
        "nodes": 1,
        "restarts": 0,
        "n_jobs": 1,
    }
    return TrainConfig(**{**values, **changes})
