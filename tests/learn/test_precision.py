"""Precision by device: no format is emulated without a word."""

import pytest
import torch

from hallmark import kernels
from hallmark.errors import ConfigError
from hallmark.learn.precision import resolve


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def gpu(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)


def test_a_cpu_trains_in_fp32(cpu: pytest.MonkeyPatch) -> None:
    assert resolve("auto") == resolve("fp32") == "fp32"


def test_bf16_on_portable_kernels_is_refused_by_name(cpu: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"train\.precision=bf16: HALLMARK_KERNELS=portable .*train\.precision=auto"):
        resolve("bf16")


@pytest.mark.parametrize("units", [False, True])
def test_bf16_on_native_kernels_needs_its_units(cpu: pytest.MonkeyPatch, units: bool) -> None:
    cpu.setenv(kernels.KERNELS, "native")
    cpu.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    cpu.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if units:
        assert resolve("bf16") == "bf16"
    else:
        with pytest.raises(ConfigError, match="this CPU has no bf16 units"):
            resolve("bf16")


def test_a_gpu_trains_in_bf16_if_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, True)
    assert resolve("auto") == "bf16"
    gpu(monkeypatch, False)
    assert resolve("auto") == "fp32"
    with pytest.raises(ConfigError, match="Tesla T4 has no bf16 units"):
        resolve("bf16")
