"""Stage refresh: update every subject's linear adapter with new rows, in a new bundle, without training."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import build
from hallmark.contracts import OwnRows, Refreshing, Source, Verdict
from hallmark.errors import BundleError, ConfigError
from hallmark.files import replacing, sha256
from hallmark.prove.bundle import CARD, Contents, Hallmark, make_bundle, open_bundle


def refresh(
    rows: Path, bundle: Path, diary: Path, out: Path, settings: Mapping[str, str] | None = None
) -> tuple[Hallmark, Mapping[str, Any]]:
    """Update adapters with new rows, into `out/bundle` and `out/diary`, whole or not at all.

    The gates' verdicts stay: they judged the model with its adapters refreshed at every midnight of the test.

    Args:
        rows: a table of one's own.
        bundle: to start from; it may be `out/bundle`.
        diary: its diary, which a training run or an earlier refresh has written.
        out: where both go.
        settings: how the table is read: key of the source → value, dotted for a column, such as `columns.timestamp`.

    Returns:
        The new bundle's hallmark, which names the one it came from, and what became of the rows.

    Raises:
        ConfigError: the learner's adapters cannot be refreshed.
        DataError, BundleError: the rows, the bundle or the diary is not what it should be; `out` is as it was.
    """
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {"bundle", "diary"}):
        raise BundleError(f"{out} is no earlier refresh: give --out a directory of its own, it is replaced as a whole")
    hallmark, digest = open_bundle(bundle)
    task, learner = build(hallmark.spec["task"], "task"), build(hallmark.spec["learner"], "learner")
    if not (isinstance(task, OwnRows) and isinstance(learner, Refreshing)):
        raise ConfigError(f"{bundle}: adapters of {hallmark.task!r} cannot be refreshed: train anew with `dvc repro`")
    raw = _source(task, rows, settings or {}).load()
    with replacing(out) as fresh:
        model = fresh / "model"
        shutil.copytree(bundle, model)
        found = learner.refresh(task, raw, model, diary, fresh / "diary")
        refreshed = {"from": digest, "trained": trained_from(hallmark, digest), "rows": sha256(rows), **found}
        contents = Contents(
            task=hallmark.task,
            spec=hallmark.spec,
            requirements=hallmark.requirements,
            schema=hallmark.schema,
            provenance={**hallmark.provenance, "refreshed": refreshed},
            metrics=hallmark.metrics,
            verdicts=[Verdict(**verdict) for verdict in hallmark.verdicts],
            card=(bundle / CARD).read_text(encoding="utf-8"),
            release={"version": hallmark.version, "digests": hallmark.digests},
            refreshed=True,
        )
        made = make_bundle(model, contents, fresh / "bundle")
        shutil.rmtree(model)
    return made, found


def _source(task: OwnRows, rows: Path, settings: Mapping[str, str]) -> Source:
    """Build the source of a table of one's own.

    Raises:
        ConfigError: a setting is unknown, or its value is refused.
    """
    node: dict[str, Any] = {**task.own_source, "path": str(rows)}
    for key, value in settings.items():
        name, _, inside = key.partition(".")
        node[name] = {**node.get(name, {}), inside: value} if inside else value
    found: Source = build(node)
    return found


def trained_from(hallmark: Hallmark, digest: str) -> str:
    """Name the trained bundle that a bundle goes back to, by the sha256 of its hallmark."""
    return str(hallmark.provenance.get("refreshed", {}).get("trained", digest))
