"""What a model is made of: digests of data, of the code that ran, of parameters, lock file and torch build."""

import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hallmark import kernels
from hallmark.files import canonical_json, sha256

ROOT = Path(__file__).resolve().parents[2]


def code_closure(modules: Iterable[str], packages: tuple[str, ...] = ("hallmark",)) -> dict[str, str]:
    """Digest every file of ours that some modules import, directly or not.

    Imports inside functions are found too; names built at run time are not, so `_target_`s must be given.

    Args:
        modules: dotted names to start from.
        packages: whose files count.

    Returns:
        Path relative to the repository → sha256.
    """
    return {path: sha256(ROOT / path) for path in closure_files(modules, packages)}


def closure_files(modules: Iterable[str], packages: tuple[str, ...] = ("hallmark",)) -> list[str]:
    """List the files of `code_closure`, sorted."""
    import grimp

    # No cache on disk: it looked at times of files and once missed an import that was a minute old.
    graph = grimp.build_graph(
        *packages, include_external_packages=False, exclude_type_checking_imports=True, cache_dir=None
    )
    known = graph.modules
    found: set[str] = set()
    for module in modules:
        name = module
        while name not in known and "." in name:  # `_target_` names a class: trim to its module
            name = name.rpartition(".")[0]
        if name in known:
            found |= {name} | graph.find_upstream_modules(name)
    parents = {name.rsplit(".", i)[0] for name in found for i in range(1, name.count(".") + 1)}
    return sorted(_file(name) for name in found | parents)


def _file(module: str) -> str:
    path = Path(*module.split("."))
    package = path / "__init__.py"
    return (package if (ROOT / package).is_file() else path.with_suffix(".py")).as_posix()


def describe_machine() -> dict[str, Any]:
    """Name what decides about bytes: torch build, kernels, Python."""
    import torch

    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.describe(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def digest_of(value: Any) -> str:
    """Digest plain values."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
