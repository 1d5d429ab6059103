"""Semantic version of a model: schema change = major, other change = minor, refresh = patch.

An unchanged bundle keeps the version of the release. A refresh updates adapters without training: with a level of its
own, it never gets the version of a training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.errors import BundleError
from hallmark.files import as_bundle_error, read_json

FIRST = "1.0.0"


def released(releases: Path, task: str) -> dict[str, Any] | None:
    """Read a task's entry of the releases: version, digests, sha256 of the hallmark; None before the first.

    Raises:
        BundleError: the file cannot be read.
    """
    with as_bundle_error(releases, "restore it with git"):
        release: dict[str, Any] | None = read_json(releases).get(task) if releases.is_file() else None
    return release


def next_version(
    digests: Mapping[str, str], release: Mapping[str, Any] | None, refreshed: bool = False
) -> tuple[str, str]:
    """Derive the version of a bundle.

    Args:
        digests: sha256 of `schema`, `weights` and `bundle`.
        release: `version` and `digests` of the release that this bundle follows; None before the first release.
        refreshed: whether adapters of that release were updated or taken out, without training.

    Returns:
        The version and its reason, a short text.
    """
    if release is None:
        return FIRST, "first version"
    major, minor, patch = parse(str(release["version"]))
    before = release["digests"]
    if digests["schema"] != before["schema"]:
        return f"{major + 1}.0.0", "request, response or input schema changed"
    if digests["weights"] == before["weights"] and digests["bundle"] == before["bundle"]:
        return str(release["version"]), "nothing changed since the release"
    if refreshed:
        return f"{major}.{minor}.{patch + 1}", "adapters changed, nothing trained"
    changed = (
        "weights changed" if digests["weights"] != before["weights"] else "same weights, something around them changed"
    )
    return f"{major}.{minor + 1}.0", changed


def parse(version: str) -> tuple[int, int, int]:
    """Split a version such as `1.2.3` into integers.

    Raises:
        BundleError: the text has another form.
    """
    parts = version.split(".")
    if len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise BundleError(f"version {version!r} is not of the form 1.2.3")
    return int(parts[0]), int(parts[1]), int(parts[2])
