"""Hallmark: train, evaluate, package and serve models, personal ones too, with verifiable provenance."""

from importlib import import_module
from os import PathLike
from typing import Any

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def open(directory: str | PathLike[str]) -> Any:
    """Open a bundle and return a `hallmark.model.Model` with `predict`, `card` and `verify`.

    Args:
        directory: of the bundle, such as `bundle` after `make repro`.

    Raises:
        BundleError: there is no bundle, one of its files was changed, or a gate refused it.
    """
    # Imported by name, or the code list of every module (prove/code.py) would hold all that a bundle needs.
    return import_module(f"{__name__}.model").Model(directory)
