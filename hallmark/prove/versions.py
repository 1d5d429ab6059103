"""Semantic version of a model: schema change = major, other change = minor, refresh = patch.

Schema → major, anything else in the bundle → minor, nothing → the release's own version. A patch is a refresh: adapters
updated without training, so that a refresh and a training never share a version.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import BundleError
from hallmark.files import read_json, readable

FIRST = "1.0.0"


def released(releases: Path, task: str) -> dict[str, Any] | None:
    """Read a task's entry of the releases: version, digests, sha256 of the hallmark; None before the first.

    Raises:
        BundleError: the file cannot be read.
    """
    with readable(releases, "restore it with git"):
        found: dict[str, Any] | None = read_json(releases).get(task) if releases.is_file() else None
    return found


def next_version(
    digests: Mapping[str, str], release: Mapping[str, Any] | None, refreshed: bool = False
) -> tuple[str, str]:
    """Derive a version.

    Args:
        digests: sha256 of `schema`, `weights` and `bundle`.
        release: the `version` and the same `digests` that the version counts from, None before the first release.
        refreshed: whether adapters of that release were updated, without training.

    Returns:
        Version and the reason in words.
    """
    if release is None:
        return FIRST, "first version"
    major, minor, patch = parse(str(release["version"]))
    was = release["digests"]
    if digests["schema"] != was["schema"]:
        return f"{major + 1}.0.0", "request, response or input schema changed"
    if digests["weights"] == was["weights"] and digests["bundle"] == was["bundle"]:
        return str(release["version"]), "nothing changed since the release"
    if refreshed:
        return f"{major}.{minor}.{patch + 1}", "adapters refreshed, nothing trained"
    changed = (
        "weights changed" if digests["weights"] != was["weights"] else "same weights, something around them changed"
    )
    return f"{major}.{minor + 1}.0", changed


def parse(version: str) -> tuple[int, int, int]:
    """Split `1.2.3`.

    Raises:
        BundleError: it is no such version.
    """
    parts = version.split(".")
    if len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise BundleError(f"version {version!r} is not of the form 1.2.3")
    return int(parts[0]), int(parts[1]), int(parts[2])
