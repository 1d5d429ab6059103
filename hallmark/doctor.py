"""Check whether this machine can run the pipelines: each check is ok or names the remedy."""

import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hallmark import kernels
from hallmark.errors import ConfigError

DISK_GB = 3  # what `make repro` writes: results, DVC's cache, ZenML's store
MEMORY_GB = 3
LIBRARIES = ("torch", "transformers", "peft", "pandas", "sklearn", "pydantic")
PORTS = {3000: "make serve", 8237: "make dashboard"}


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: what was checked.
        found: its value on this machine.
        remedy: what to do; empty if the check passed.
    """

    name: str
    found: str
    remedy: str = ""


def run_checks(root: Path) -> Iterator[Check]:
    """Check Python, torch, kernels, accelerator, memory, disk, DVC remote and ports, without using the network.

    Args:
        root: directory of the repository.
    """
    version = platform.python_version()
    yield Check("python", version, "" if sys.version_info[:2] == (3, 11) else "install Python 3.11, then `make setup`")
    if missing := [name for name in LIBRARIES if not find_spec(name)]:
        yield Check("libraries", f"{', '.join(missing)} not installed", "run `make setup`")
    else:
        yield from _torch()
        yield _kernels()
    yield _memory()
    free = shutil.disk_usage(root).free / 1e9
    yield Check("disk", f"{free:.0f} GB free", "" if free > DISK_GB else f"free {DISK_GB} GB: a run needs them")
    yield _remote(root)
    for port, command in PORTS.items():
        yield _port(port, command)


def _torch() -> Iterator[Check]:
    import torch

    yield Check("torch", torch.__version__)
    if not torch.cuda.is_available():
        built = (
            f"this torch is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else "this torch is built for CPUs"
        )
        yield Check("cuda", f"no GPU ({built}): the CPU is used, in fp32")
        return
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 1e9
    yield Check("cuda", f"{name}, {memory:.0f} GB, CUDA {torch.version.cuda}")


def _kernels() -> Check:
    try:
        variables = kernels.environment()
    except ConfigError as error:
        return Check("kernels", "unknown choice", str(error))
    import torch

    required = variables.get("ATEN_CPU_CAPABILITY", "")
    actual = torch.backends.cpu.get_cpu_capability()
    if required and actual != required.upper():
        return Check("kernels", f"{actual}, {required} asked for", "this CPU lacks AVX2: set HALLMARK_KERNELS=native")
    return Check("kernels", f"{actual.lower()} ({'pinned' if required else 'native'})")


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1e6
    except (OSError, StopIteration, ValueError):
        return Check("memory", "not known on this system")
    return Check("memory", f"{free:.0f} GB available", "" if free > MEMORY_GB else f"a run needs {MEMORY_GB} GB")


def _remote(root: Path) -> Check:
    """Name the remote that DVC would pull from, without connecting to it."""
    dvc = Path(sys.executable).with_name("dvc")
    if not dvc.is_file():
        return Check("dvc", "not installed", "run `make setup`")
    done = subprocess.run([str(dvc), "remote", "default"], cwd=root, capture_output=True, text=True, check=False)
    name = done.stdout.strip()
    if done.returncode or not name or "No default" in name:
        no_remote = "no default remote: simulated data need none"
        return Check("dvc", f"{no_remote}; for public data: `dvc remote add --local --default mirror PATH`")
    return Check("dvc", f"default remote {name!r}")


def _port(port: int, command: str) -> Check:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    remedy = f"`{command} PORT=…` with another one" if command == "make serve" else "stop the program that uses it"
    return Check(f"port {port}", f"{'taken' if taken else 'free'} ({command})", remedy if taken else "")
