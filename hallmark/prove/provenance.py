"""SHA-256 of JSON values, and a description of the environment: torch, CPU kernels, Python."""

import hashlib
import platform
import re
from contextlib import suppress
from pathlib import Path
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
        "processor": _processor(),
        "kernels": kernels.describe(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _processor() -> str:
    """Return vendor, family and model of the CPU, such as `GenuineIntel 6 207`: kernels of one name differ by it."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        about = dict(re.findall(r"^(.+?)\s*: (.+)$", first, re.MULTILINE))
        for names in (("vendor_id", "cpu family", "model"), ("CPU implementer", "CPU variant", "CPU part")):
            if found := " ".join(about[name] for name in names if name in about):
                return found
    return platform.processor()


def digest_of(value: Any) -> str:
    """Return the sha256 of plain values, written as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
