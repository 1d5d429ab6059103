"""Interfaces (typing.Protocol) and shared records: Source, Task, Learner, Predictor, Evaluator, Verdict.

Pipelines and steps know these and nothing of a task's subject matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import pandas as pd

if TYPE_CHECKING:
    from pydantic import BaseModel

Better = Literal["lower", "higher", "nearer"]
Status = Literal["passed", "failed", "skipped"]
Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note) by long work."""


Follow = Callable[[int, int, float], None]
"""Called with step, steps and the latest loss on valid."""

T = TypeVar("T", contravariant=True)
E = TypeVar("E")
C = TypeVar("C", contravariant=True)
S = TypeVar("S", contravariant=True)
M = TypeVar("M")


def silent(what: str, done: int, total: int, note: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Raw:
    """What a source yields, as it was found.

    Attributes:
        rows: one row a reading (or text, or trade): subject_id, timestamp, the task's value columns, source.
        subjects: one row a subject: subject_id and whatever groups are known, missing ones as NA.
        origin: where the rows came from, for the hallmark: names, digests, settings; no ids of people.
        excluded: subjects that cleaning is to drop, with the reason that it will report.
    """

    rows: pd.DataFrame
    subjects: pd.DataFrame
    origin: Mapping[str, Any]
    excluded: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Where rows come from; built from `conf/data/*.yaml`."""

    def load(self, progress: Progress = silent) -> Raw:
        """Read everything.

        Raises:
            SourceError: unreachable, unreadable or not what it should be; names the file and the remedy.
        """


@dataclass(frozen=True)
class Clean:
    """Rows that keep the task's schema, and the account of what happened to the others.

    Attributes:
        rows: the task's table.
        subjects: one row a subject that is left.
        report: JSON values: every row dropped, merged or changed, by reason and subject.
    """

    rows: pd.DataFrame
    subjects: pd.DataFrame
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` leaves for the other stages."""

    rows: pd.DataFrame
    subjects: pd.DataFrame
    splits: pd.DataFrame


@dataclass(frozen=True)
class Metric:
    """A figure with its unit and direction.

    Attributes:
        name: such as `rmse`.
        unit: such as `mg/dL`, empty for a share.
        better: whether lower or higher is better, or nearer to `goal`.
        goal: for `nearer`.
    """

    name: str
    unit: str
    better: Better
    goal: float | None = None

    def gain(self, ours: float, theirs: float) -> float:
        """Return by how much ours is better than another model's, in the metric's unit; negative if worse."""
        if self.better == "nearer":
            goal = 0.0 if self.goal is None else self.goal
            return abs(theirs - goal) - abs(ours - goal)
        return theirs - ours if self.better == "lower" else ours - theirs


@dataclass(frozen=True)
class Verdict:
    """What a gate decided, and why.

    Attributes:
        gate: its name.
        status: `skipped` where the data cannot decide and the configuration lets the gate be skipped.
        figure: what was measured.
        bound: what it was held against.
        unit: of both.
        reason: one sentence.
    """

    gate: str
    status: Status
    figure: float | None
    bound: float | None
    unit: str
    reason: str


@dataclass(frozen=True)
class Shown:
    """Which figures are shown, and in what words.

    Attributes:
        marks: the places (`at`) that tables show, the first one deciding their order.
        mark_unit: what follows a mark, such as `min`; empty where marks are names.
        headline: (metric, segment) pairs that `dvc exp show` lists; the terminal shows the first.
        tables: (metric, segment) pairs that the report shows for all models.
        drawn: what an interval's bootstrap has drawn, such as `people`.
    """

    marks: tuple[str, ...]
    mark_unit: str
    headline: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, str], ...]
    drawn: str


@dataclass(frozen=True)
class Evaluation:
    """What a task's evaluation found on test.

    Attributes:
        scores: one row a (subject_id, model, metric, at, segment): value and how many examples it rests on.
        summary: one row a (model, metric, at, segment): mean, low and high of a bootstrap interval, and how many were
            drawn.
        pictures: file names of PNGs, with their captions.
        notes: JSON values for the report that are no scores.
        timings_ms: how long single answers took; judged, never recorded.
        left_out: why some subjects are in no figure, for gates that find none; empty if nobody is left out.
        drift: column of the data report → distance of test from train, see hallmark/judge/drift.py.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    pictures: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    timings_ms: Sequence[float] = ()
    left_out: str = ""
    drift: Mapping[str, float] = field(default_factory=dict)


class Predictor(Protocol):
    """A trained model behind one call; evaluation and serving use the same one."""

    def predict(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request in order; one that must not be answered yields an abstention with its reason."""


@runtime_checkable
class Streaming(Protocol):
    """A predictor whose answer is a text that can be given out while it is made."""

    def stream(self, request: Any) -> Iterator[str]:
        """Give out the pieces of the text that `predict` answers; nothing where it abstains."""


class Task(Protocol):
    """What is predicted; built from `conf/task/*.yaml`. Imports nothing that trains: a `Learner` learns it."""

    @property
    def name(self) -> str:
        """Name, also of the ZenML model and the Bento."""

    @property
    def purpose(self) -> str:
        """What it is for, one paragraph of the model card."""

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is known to be weak."""

    def clean(self, raw: Raw) -> Clean:
        """Check and clean what a source yielded."""

    def split(self, clean: Clean) -> pd.DataFrame:
        """Assign rows or subjects to train, valid and test; returns the splits table."""

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Count what was checked; raise LeakageError on any leak."""

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return train and test tables for the data report: numbers and groups, no ids and no text."""

    def request_type(self) -> type["BaseModel"]:
        """The pydantic type of a request."""

    def response_type(self) -> type["BaseModel"]:
        """The pydantic type of an answer; it cannot be made without what safety demands."""


@runtime_checkable
class OwnRows(Protocol):
    """A task whose users bring rows in a table of their own, for a learner that is `Refreshing`."""

    @property
    def own_source(self) -> Mapping[str, Any]:
        """The configuration node of the source that reads such a table; `path` is added."""


class Candidate(Protocol):
    """One model that is tried; built from `model.candidates`."""

    @property
    def name(self) -> str:
        """Name, different from those of the other candidates."""


@runtime_checkable
class Requiring(Protocol):
    """A candidate that rests on a pretrained model which is installed as a package."""

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that a service of it needs beside the library's own."""


class TrainSettings(Protocol):
    """How candidates are trained; built from `conf/train/*.yaml`."""

    @property
    def processes(self) -> int:
        """Processes that share the training of one candidate."""

    @property
    def side_by_side(self) -> int:
        """Candidates that are trained at the same time, on CPUs."""


@dataclass(frozen=True)
class TrainResult:
    """How the training of one candidate went.

    Attributes:
        valid_loss: the lowest loss on valid, of the averaged weights.
        best_step: the step that it belongs to.
        steps: how many were made.
        curve: (step, loss on valid) of every evaluation.
    """

    valid_loss: float
    best_step: int
    steps: int
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Accepts:
    """Which types a learner takes, section by section of the configuration.

    Attributes:
        task: the tasks that it learns.
        candidates: the models that it fits (`model.candidates`).
        train: how it is trained (`train`).
        personalise: how subjects are personalised; None where the section must be null.
        calibrate: how its answers are calibrated; None where the section must be null.
    """

    task: type
    candidates: tuple[type, ...]
    train: type
    personalise: type | None = None
    calibrate: type | None = None


class Learner(Protocol[T, E, C, S, M]):
    """What learns a task; built from `conf/learner/*.yaml`.

    Type variables: the task T, the examples E, a candidate C, training settings S, a fitted model M.
    """

    accepts: ClassVar[Accepts]
    """What it can be combined with; `build_experiment` checks it before anything runs."""

    def examples(self, task: T, prepared: Prepared, train: S, progress: Progress) -> E:
        """Read what all candidates learn from, once for all of them."""

    def describe(self, examples: E) -> Mapping[str, Any]:
        """Return what the training record says of the examples, JSON values."""

    def fit_one(self, examples: E, candidate: C, train: S, scratch: Path, follow: Follow) -> tuple[M, TrainResult]:
        """Fit one candidate on train; valid may stop it early and measures it. `scratch` keeps its checkpoints."""

    def save(self, model: M, candidate: C, directory: Path) -> Mapping[str, Any]:
        """Write a fitted candidate into a directory that is there; returns values for the training record."""

    def open(self, task: T, model: Path, version: str, digest: str) -> Predictor:
        """Open a model directory for prediction; version and hallmark digest go into every answer."""


AnyLearner = Learner[Any, Any, Any, Any, Any]
"""A learner of whatever task."""


@runtime_checkable
class Checking(Protocol):
    """A learner whose settings must fit those of the task."""

    def check(self, task: Any) -> None:
        """Hold both against each other.

        Raises:
            ValueError: names the setting of the learner, such as `history.ridge`, and what the task has.
        """


@runtime_checkable
class Combining(Protocol):
    """A learner that also makes a model of fitted ones, for candidates that have `members`."""

    def combine(self, examples: Any, candidate: Any, members: Sequence[Any]) -> tuple[Any, TrainResult]:
        """Combine the fitted members, in the candidate's order, without training."""


@runtime_checkable
class Calibrating(Protocol):
    """A learner whose answers carry calibrated probabilities or intervals."""

    def calibrate(
        self, task: Any, prepared: Prepared, model: Path, config: Any, progress: Progress
    ) -> Mapping[str, Any]:
        """Fit the calibration on valid into `model/calibration`; returns figures of it, JSON values."""


@runtime_checkable
class Personalising(Protocol):
    """A learner with adapters: each subject's own weights."""

    def personalise(
        self, task: Any, prepared: Prepared, model: Path, config: Any, scratch: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """Fit what each subject's gate keeps into `model/people`, one directory each; `scratch` as in `fit_one`."""


@runtime_checkable
class Refreshing(Protocol):
    """A learner whose adapters are updated with new rows in closed form, without training."""

    def refresh(self, task: Any, raw: Raw, model: Path, diary: Path, out: Path) -> Mapping[str, Any]:
        """Update the adapters in `model/people` with new rows, and write the diary to go on from into `out`.

        Returns:
            What became of the rows, JSON values.

        Raises:
            DataError: the rows break the task's schema or its limits; nothing was written.
        """


@runtime_checkable
class Exporting(Protocol):
    """A learner whose model can be packaged in another form than that of training."""

    def export(self, model: Path, form: Any) -> None:
        """Write the network in that form beside its weights in `model/base`: `open` then uses it."""

    def compared(self, task: Any, prepared: Prepared, model: Path) -> Any:
        """Return the numbers that answers rest on for rows of test, (B, K): what another form must not change."""


class Evaluator(Protocol):
    """What is measured on test; built from `conf/evaluate/*.yaml`."""

    evaluates: ClassVar[tuple[type, type]]
    """The types of the task and the learner that it belongs to."""

    @property
    def shown(self) -> Shown:
        """What report, terminal and `dvc exp show` show."""

    @property
    def segmentations(self) -> Sequence[str]:
        """How scores are cut into segments: what comes before the colon in a segment's name."""

    def metrics(self, task: Any, learner: Any) -> Mapping[str, Metric]:
        """Every metric that is reported, by name.

        Raises:
            ValueError: evaluation asks for what the task does not give, such as a horizon it does not forecast.
        """

    def evaluate(
        self,
        task: Any,
        learner: Any,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score the model, the other candidates, baselines and the champion on test; write pictures into `out`."""
