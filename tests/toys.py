"""Compositions of conf/ and small trained models, each made once in a process and shared by all tests that name it."""

import functools
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from hallmark.build import build
from hallmark.contracts import Prepared, no_progress
from hallmark.learn.candidates import fit_candidates
from runtime.compose import composed as compose

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

SMALL_TEXT = (
    "experiment=text",
    "data.reports=200",
    "data.recipes=120",
    "model.initial_checkpoint.vocabulary=300",
    "model.initial_checkpoint.width=32",
    "model.initial_checkpoint.heads=2",
    "model.initial_checkpoint.layers=2",
    "model.initial_checkpoint.budget_tflop=0.05",
    "train.budget_tflop=0.05",
    "model.candidates.0.context_length=64",
)
"""A language model small enough to learn in seconds."""


class Toy:
    """What a composition leads to; every stage runs when its result is first asked for."""

    def __init__(self, *overrides: str) -> None:
        self.params = compose(*overrides)
        self.task: Any = build(self.params["task"], "task")
        self.learner: Any = build(self.params["learner"], "learner")

    @cached_property
    def prepared(self) -> Prepared:
        """Its rows, cleaned and split."""
        return prepare(self.params, self.task)

    @cached_property
    def trained(self) -> Path:
        """The directory of its model: base, adapters, calibration."""
        self.scratch = tempfile.TemporaryDirectory(prefix="toy-")
        return train(self.params, self.task, self.learner, self.prepared, Path(self.scratch.name))

    @cached_property
    def predictor(self) -> Any:
        """Its model behind one call."""
        return self.learner.open(self.task, self.trained, "1.2.3", "d" * 64)


@functools.cache
def trained_task(*overrides: str) -> Toy:
    """Return the one toy of a composition; whoever changes its files works on a copy."""
    return Toy(*overrides)


def prepare(params: dict[str, Any], task: Any) -> Prepared:
    """Load, clean and split, as the stage does."""
    clean = task.clean(build(params["data"], "data").load())
    return Prepared(clean.rows, clean.subjects, task.split(clean))


def fit(params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, out: Path) -> dict[str, Any]:
    """Fit the candidates into a directory, as the stage does; returns the training record."""
    candidates, settings = build(params["model"]["candidates"]), build(params["train"])
    return fit_candidates(learner, task, prepared, candidates, settings, out, out / "scratch", no_progress)


def train(params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, out: Path) -> Path:
    """Fit, personalise and calibrate into a directory, as the stage does."""
    fit(params, task, learner, prepared, out)
    if params["personalise"] is not None:
        learner.personalise(task, prepared, out, build(params["personalise"]), out / "scratch", no_progress)
    if params["calibrate"] is not None:
        learner.calibrate(task, prepared, out, build(params["calibrate"]), no_progress)
    return out


def another_version(bundle: Path, out: Path, name: str, model: Path | None = None) -> Path:
    """Make a bundle whose manifest differs from that of another one, with its model or with a changed copy of it."""
    from hallmark.prove.bundle import Contents, make_bundle, open_bundle

    known, _ = open_bundle(bundle)
    card = f"# {name}\n"
    make_bundle(
        model or bundle, Contents(known.task, known.spec, [], known.schema, {"data": name}, {}, [], card, None), out
    )
    return out
