"""Write and open bundles: model directories with a manifest (hallmark.json) of sha256, metrics, verdicts.

`hallmark.json` holds the sha256 of every other file; opening a bundle checks them all, so a flipped bit,
a missing file or a stranger's file is refused before anything is loaded.
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
FORMAT = 4
PARTS = ("base", "people", "calibration")  # of a model directory, where they are there; the rest stays behind
WEIGHTS = (".safetensors", ".onnx")  # numbers and a graph of known operators: no pickle, no code
ALLOWED = (*WEIGHTS, ".json", ".md")
WHAT = {
    "schema": "schemas",
    "weights": "weights",
    "bundle": "files, configuration or provenance",
    "judgement": "metrics, verdicts or card",
}
"""What each digest of a hallmark covers, in words."""


@dataclass(frozen=True)
class Hallmark:
    """What is proven about a bundle.

    Attributes:
        format: of this manifest.
        task: name of the task.
        version: semantic version of the model.
        reason: why it is this version.
        spec: the configuration nodes of `task` and `learner`, from which the predictor is built.
        requirements: distributions that a service of it needs beside the library's own, such as a pretrained model.
        provenance: hashes of data, code closure, params and lock file, the torch build.
        digests: sha256 of `schema`, `weights` and `bundle`, from which versions are derived, and of the `judgement`:
            metrics, verdicts and card.
        metrics: headline figures.
        verdicts: what every gate decided.
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
    """What goes into a bundle beside the model's own files.

    Attributes:
        task: name of the task.
        spec: the configuration nodes of `task` and `learner`.
        requirements: distributions that a service of it needs beside the library's own.
        schema: JSON schemas of request and response.
        provenance: hashes of what the model was made from.
        metrics: headline figures.
        verdicts: the gates' verdicts.
        card: the model card, Markdown.
        release: version and digests that the version counts from, None before the first: those of the released model,
            or of the bundle that was refreshed.
        refreshed: whether adapters of an earlier bundle were updated, without training.
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
    """Put a model directory and its hallmark into `out`, whole or not at all.

    Args:
        model: base, people, calibration; other candidates stay behind.
        contents: everything else.
        out: the bundle's directory.

    Raises:
        BundleError: the model directory holds a file of a kind that no bundle may hold.
    """
    with replacing(out) as fresh:
        for part in PARTS:
            if (model / part).is_dir():
                shutil.copytree(model / part, fresh / part)
        for file in fresh.rglob("*"):  # safetensors are written for their owner alone; a service is another user
            file.chmod(0o755 if file.is_dir() else 0o644)
        write_text(fresh / CARD, contents.card)
        files = tree_digests(fresh)
        if odd := [name for name in files if not name.endswith(ALLOWED)]:
            raise BundleError(f"{odd[0]} may not be in a bundle: only {', '.join(ALLOWED)} files may")
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
    """Digest what versions are derived from, and what was judged.

    `bundle` holds neither verdicts nor the card that lists them: they name the champion, and whether that is the bundle
    itself must not make a new version.
    """
    return {
        "schema": _digest(schema),
        "weights": _digest({name: digest for name, digest in files.items() if name.endswith(WEIGHTS)}),
        "bundle": _digest([{name: digest for name, digest in files.items() if name != CARD}, spec, schema, provenance]),
        "judgement": _digest([metrics, verdicts, files[CARD]]),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def open_bundle(directory: Path) -> tuple[Hallmark, str]:
    """Read a bundle's hallmark after checking every file.

    Returns:
        The hallmark and its own sha256.

    Raises:
        BundleError: names the first file that is missing, changed or unknown, and the remedy.
    """
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise BundleError(f"{directory} is no bundle: it has no {MANIFEST}; run `dvc repro package`")
    try:
        hallmark = Hallmark(**read_json(manifest))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{manifest} cannot be read ({error}): restore it with `dvc checkout --force`") from error
    if hallmark.format != FORMAT:
        raise BundleError(f"{manifest} has format {hallmark.format}, this library reads {FORMAT}: use its own version")
    parts = (hallmark.files, hallmark.spec, hallmark.schema, hallmark.provenance, hallmark.metrics, hallmark.verdicts)
    for name, digest in _digests(*parts).items():
        if hallmark.digests.get(name) != digest:
            raise BundleError(
                f"{manifest} was edited: its {WHAT[name]} do not have the digest {name!r} that it names; "
                "restore it with `dvc checkout --force`"
            )
    found = tree_digests(directory, everything=True)
    found.pop(MANIFEST)
    for name, digest in sorted(hallmark.files.items()):
        if name not in found:
            raise BundleError(f"{directory / name} is missing from the bundle: restore it with `dvc checkout --force`")
        if found[name] != digest:
            raise BundleError(
                f"{directory / name} has sha256 {found[name][:12]}…, its hallmark says {digest[:12]}…: "
                "the file is corrupt, restore it with `dvc checkout --force`"
            )
    if strangers := sorted(set(found) - set(hallmark.files)):
        raise BundleError(f"{directory / strangers[0]} is not in the hallmark: remove it")
    return hallmark, sha256(manifest)


def open_accepted(directory: Path) -> tuple[Hallmark, str]:
    """Open a bundle that may answer: no gate has refused it. See `open_bundle`.

    Raises:
        BundleError: as in `open_bundle`, or a gate failed.
    """
    hallmark, digest = open_bundle(directory)
    if refused := [verdict for verdict in hallmark.verdicts if verdict["status"] == "failed"]:
        raise BundleError(
            f"{directory} was refused by gate {refused[0]['gate']!r} ({refused[0]['reason']}): it may not answer"
        )
    return hallmark, digest
