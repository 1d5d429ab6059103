"""Set the variables of OpenMP, MKL, oneDNN and ATen before torch is imported, for AVX2 kernels on every CPU.

Linear algebra libraries select kernels by the features of the CPU, and different kernels add in a different order. The
bytes of a run are the same on machines with one kind of CPU; an AMD EPYC (Zen 3) and an Intel Xeon (Emerald Rapids)
still differ in last digits: docs/adr/0011-kernels.md.

Every entry point (pipelines, command line, service, tests, benchmarks) calls `pin` first; the library never does.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hallmark.errors import ConfigError

KERNELS = "HALLMARK_KERNELS"
"""Environment variable: `portable` (the default) or `native`."""

ONE_THREAD: Mapping[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

GPU: Mapping[str, str] = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it torch refuses a GPU's matrix products as soon as deterministic algorithms are asked for."""

PORTABLE: Mapping[str, str] = {
    **ONE_THREAD,  # another number of threads gives sums with other bytes
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "MKL_CBWR": "AVX2,STRICT",  # torch's matrix products; STRICT: a row's bits do not depend on its batch
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's other matrix products
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's
    "OPENBLAS_L2_SIZE": "512",  # KiB; block sizes follow from it
    **GPU,
}
"""Kernels of every x86-64 CPU with AVX2, which servers have had since 2015."""

NATIVE: Mapping[str, str] = {**ONE_THREAD, "MKL_CBWR": "AUTO,STRICT", **GPU}
"""The fastest kernels of this CPU; another kind of CPU gives other bytes."""


def environment() -> dict[str, str]:
    """Return the environment variables of the kernels that `HALLMARK_KERNELS` selects.

    Raises:
        ConfigError: it names neither `portable` nor `native`.
    """
    wanted = os.environ.get(KERNELS, "portable")
    if wanted not in ("portable", "native"):
        raise ConfigError(f"{KERNELS}={wanted!r} must be portable (AVX2 kernels on every CPU) or native (fastest)")
    return dict(PORTABLE if wanted == "portable" else NATIVE)


def pin() -> None:
    """Set the kernels of this process and of its child processes.

    Raises:
        ConfigError: `HALLMARK_KERNELS` is unknown, or numpy or torch was already imported with other kernels.
    """
    variables = environment()
    late = [name for name, value in variables.items() if os.environ.get(name) != value]
    loaded = [name for name in ("numpy", "torch") if name in sys.modules]
    if late and loaded:
        raise ConfigError(f"{loaded[0]} was loaded before {late[0]} was set: call hallmark.kernels.pin() first")
    for name in set(PORTABLE) - set(variables):
        os.environ.pop(name, None)
    os.environ.update(variables)


def describe() -> dict[str, str]:
    """Return the variables of the kernels that are set, for the hallmark."""
    return {name: os.environ.get(name, "") for name in PORTABLE}


def processor() -> str:
    """Return vendor, family and model of the CPU, such as `GenuineIntel 6 207`: kernels of one name differ by it."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        about = dict(re.findall(r"^(.+?)\s*: (.+)$", first, re.MULTILINE))
        for names in (("vendor_id", "cpu family", "model"), ("CPU implementer", "CPU variant", "CPU part")):
            if found := " ".join(about[name] for name in names if name in about):
                return found
    return platform.processor()
