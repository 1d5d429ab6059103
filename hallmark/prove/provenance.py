"""SHA-256 of JSON values, and a description of the environment: torch, CPU kernels, Python."""

import hashlib
import platform
from typing import Any

from hallmark import kernels
from hallmark.files import canonical_json


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Describe what determines the bytes of results: torch build, kernels, CPU, Python, and a GPU if one computes."""
    import torch

    of_gpu = {} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}
    return of_gpu | {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "processor": kernels.processor(),
        "kernels": kernels.describe(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def digest_of(value: Any) -> str:
    """Return the sha256 of plain values, written as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
