"""Hallmark: data in, served personal models out, and proof of every answer.

`hallmark.open("bundle")` opens a model: `predict`, `card`, `verify`; see hallmark/model.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hallmark.model import open_model as open

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `hallmark.open` when it is asked for: importing one module must not import the others."""
    if name == "open":
        return import_module(f"{__name__}.model").open_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
