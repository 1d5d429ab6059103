"""New rows → everybody's adapters a day further, in a new bundle: nothing is trained."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import build
from hallmark.contracts import Refreshing, Verdict
from hallmark.errors import BundleError, ConfigError
from hallmark.files import replacing, sha256
from hallmark.prove.bundle import CARD, Hallmark, make_bundle, open_bundle


def refresh(
    rows: Path, bundle: Path, diary: Path, out: Path, settings: Mapping[str, str] | None = None
) -> tuple[Hallmark, Mapping[str, Any]]:
    """Take up rows into `out/bundle` and `out/diary`, whole or not at all.

    The gates' verdicts stay: they judged the model with its adapters refreshed at every midnight of the test.

    Args:
        rows: a table of one's own.
        bundle: to start from; it may be `out/bundle`.
        diary: its diary, which a training run or an earlier refresh has written.
        out: where both go.
        settings: how the table is read, see `Refreshing.own_rows`.

    Returns:
        The new bundle's hallmark, which names the one it came from, and what became of the rows.

    Raises:
        ConfigError: the task's adapters cannot take up rows.
        DataError, BundleError: the rows, the bundle or the diary is not what it should be; `out` is as it was.
    """
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {"bundle", "diary"}):
        raise BundleError(f"{out} is no earlier refresh: give --out a directory of its own, it is replaced as a whole")
    hallmark, digest = open_bundle(bundle)
    task = build(hallmark.spec, "task")
    if not isinstance(task, Refreshing):
        raise ConfigError(f"{bundle}: adapters of {hallmark.task!r} cannot take up rows: train anew with `dvc repro`")
    raw = task.own_rows(rows, settings or {})
    with replacing(out) as fresh:
        model = fresh / "model"
        shutil.copytree(bundle, model)
        found = task.refresh(raw, model, diary, fresh / "diary")
        made = make_bundle(
            model,
            fresh / "bundle",
            hallmark.task,
            hallmark.spec,
            hallmark.requirements,
            hallmark.schema,
            {
                **hallmark.provenance,
                "refreshed": {"from": digest, "trained": trained_from(hallmark, digest), "rows": sha256(rows), **found},
            },
            hallmark.metrics,
            [Verdict(**verdict) for verdict in hallmark.verdicts],
            (bundle / CARD).read_text(encoding="utf-8"),
            {"version": hallmark.version, "digests": hallmark.digests},
        )
        shutil.rmtree(model)
    return made, found


def trained_from(hallmark: Hallmark, digest: str) -> str:
    """Name the trained bundle that a bundle goes back to, by the sha256 of its hallmark."""
    return str(hallmark.provenance.get("refreshed", {}).get("trained", digest))
