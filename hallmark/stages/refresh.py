"""Stage refresh: update each subject's online ridge and history with new rows, without training; new bundle."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.abilities import OwnRows, Refreshing
from hallmark.build import build
from hallmark.contracts import Source, Verdict
from hallmark.errors import BundleError, ConfigError
from hallmark.files import replacing, sha256
from hallmark.prove.bundle import CARD, Contents, Hallmark, make_bundle, open_bundle


def refresh(
    rows: Path, bundle: Path, state: Path, out: Path, settings: Mapping[str, str] | None = None
) -> tuple[Hallmark, Mapping[str, Any]]:
    """Update adapters with new rows; write `out/bundle` and `out/refresh_state`, both or none.

    The gates' verdicts stay valid: they judged the model with its adapters refreshed at every midnight of the test.

    Args:
        rows: table of the user's new rows, a file.
        bundle: directory of the bundle to start from; it may be `out/bundle`.
        state: directory of the refresh state that was written with it, by a training run or an earlier refresh.
        out: directory of the new bundle and state.
        settings: how the table is read: key of the source → value, dotted for a column, such as `columns.timestamp`.

    Returns:
        The new bundle's hallmark, which names the bundle it was made from, and counts of rows by what happened to them.

    Raises:
        ConfigError: the learner's adapters cannot be refreshed.
        DataError, BundleError: the rows, the bundle or the state is invalid; `out` is unchanged.
    """
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {"bundle", "refresh_state"}):
        raise BundleError(f"{out} is no earlier refresh: give --out a directory of its own, it is replaced as a whole")
    hallmark, digest = open_bundle(bundle)
    task, learner = build(hallmark.spec["task"], "task"), build(hallmark.spec["learner"], "learner")
    if not (isinstance(task, OwnRows) and isinstance(learner, Refreshing)):
        raise ConfigError(f"{bundle}: adapters of {hallmark.task!r} cannot be refreshed: train again with `dvc repro`")
    raw = _source(task, rows, settings or {}).load()
    with replacing(out) as fresh:
        model = fresh / "model"
        shutil.copytree(bundle, model)
        counts = learner.refresh(task, raw, model, state, fresh / "refresh_state")
        refreshed = {"from": digest, "trained": trained_from(hallmark, digest), "rows": sha256(rows), **counts}
        made = make_bundle(model, successor(bundle, hallmark, {"refreshed": refreshed}), fresh / "bundle")
        shutil.rmtree(model)
    return made, counts


def successor(bundle: Path, hallmark: Hallmark, provenance: Mapping[str, Any]) -> Contents:
    """Return the contents of a bundle that follows another one without training: its adapters alone have changed.

    Args:
        bundle: the other one.
        hallmark: its manifest.
        provenance: what was done, beside where the other one came from.
    """
    return Contents(
        task=hallmark.task,
        spec=hallmark.spec,
        requirements=hallmark.requirements,
        schema=hallmark.schema,
        provenance={**hallmark.provenance, **provenance},
        metrics=hallmark.metrics,
        verdicts=[Verdict(**verdict) for verdict in hallmark.verdicts],
        card=(bundle / CARD).read_text(encoding="utf-8"),
        release={"version": hallmark.version, "digests": hallmark.digests},
        refreshed=True,
    )


def _source(task: OwnRows, rows: Path, settings: Mapping[str, str]) -> Source:
    """Build the source that reads the user's table.

    Raises:
        ConfigError: a setting is unknown, or its value is refused.
    """
    node: dict[str, Any] = {**task.own_source, "path": str(rows)}
    for key, value in settings.items():
        name, _, inside = key.partition(".")
        node[name] = {**node.get(name, {}), inside: value} if inside else value
    source: Source = build(node)
    return source


def trained_from(hallmark: Hallmark, digest: str) -> str:
    """Return the sha256 of the hallmark of the trained bundle from which a bundle was refreshed."""
    return str(hallmark.provenance.get("refreshed", {}).get("trained", digest))
