"""Measure what a training run takes: time, memory, and energy where the machine tells."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from hallmark import kernels
from hallmark.contracts import Spent
from hallmark.learn.memory import resident_bytes
from hallmark.learn.processes import device


@contextmanager
def spending() -> Iterator[Callable[..., Spent]]:
    """Begin to measure; yields a function that returns what was spent until it is called.

    It takes the attributes of `Spent` that it does not measure.
    """
    began, cpu, joules = time.perf_counter(), _cpu_seconds(), _joules()
    if on_gpu := torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats(device())
    resident = resident_bytes()

    def spent(**known: int | float | bool) -> Spent:
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(device())
        else:
            peak = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident)
        after = _joules()
        return Spent(
            seconds=time.perf_counter() - began,
            cpu_seconds=_cpu_seconds() - cpu,
            peak_bytes=peak,
            joules=None if joules is None or after is None else after - joules,
            machine=torch.cuda.get_device_name(device()) if on_gpu else kernels.processor(),
            **known,  # type: ignore[arg-type]
        )

    yield spent


def _cpu_seconds() -> float:
    return sum(os.times()[:2])


def _joules() -> float | None:
    """Return the energy that the GPU has taken since its driver was loaded; None where nobody counts it."""
    if not torch.cuda.is_available():
        return None
    with suppress(Exception):  # not every driver has it
        import pynvml

        pynvml.nvmlInit()
        return (
            float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(device().index))) / 1e3
        )
    return None
