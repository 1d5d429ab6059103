"""Hallmark: data in, served personal models out, and proof of every answer."""

from importlib import import_module
from os import PathLike
from typing import Any

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def open(directory: str | PathLike[str]) -> Any:
    """Open a bundle: a `hallmark.model.Model` with `predict`, `card` and `verify`.

    Args:
        directory: the bundle, such as `bundle` after `make repro`.

    Raises:
        BundleError: no bundle, a changed one, or one that a gate refused.
    """
    # By name: whoever imports one module of the library must not depend on all that a bundle needs.
    return import_module(f"{__name__}.model").Model(directory)
