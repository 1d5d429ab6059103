"""Stage forget: take a subject out of a bundle, without training; the others' answers keep their bytes."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hallmark.abilities import Forgetting
from hallmark.adapters.tree import HashTree
from hallmark.build import build
from hallmark.errors import BundleError
from hallmark.files import canonical_json, digest_text, sha256
from hallmark.prove.bundle import MANIFEST, Hallmark, make_bundle, open_bundle
from hallmark.stages.refresh import successor

FORGOTTEN = "forgotten"  # key of the provenance
SUBJECTS = "subjects/"


@dataclass(frozen=True)
class Forgotten:
    """A bundle before and after a subject was taken out.

    Attributes:
        task: name of the task.
        before: version and digest.
        after: version and digest.
        root_before: of the hash tree of all subjects' files.
        root_after: without the subject.
        base_before: digest of the base model's files.
        base_after: the same; forgetting trains nothing.
        splits: sha256 of the table that says which subjects the base model was fitted on; empty if it is not known.
    """

    task: str
    before: tuple[str, str]
    after: tuple[str, str]
    root_before: str
    root_after: str
    base_before: str
    base_after: str
    splits: str


def forget(bundle: Path, out: Path, subject_id: str, state: Path | None = None) -> Forgotten | None:
    """Write a bundle without a subject to `out`, completely or not at all.

    Args:
        bundle: directory of the bundle; it may be `out`.
        out: directory of the new one.
        subject_id: who is taken out.
        state: refresh state that belongs to the bundle; it is rewritten in place.

    Returns:
        Both versions; None if the bundle does not know the subject: then nothing was written.

    Raises:
        BundleError: a file is missing or changed, or the task's models cannot forget.
    """
    hallmark, digest = open_bundle(bundle)
    learner = build(hallmark.spec["learner"], "learner")
    if not isinstance(learner, Forgetting):
        raise BundleError(f"{bundle}: a model of {hallmark.task} cannot forget a single subject: train again")
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        model = Path(scratch) / "model"
        shutil.copytree(bundle, model)
        if not learner.forget(model, state, subject_id):
            return None
        earlier = [*made_from(hallmark), (digest, hallmark.version)]
        provenance = {FORGOTTEN: [{"hallmark_sha256": name, "version": version} for name, version in earlier]}
        made = make_bundle(model, successor(bundle, hallmark, provenance), out)
    return Forgotten(
        hallmark.task,
        (hallmark.version, digest),
        (made.version, sha256(out / MANIFEST)),
        subjects_root(hallmark.files),
        subjects_root(made.files),
        _base(hallmark),
        _base(made),
        _splits(hallmark),
    )


def made_from(hallmark: Hallmark) -> list[tuple[str, str]]:
    """Return digest and version of the bundles that a bundle was made from by taking subjects out, the oldest first."""
    return [(item["hallmark_sha256"], item["version"]) for item in hallmark.provenance.get(FORGOTTEN, ())]


def subjects_root(files: Mapping[str, str]) -> str:
    """Return the root of the hash tree over the files of every subject, given the digests of a bundle's files."""
    return HashTree(subject_leaves(files)).root


def subject_leaves(files: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of every subject's files, by the name of its directory."""
    leaves: dict[str, dict[str, str]] = {}
    for name, digest in files.items():
        directory, _, file = name.removeprefix(SUBJECTS).partition("/")
        if name.startswith(SUBJECTS) and file:
            leaves.setdefault(directory, {})[file] = digest
    return {directory: digest_text(canonical_json(of_subject)) for directory, of_subject in leaves.items()}


def _base(hallmark: Hallmark) -> str:
    """Return the digest of the base model's files."""
    return digest_text(canonical_json({n: digest for n, digest in hallmark.files.items() if n.startswith("base/")}))


def _splits(hallmark: Hallmark) -> str:
    tables = hallmark.provenance.get("data", {})
    return str(tables.get("splits", "")) if isinstance(tables, Mapping) else ""
