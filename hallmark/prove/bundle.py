"""Write and open bundles: model directories with a manifest (hallmark.json) of sha256, metrics, verdicts.

`hallmark.json` holds the sha256 of every other file; opening a bundle checks them all, so that a flipped bit,
a missing file or an unknown file is refused before anything is loaded.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hallmark.contracts import Verdict
from hallmark.errors import BundleError
from hallmark.files import canonical_json, read_json, replacing, sha256, tree_digests, write_text
from hallmark.prove.versions import next_version

MANIFEST, CARD = "hallmark.json", "card.md"
FORMAT = 5
SUBDIRECTORIES = (
    "base",
    "subjects",
    "calibration",
)  # of a model directory, copied where they exist; the rest is not copied
WEIGHTS = (".safetensors", ".onnx")  # numbers and a graph of known operators: no pickle, no code
ALLOWED = (*WEIGHTS, ".json", ".md")
RESTORE = "restore it: `dvc checkout --force bundle` for the last one, or make it again with `make repro`"
WHAT = {
    "schema": "schemas",
    "weights": "weights",
    "bundle": "files, configuration or provenance",
    "judgement": "metrics, verdicts or card",
}
"""What each digest of a hallmark covers, in words."""


@dataclass(frozen=True)
class Hallmark:
    """Manifest of a bundle: version, provenance, metrics, verdicts and digests.

    Attributes:
        format: format version of the manifest.
        task: name of the task.
        version: semantic version of the model.
        reason: why the model has this version.
        spec: the configuration nodes of `task` and `learner`, from which the predictor is built.
        requirements: distributions that its service needs in addition to the library's, such as a pretrained model.
        provenance: hashes of data, code closure, params and lock file, the torch build.
        digests: sha256 of `schema`, `weights` and `bundle`, from which versions are derived, and of the `judgement`:
            metrics, verdicts and card.
        metrics: headline figures.
        verdicts: the decision of every gate.
        schema: JSON schemas of request and response.
        files: sha256 of every file.
    """

    format: int
    task: str
    version: str
    reason: str
    spec: Mapping[str, Any]
    requirements: Sequence[str]
    provenance: Mapping[str, Any]
    digests: Mapping[str, str]
    metrics: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Contents:
    """Contents of a bundle other than the model's files.

    Attributes:
        task: name of the task.
        spec: the configuration nodes of `task` and `learner`.
        requirements: distributions that its service needs in addition to the library's.
        schema: JSON schemas of request and response.
        provenance: hashes of what the model was made from.
        metrics: headline figures.
        verdicts: the gates' verdicts.
        card: the model card, Markdown.
        release: version and digests of the released model, or of the bundle that was refreshed, from which the next
            version is derived; None before the first release.
        refreshed: whether adapters of an earlier bundle were updated or taken out, without training.
    """

    task: str
    spec: Mapping[str, Any]
    requirements: Sequence[str]
    schema: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]
    verdicts: Sequence[Verdict]
    card: str
    release: Mapping[str, Any] | None
    refreshed: bool = False


def make_bundle(model: Path, contents: Contents, out: Path) -> Hallmark:
    """Write a bundle of a model directory and its hallmark to `out`, completely or not at all.

    Args:
        model: directory with base, subjects and calibration; other candidates are not copied.
        contents: everything else.
        out: the bundle's directory.

    Raises:
        BundleError: the model directory holds a file of a type that no bundle may hold.
    """
    with replacing(out) as fresh:
        for part in SUBDIRECTORIES:
            if (model / part).is_dir():
                shutil.copytree(model / part, fresh / part)
        for file in fresh.rglob("*"):  # only their owner can read safetensors files; a service runs as another user
            file.chmod(0o755 if file.is_dir() else 0o644)
        write_text(fresh / CARD, contents.card)
        files = tree_digests(fresh)
        if forbidden := [name for name in files if not name.endswith(ALLOWED)]:
            raise BundleError(f"{forbidden[0]} may not be in a bundle: only {', '.join(ALLOWED)} files may")
        verdicts = [asdict(verdict) for verdict in contents.verdicts]
        digests = _digests(files, contents.spec, contents.schema, contents.provenance, contents.metrics, verdicts)
        version, reason = next_version(digests, contents.release, contents.refreshed)
        hallmark = Hallmark(
            format=FORMAT,
            task=contents.task,
            version=version,
            reason=reason,
            spec=contents.spec,
            requirements=list(contents.requirements),
            provenance=contents.provenance,
            digests=digests,
            metrics=contents.metrics,
            verdicts=verdicts,
            schema=contents.schema,
            files=files,
        )
        write_text(fresh / MANIFEST, canonical_json(asdict(hallmark)))
    return hallmark


def _digests(
    files: Mapping[str, str],
    spec: Mapping[str, Any],
    schema: Mapping[str, Any],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """Compute the digests from which versions are derived, and the digest of the judgement.

    `bundle` covers neither the verdicts nor the card that lists them: they depend on the champion, and the promotion of
    this very bundle must not change its version.
    """
    return {
        "schema": _digest(schema),
        "weights": _digest({name: digest for name, digest in files.items() if name.endswith(WEIGHTS)}),
        "bundle": _digest([{name: digest for name, digest in files.items() if name != CARD}, spec, schema, provenance]),
        "judgement": _digest([metrics, verdicts, files[CARD]]),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def read_hallmark(directory: Path) -> tuple[Hallmark, str]:
    """Read a bundle's hallmark and check its contents against its own digests; read no other file.

    Returns:
        The hallmark and its own sha256.

    Raises:
        BundleError: the hallmark is missing, has another format, or was edited.
    """
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise BundleError(f"{directory} is no bundle: it has no {MANIFEST}; run `dvc repro package`")
    try:
        hallmark = Hallmark(**read_json(manifest))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{manifest} cannot be read ({error}): {RESTORE}") from error
    if hallmark.format != FORMAT:
        raise BundleError(f"{manifest} has format {hallmark.format}, this library reads {FORMAT}: use its own version")
    covered = (hallmark.files, hallmark.spec, hallmark.schema, hallmark.provenance, hallmark.metrics, hallmark.verdicts)
    for name, digest in _digests(*covered).items():
        if hallmark.digests.get(name) != digest:
            raise BundleError(
                f"{manifest} was edited: its {WHAT[name]} do not have the digest {name!r} that it names; {RESTORE}"
            )
    return hallmark, sha256(manifest)


def open_bundle(directory: Path) -> tuple[Hallmark, str]:
    """Read a bundle's hallmark after checking every file.

    Returns:
        The hallmark and its own sha256.

    Raises:
        BundleError: names the first file that is missing, changed or unknown, and the remedy.
    """
    hallmark, digest = read_hallmark(directory)
    if found := damage(directory, hallmark.files):
        raise BundleError(next(iter(found.values())))
    return hallmark, digest


def damage(directory: Path, expected: Mapping[str, str]) -> dict[str, str]:
    """Find the files of a bundle that are not as its hallmark says.

    Args:
        directory: of the bundle.
        expected: sha256 of its files, `Hallmark.files`.

    Returns:
        Each file that is missing, changed or unknown, with what is wrong and the remedy; empty if all are right.
    """
    actual, found = tree_digests(directory, everything=True), {}
    actual.pop(MANIFEST, None)
    for name, digest in sorted(expected.items()):
        if name not in actual:
            found[name] = f"{directory / name} is missing from the bundle: {RESTORE}"
        elif actual[name] != digest:
            found[name] = (
                f"{directory / name} has sha256 {actual[name][:12]}…, its hallmark says {digest[:12]}…: "
                f"the file is corrupt, {RESTORE}"
            )
    for name in sorted(set(actual) - set(expected)):
        found[name] = f"{directory / name} is not in the hallmark: remove it"
    return found


def open_accepted(directory: Path) -> tuple[Hallmark, str]:
    """Open a bundle that no gate has refused; see `open_bundle`.

    Raises:
        BundleError: as in `open_bundle`, or a gate failed.
    """
    hallmark, digest = open_bundle(directory)
    check_verdicts(directory, hallmark)
    return hallmark, digest


def check_verdicts(directory: Path, hallmark: Hallmark) -> None:
    """Check that no gate refused a bundle.

    Raises:
        BundleError: names the gate and its reason.
    """
    if refused := [verdict for verdict in hallmark.verdicts if verdict["status"] == "failed"]:
        raise BundleError(
            f"{directory} was refused by gate {refused[0]['gate']!r} ({refused[0]['reason']}): it may not answer"
        )
