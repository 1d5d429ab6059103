"""Take a subject out of every bundle and model of a repository."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from hallmark.abilities import Forgetting
from hallmark.build import build
from hallmark.errors import BundleError
from hallmark.files import directory_of, sha256
from hallmark.forget.stores import Stores
from hallmark.prove.bundle import MANIFEST, open_bundle, read_hallmark
from hallmark.prove.serving import NAME, ServedVersions, serving_tasks
from hallmark.prove.signature import sign, signature_of
from hallmark.records.database import Database
from hallmark.records.erasures import digest_of, read_erasures
from hallmark.records.reader import EVERYTHING
from hallmark.stages.forget import Forgotten, forget, subject_leaves
from hallmark.watch.adapters import carry_ledgers


def all_bundles(stores: Stores) -> Iterator[Path]:
    """Yield every bundle: those that serve and the others."""
    for manifest in sorted(stores.served.glob(f"*/*/{MANIFEST}")):
        if not manifest.parent.is_symlink():
            yield manifest.parent
    yield from (bundle for bundle in stores.bundles if (bundle / MANIFEST).is_file())


def known_to_a_bundle(stores: Stores, subject_id: str) -> bool:
    """Tell whether a bundle or a model has files of a subject."""
    bundles = any(_knows(bundle, subject_id) for bundle in all_bundles(stores))
    return bundles or any((model / "subjects" / directory_of(subject_id)).is_dir() for model in stores.models)


def check_bundles(stores: Stores, subject_id: str, key: Path | None) -> None:
    """Check that every bundle that knows a subject is whole and can be replaced, before anything is deleted.

    Raises:
        BundleError: one is damaged, or it is signed and no key is given that could sign its successor.
    """
    for bundle in all_bundles(stores):
        if _knows(bundle, subject_id):
            open_bundle(bundle)
            if signature_of(bundle).is_file() and key is None:
                raise BundleError(f"{bundle} is signed: give the private key by --key, so that its successor is, too")


def forget_bundles(database: Database, stores: Stores, subject_id: str, key: Path | None) -> dict[str, Forgotten]:
    """Replace every bundle that knows the subject by one that does not; the ledgers of the others go on.

    Returns:
        What was replaced, by its directory.

    Raises:
        BundleError: a bundle cannot be replaced; those before it are.
    """
    replaced = {}
    for bundle in list(all_bundles(stores)):
        if bundle.parent.parent == stores.served:
            state = stores.challengers / bundle.parent.name / "states" / bundle.name
            with TemporaryDirectory(dir=stores.served, prefix=".") as scratch:
                made = _forget_bundle(
                    bundle, Path(scratch) / "bundle", subject_id, key, state if state.is_dir() else None
                )
                if made is not None:
                    carry_ledgers(database, made.before[1], made.after[1])
                    versions = ServedVersions(bundle.parent.name, stores.served)
                    versions.succeed(bundle.name, Path(scratch) / "bundle")
                    if state.is_dir():
                        state.rename(state.with_name(made.after[1][:NAME]))
        elif (made := _forget_bundle(bundle, bundle, subject_id, key)) is not None:
            carry_ledgers(database, made.before[1], made.after[1])
        if made is not None:
            replaced[str(bundle)] = made
    return replaced


def forget_models(stores: Stores, subject_id: str) -> list[str]:
    """Rewrite models that are no bundles yet, with the learner of the bundle whose base model is theirs."""
    rewritten = []
    for model in stores.models:
        weights = model / "base" / "spec.json"
        if not (model / "subjects").is_dir() or not weights.is_file():
            continue
        for bundle in all_bundles(stores):
            hallmark = read_hallmark(bundle)[0]
            learner = build(hallmark.spec["learner"], "learner")
            if hallmark.files.get("base/spec.json") == sha256(weights) and isinstance(learner, Forgetting):
                if learner.forget(model, model / "refresh_state", subject_id):
                    rewritten.append(str(model))
                break
    return rewritten


def refuse_erased(database: Database, bundle: Path) -> None:
    """Check that a bundle that is to serve knows nobody who was erased lately.

    Raises:
        BundleError: it does.
    """
    with database.reading(EVERYTHING) as connection:
        erased = read_erasures(connection)
    if not erased:
        return
    known = [unquote(directory) for directory in subject_leaves(read_hallmark(bundle)[0].files)]
    if count := sum(digest_of(subject) in erased for subject in known):
        raise BundleError(
            f"{bundle} knows {count} of the subjects that were erased: run `hallmark erase`, or train again"
        )


def _knows(bundle: Path, subject_id: str) -> bool:
    return directory_of(subject_id) in subject_leaves(read_hallmark(bundle)[0].files)


def forget_pins(stores: Stores, subject_id: str) -> None:
    """Take away what pins a subject to a version."""
    for task in serving_tasks(stores.served):
        versions = ServedVersions(task, stores.served)
        if versions.beside().pins:
            versions.pin(subject_id)


def _forget_bundle(
    bundle: Path, out: Path, subject_id: str, key: Path | None, kept: Path | None = None
) -> Forgotten | None:
    learner = build(read_hallmark(bundle)[0].spec["learner"], "learner")
    if not isinstance(learner, Forgetting):
        return None
    state = bundle.parent / "refresh_state"
    made = forget(bundle, out, subject_id, state if bundle == out and state.is_dir() else kept)
    if made is not None and key is not None:
        sign(out, key)
    return made
