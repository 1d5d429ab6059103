"""Stage package: make the bundle of an accepted model, optionally as ONNX; promote a bundle to champion."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hallmark.abilities import Exporting, HasRequirements
from hallmark.build import dump, targets
from hallmark.contracts import AnyLearner, Candidate, Task, Verdict
from hallmark.errors import BundleError, ConfigError, GateError
from hallmark.files import FileRef, read_json, replacing, write_json
from hallmark.judge.card import describe_data, model_card
from hallmark.judge.gates import judge_output_change
from hallmark.learn.export import REQUIREMENT
from hallmark.learn.trainer import quiet
from hallmark.prove.bundle import Contents, Hallmark, make_bundle, open_accepted
from hallmark.prove.code import SourceTree
from hallmark.prove.provenance import describe_machine, digest_of
from hallmark.prove.versions import released
from hallmark.stages.prepare import TABLES, open_prepared

MADE_BY = ("task", "learner", "data", "model", "train", "personalise", "calibrate")
"""Sections of the parameters that determine a model."""


def package(
    task: Task,
    learner: AnyLearner,
    candidates: Sequence[Candidate],
    params: Mapping[str, Any],
    prepared: Path,
    model: Path,
    evaluation: Path,
    lock: Path,
    releases: Path,
    out: Path,
    form: Any = None,
) -> Hallmark:
    """Make the bundle of a model that no gate refused; another form must give the same answers.

    Raises:
        BundleError: a gate failed, or the verdicts are missing.
        GateError: the form changes the answers by more than `form.max_drift`.
        ConfigError: the learner has no other form.
    """
    verdicts = [Verdict(**v) for v in read_json(evaluation / "verdicts.json")]
    if failed := [v for v in verdicts if v.status == "failed"]:
        raise BundleError(f"gate {failed[0].gate!r} failed ({failed[0].reason}): a failed model is not packaged")
    metrics, origin = read_json(evaluation / "metrics.json"), read_json(prepared / "origin.json")
    notes = []
    # Only candidates that need a pretrained model have requirements.
    needed = {
        name for candidate in candidates if isinstance(candidate, HasRequirements) for name in candidate.requirements
    }
    made_by = {name: params[name] for name in MADE_BY}
    provenance = {
        "data": {name: FileRef.to(prepared / f"{name}.parquet").sha256 for name in TABLES},
        "origin": origin,
        "code": digest_of(dict(SourceTree().imported_by(targets(made_by)).files)),
        "params": digest_of(made_by),
        "lock": FileRef.to(lock).sha256,
        "machine": describe_machine(),
    }
    with tempfile.TemporaryDirectory(prefix="form-") as scratch:
        if form is not None:
            exported = Path(scratch) / "model"
            verdicts.append(export(task, learner, model, exported, prepared, form))
            model, needed = exported, needed | {REQUIREMENT}
            provenance |= {"form": dump(form)}
            notes = [f"The figures are those of the model before it took its packaged form ({type(form).__name__})."]
        contents = Contents(
            task=task.name,
            spec={"task": dump(task), "learner": dump(learner)},
            requirements=sorted(needed),
            schema={
                "request": task.request_type().model_json_schema(),
                "response": task.response_type().model_json_schema(),
            },
            provenance=provenance,
            metrics=metrics,
            verdicts=verdicts,
            card=model_card(
                f"hallmark-{task.name}",
                task.purpose,
                describe_data(open_prepared(prepared), origin),
                (evaluation / "figures.md").read_text(encoding="utf-8"),
                notes,
                verdicts,
                task.card_limits,
            ),
            release=released(releases, task.name),
        )
        return make_bundle(model, contents, out)


def export(task: Task, learner: AnyLearner, model: Path, out: Path, prepared: Path, form: Any) -> Verdict:
    """Copy a model with its network in another form, and check how much the answers change.

    Raises:
        GateError: the answers change by more than `form.max_drift`.
        ConfigError: the learner has no other form.
    """
    if not isinstance(learner, Exporting):
        raise ConfigError(
            f"package.form: what {type(learner).__name__} learns is packaged as it was trained: choose package=standard"
        )
    quiet()
    shutil.copytree(model, out)
    learner.export(out, form)
    data = open_prepared(prepared)
    verdict = judge_output_change(
        learner.raw_outputs(task, data, model), learner.raw_outputs(task, data, out), form.max_drift
    )
    if verdict.status != "passed":
        raise GateError(f"package.form.max_drift: {verdict.reason}: choose package=onnx or package=standard")
    return verdict


def open_judged(bundle: Path) -> tuple[Hallmark, str]:
    """Open a bundle that may be promoted; return its hallmark and digest.

    Raises:
        BundleError: no gate judged it, or one refused it.
    """
    hallmark, digest = open_accepted(bundle)
    if all(v["status"] == "skipped" for v in hallmark.verdicts):
        raise BundleError(
            f"{bundle} was judged by no gate (evaluate.gates was empty, or all were skipped): it cannot be promoted"
        )
    return hallmark, digest


def promote(bundle: Path, releases: Path, champions: Path) -> Hallmark:
    """Make a bundle its task's champion: later models are compared with it, and versions are derived from it.

    Args:
        bundle: directory of the bundle.
        releases: file that records the release of every task.
        champions: directory of the champions, one per task.

    Raises:
        BundleError: no gate judged the bundle, or one refused it; the champion is unchanged.
    """
    hallmark, digest = open_judged(bundle)
    others = read_json(releases) if releases.is_file() else {}
    with replacing(champions / hallmark.task) as fresh:
        shutil.copytree(bundle, fresh, dirs_exist_ok=True)
    entry = {"version": hallmark.version, "digests": dict(hallmark.digests), "hallmark_sha256": digest}
    write_json(releases, {**others, hallmark.task: entry})
    return hallmark
