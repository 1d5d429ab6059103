"""Memory of this process: how much there is, and whether an error says that there is none left."""

import gc
from pathlib import Path

import torch

from hallmark.learn.processes import device

_ON_CPU = ("can't allocate memory", "not enough memory")  # of torch's allocator, which raises RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is exhausted, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)


def release_memory() -> None:
    """Give what nobody refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_now() -> str:
    """Say how much memory is taken and how much there is, for a message."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(device())
        peak = torch.cuda.max_memory_allocated(device())
        return f"{peak / 2**30:.1f} GiB at the peak, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free on the GPU"
    return f"{resident_bytes() / 2**30:.1f} GiB in this process"


def resident_bytes() -> int:
    """Return the resident memory of this process now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096
