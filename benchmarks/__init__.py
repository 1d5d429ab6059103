"""Measurements, ours beside a peer's: `python -m benchmarks.NAME`. Kernels are set before anything heavy loads."""

from hallmark import kernels

kernels.pin()
