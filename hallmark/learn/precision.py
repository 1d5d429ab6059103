"""Choose the number format of training (fp32 or bf16) by what the device supports."""

from typing import Literal, get_args

import torch

from hallmark import kernels
from hallmark.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]
CHOICES: tuple[str, ...] = get_args(Precision)


def resolve(precision: str) -> str:
    """Choose `fp32` or `bf16` (autocast) for this machine's device.

    `auto` is fp32 on a CPU, so that its bytes do not depend on the kind of CPU, and bf16 on a GPU that has it.

    Raises:
        ConfigError: bf16 was asked for and the device would only emulate it, which is slower than fp32.
    """
    has, device = _bf16_units()
    if precision == "bf16" and not has:
        raise ConfigError(
            f"train.precision=bf16: {device}, bf16 would be emulated and slower than fp32: set train.precision=auto"
        )
    if precision == "auto":
        return "bf16" if has and torch.cuda.is_available() else "fp32"
    return precision


def _bf16_units() -> tuple[bool, str]:
    """Tell whether the device multiplies in bf16 itself, and what to say where it does not."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return torch.cuda.is_bf16_supported(including_emulation=False), f"{name} has no bf16 units"
    if torch.backends.cpu.get_cpu_capability() == "AVX2" and kernels.environment() == kernels.PORTABLE:
        return False, f"{kernels.KERNELS}=portable uses AVX2 alone"
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has, "this CPU has no bf16 units (avx512_bf16 or amx_bf16)"
