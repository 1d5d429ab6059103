"""Protocols of sources, tasks, learners, predictors and evaluators, and the dataclasses that they exchange.

Pipelines and steps depend on these and on the optional `hallmark/abilities.py`; nothing here is specific to one task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

import pandas as pd

if TYPE_CHECKING:
    from pydantic import BaseModel

Better = Literal["lower", "higher", "nearer"]
Status = Literal["passed", "failed", "skipped"]
Progress = Callable[[str, int, int, str], None]
"""Callback of long computations: (what, done, total, note)."""


Follow = Callable[[int, int, float], None]
"""Callback of training: (step, number of steps, latest loss on valid)."""

OURS, CHAMPION = "hallmark", "champion"
"""Names of the trained model and of the released one in scores and summary."""

T = TypeVar("T", contravariant=True)
E = TypeVar("E")
C = TypeVar("C", contravariant=True)
S = TypeVar("S", contravariant=True)
M = TypeVar("M")
L = TypeVar("L", contravariant=True)
Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response")

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = Mapping[str, Json]
"""What is written as JSON: origins, reports, notes, training records."""


def no_progress(what: str, done: int, total: int, note: str) -> None:
    """Show no progress; the default callback."""


@dataclass(frozen=True)
class Raw:
    """Tables of a source before cleaning.

    Attributes:
        rows: one row per reading (or text, or trade): subject_id, timestamp, the task's value columns, source.
        subjects: one row per subject: subject_id and the known groups, missing ones as NA.
        origin: origin of the rows, for the hallmark: names, digests, settings; no ids of subjects.
        excluded: subject that cleaning must drop → the reason to report.
    """

    rows: pd.DataFrame
    subjects: pd.DataFrame
    origin: JsonObject
    excluded: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A source of rows; built from `conf/data/*.yaml`."""

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read all rows and subjects.

        Raises:
            SourceError: the source is missing, unreadable or of another format; names the file and the remedy.
        """


@dataclass(frozen=True)
class Clean:
    """Rows that satisfy the task's schema, and a report of all other rows.

    Attributes:
        rows: the task's table.
        subjects: one row per remaining subject.
        report: JSON values: the dropped, merged and changed rows, by reason and subject.
    """

    rows: pd.DataFrame
    subjects: pd.DataFrame
    report: JsonObject


@dataclass(frozen=True)
class Prepared:
    """Tables that stage `prepare` writes for the later stages."""

    rows: pd.DataFrame
    subjects: pd.DataFrame
    splits: pd.DataFrame


@dataclass(frozen=True)
class Metric:
    """A metric with its unit and direction.

    Attributes:
        name: such as `rmse`.
        unit: such as `mg/dL`; empty for a share.
        better: whether a lower value, a higher value or one nearer to `goal` is better.
        goal: the ideal value, for `nearer`; None means 0.
    """

    name: str
    unit: str
    better: Better
    goal: float | None = None

    def gain(self, ours: float, theirs: float) -> float:
        """Return by how much `ours` is better than the other model's value, in the metric's unit; negative if worse."""
        if self.better == "nearer":
            goal = 0.0 if self.goal is None else self.goal
            return abs(theirs - goal) - abs(ours - goal)
        return theirs - ours if self.better == "lower" else ours - theirs


@dataclass(frozen=True)
class Verdict:
    """Decision of a gate, with its reason.

    Attributes:
        gate: its name.
        status: `skipped` if the data cannot decide and the configuration allows the gate to be skipped.
        figure: the measured value.
        bound: the value that `figure` was compared with.
        unit: of figure and bound.
        reason: one sentence.
    """

    gate: str
    status: Status
    figure: float | None
    bound: float | None
    unit: str
    reason: str


@dataclass(frozen=True)
class ReportLayout:
    """Which metrics the report, the terminal and `dvc exp show` present.

    Attributes:
        columns: the horizons or splits that tables show; models are sorted by the first.
        column_unit: unit of a horizon, such as `min`; empty if the columns are splits.
        headline: at most six (metric, horizon or split, segment) that `dvc exp show` lists. The report and the
            terminal begin with the first.
        tables: (metric, segment) pairs that the report shows for all models.
        resampling_unit: what the bootstrap of an interval resamples, such as `subjects`.
    """

    columns: tuple[str, ...]
    column_unit: str
    headline: tuple[tuple[str, str, str], ...]
    tables: tuple[tuple[str, str], ...]
    resampling_unit: str

    def metric_at(self, metric: str, column: str) -> str:
        """Write a metric with its horizon or split, such as `rmse at 60 min`."""
        return f"{metric} at {column} {self.column_unit}" if self.column_unit else f"{metric} on {column}"


@dataclass(frozen=True)
class Evaluation:
    """Results of a task's evaluation on test.

    Attributes:
        scores: one row per (subject_id, model, metric, horizon_or_split, segment): `value`, and `n_examples`, the
            number of examples that it was computed from.
        summary: one row per (model, metric, horizon_or_split, segment): `mean`, `low` and `high` of a bootstrap
            interval, and `n_units`, the number of resampled units.
        baselines: the models of `summary` that need little or no training; the trained model must beat them.
        pictures: file name of a PNG → its caption.
        notes: JSON values for the report other than scores.
        timings_ms: latency of single answers, for gates; never stored with the results.
        left_out: why some subjects have no scores, for gates that need them; empty if no subject is left out.
        drift: column of the data report → distance of test from train, see hallmark/judge/drift.py.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    baselines: Sequence[str]
    pictures: Mapping[str, str] = field(default_factory=dict)
    notes: JsonObject = field(default_factory=dict)
    timings_ms: Sequence[float] = ()
    left_out: str = ""
    drift: Mapping[str, float] = field(default_factory=dict)


class Predictor(Protocol[Request, Response]):
    """A trained model with one method; evaluation and serving use the same predictor."""

    def predict(self, requests: Sequence[Request]) -> list[Response]:
        """Answer every request, in order; a request that must not be answered gets an abstention with its reason."""


AnyPredictor: TypeAlias = Predictor[Any, Any]
"""A predictor of any task."""


class Task(Protocol):
    """What is predicted; built from `conf/task/*.yaml`. Imports no training code, which belongs to a `Learner`."""

    @property
    def name(self) -> str:
        """Name, also of the ZenML model and the Bento."""

    @property
    def purpose(self) -> str:
        """Intended use, one paragraph of the model card."""

    @property
    def card_limits(self) -> Sequence[str]:
        """Excluded uses and known weaknesses, for the model card."""

    def clean(self, raw: Raw) -> Clean:
        """Check and clean the rows of a source."""

    def split(self, clean: Clean) -> pd.DataFrame:
        """Assign rows or subjects to train, valid and test; return the splits table."""

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check for leakage: raise LeakageError on any leak, else return counts of what was checked."""

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return train and test tables for the data report: numbers and groups, no ids and no text."""

    def request_type(self) -> type["BaseModel"]:
        """Return the pydantic type of a request."""

    def response_type(self) -> type["BaseModel"]:
        """Return the pydantic type of a response, which requires every field that safety needs."""


class Candidate(Protocol):
    """One of the models that are fitted and compared; built from `model.candidates`."""

    @property
    def name(self) -> str:
        """Name, unique among the candidates."""


class TrainSettings(Protocol):
    """How candidates are trained; built from `conf/train/*.yaml`."""

    @property
    def processes(self) -> int:
        """Processes that share the training of one candidate."""

    @property
    def nodes(self) -> int:
        """Machines that share it."""

    @property
    def restarts(self) -> int:
        """How often all its processes begin again after one of them has died."""

    @property
    def n_jobs(self) -> int:
        """Candidates that are trained at the same time, on CPUs."""


@dataclass(frozen=True)
class TrainResult:
    """Result of training one candidate.

    Attributes:
        valid_loss: the lowest loss on valid, of the averaged weights.
        best_step: the step with that loss.
        steps: number of training steps.
        curve: (step, loss on valid) of every evaluation.
        spent: what it took, which is never the same twice; None if nothing was measured.
    """

    valid_loss: float
    best_step: int
    steps: int
    curve: tuple[tuple[int, float], ...]
    spent: "Spent | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Spent:
    """What a training run took in this process.

    Attributes:
        seconds: wall time.
        cpu_seconds: of this process.
        peak_bytes: of memory: allocated on the GPU, or on a CPU, by how much the process grew.
        flop: floating-point operations of all steps, forward and backward.
        joules: of the GPU; None where the machine does not tell.
        machine: kind of CPU or GPU.
        steps: that were made, in earlier processes too.
        resumed: whether an earlier process made some of them, so that seconds are those of a part.
        batch_size: rows of a micro-batch in the end.
        gradient_accumulation: micro-batches per step in the end.
        parameters: of the network.
        trainable: of them, those that learned.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    flop: float
    joules: float | None
    machine: str
    steps: int
    resumed: bool
    batch_size: int
    gradient_accumulation: int
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Accepts:
    """Types that a learner accepts for the sections of the configuration.

    Attributes:
        task: type of the task (`task`).
        candidates: types of the models that it fits (`model.candidates`).
        train: type of the training settings (`train`).
        personalise: type of the personalisation settings; None if the section must be null.
        calibrate: type of the calibration settings; None if the section must be null.
    """

    task: type
    candidates: tuple[type, ...]
    train: type
    personalise: type | None = None
    calibrate: type | None = None


class Learner(Protocol[T, E, C, S, M]):
    """Fits models of a task and opens them for prediction; built from `conf/learner/*.yaml`.

    Type variables: the task T, the examples E, a candidate C, training settings S, a fitted model M.
    """

    accepts: ClassVar[Accepts]
    """Types that it can be combined with; `build_experiment` checks them before any stage runs."""

    def examples(self, task: T, prepared: Prepared, train: S, progress: Progress) -> E:
        """Make the training examples, once for all candidates."""

    def describe(self, examples: E) -> JsonObject:
        """Describe the examples for the training record, as JSON values."""

    def fit_one(self, examples: E, candidate: C, train: S, scratch: Path, follow: Follow) -> tuple[M, TrainResult]:
        """Fit one candidate on train; valid measures it and may stop it early. `scratch` holds its checkpoints."""

    def save(self, model: M, candidate: C, directory: Path) -> JsonObject:
        """Write a fitted candidate into an existing directory; return values for the training record."""

    def open(self, task: T, model: Path, version: str, digest: str) -> AnyPredictor:
        """Open a model directory for prediction; version and hallmark digest go into every answer."""


AnyLearner: TypeAlias = Learner[Any, Any, Any, Any, Any]
"""A learner of any task."""


class Evaluator(Protocol[T, L]):
    """Computes the metrics on test; built from `conf/evaluate/*.yaml`."""

    evaluates: ClassVar[tuple[type, type]]
    """The types of the task and the learner that it belongs to."""

    @property
    def layout(self) -> ReportLayout:
        """What the report, the terminal and `dvc exp show` present."""

    @property
    def segmentations(self) -> Sequence[str]:
        """Names of the segmentations: the text before the colon in a segment's name."""

    def metrics(self, task: T, learner: L) -> Mapping[str, Metric]:
        """Return every reported metric by its name.

        Raises:
            ValueError: the evaluation needs what the task does not have, such as a horizon that it does not forecast.
        """

    def evaluate(
        self,
        task: T,
        learner: L,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score the model, the other candidates, baselines and the champion on test; write pictures into `out`."""


AnyEvaluator: TypeAlias = Evaluator[Any, Any]
"""An evaluator of any task."""
