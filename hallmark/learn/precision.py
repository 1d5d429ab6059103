"""Choose the floating-point precision of training (fp32 or bf16) that the device supports."""

from typing import Literal

import torch

from hallmark import kernels
from hallmark.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


def resolve(precision: str) -> str:
    """Return the precision of training, `fp32` or `bf16` (autocast).

    `auto` is fp32 on a CPU, so that the weights do not depend on the type of CPU, and bf16 on a GPU that supports it.

    Raises:
        ConfigError: bf16 is configured, but the device would only emulate it, which is slower than fp32.
    """
    has_bf16, reason = _bf16_units()
    if precision == "bf16" and not has_bf16:
        raise ConfigError(
            f"train.precision=bf16: {reason}, bf16 would be emulated and slower than fp32: set train.precision=auto"
        )
    if precision == "auto":
        return "bf16" if has_bf16 and torch.cuda.is_available() else "fp32"
    return precision


def _bf16_units() -> tuple[bool, str]:
    """Return whether the device has bf16 units, and the reason for the error message if not."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return torch.cuda.is_bf16_supported(including_emulation=False), f"{name} has no bf16 units"
    if torch.backends.cpu.get_cpu_capability() == "AVX2" and kernels.environment() == kernels.PORTABLE:
        return False, f"{kernels.KERNELS}=portable uses AVX2 alone"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has_bf16, "this CPU has no bf16 units (avx512_bf16 or amx_bf16)"
