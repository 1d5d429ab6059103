"""Kernels are chosen before numpy and torch load, the same for every entry point and every kind of CPU."""

import os
import subprocess
import sys

import pytest

from hallmark import kernels
from hallmark.errors import ConfigError
from tests.toys import ROOT

SHOW = "import torch; print(torch.backends.cpu.get_cpu_capability())"


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    bare = {k: v for k, v in os.environ.items() if k not in kernels.PORTABLE and k != kernels.KERNELS}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**bare, **environment}, capture_output=True, text=True, check=False
    )


def test_this_process_runs_on_the_portable_kernels() -> None:
    import torch

    assert torch.backends.cpu.get_cpu_capability() == "AVX2"
    assert kernels.describe() == dict(kernels.PORTABLE)


def test_pinning_decides_what_torch_uses() -> None:
    done = run(f"from hallmark import kernels; kernels.pin(); {SHOW}")
    assert done.stdout.split() == ["AVX2"]


def test_pinning_too_late_is_refused() -> None:
    done = run("import numpy; from hallmark import kernels; kernels.pin()")
    assert "numpy was loaded before OMP_NUM_THREADS was set: call hallmark.kernels.pin() first" in done.stderr


def test_native_kernels_leave_the_choice_to_the_cpu() -> None:
    code = "from hallmark import kernels; kernels.pin(); import os; print(os.environ.get('ATEN_CPU_CAPABILITY'))"
    assert run(code, HALLMARK_KERNELS="native").stdout.split() == ["None"]
    assert run(code, HALLMARK_KERNELS="native", ATEN_CPU_CAPABILITY="avx2").stdout.split() == ["None"]


def test_an_unknown_choice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.KERNELS, "fast")
    with pytest.raises(ConfigError, match="HALLMARK_KERNELS='fast' must be portable"):
        kernels.pin()


@pytest.mark.parametrize("entry", ["pipelines.__main__", "runtime.repro", "runtime.tune", "benchmarks", "hallmark.cli"])
def test_no_entry_point_loads_numpy_before_its_kernels_are_chosen(entry: str) -> None:
    code = f"""
import importlib, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch") and os.environ.get("ATEN_CPU_CAPABILITY") != "avx2":
            print("loaded too early", name)
sys.meta_path.insert(0, Watch())
module = importlib.import_module("{entry}")
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "too early" not in done.stdout


def test_a_rows_bits_do_not_depend_on_its_batch_from_four_rows_on() -> None:
    """Up to three rows take other kernels, so whoever promises bits fills blocks (the predictor's have 16 rows)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 200, generator=generator), torch.randn(200, 96, generator=generator)
    whole = x @ weight
    for size in (4, 7, 8, 16, 63):
        assert torch.equal(x[:size] @ weight, whole[:size])
