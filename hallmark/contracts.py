"""The contracts between the floors: what a source, a task and a predictor are, whatever they are about.

Pipelines and steps know these and nothing of a task's subject matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import pandas as pd

if TYPE_CHECKING:
    from pydantic import BaseModel

Better = Literal["lower", "higher", "nearer"]
Status = Literal["passed", "failed", "skipped"]
Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note) by long work."""


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

    def gain(self, ours: float, rival: float) -> float:
        """Return by how much ours is better than a rival's, in the metric's unit; negative if worse."""
        if self.better == "nearer":
            goal = 0.0 if self.goal is None else self.goal
            return abs(rival - goal) - abs(ours - goal)
        return rival - ours if self.better == "lower" else ours - rival


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
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    pictures: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    timings_ms: Sequence[float] = ()
    left_out: str = ""


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
    """What is predicted; built from `conf/task/*.yaml`. A new task implements this and nothing else."""

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
        """Assign every subject to a group and cut its time; returns the splits table."""

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Count what was checked; raise LeakageError on any leak."""

    def fit(
        self,
        prepared: Prepared,
        candidates: Sequence[Any],
        nodes: Sequence[Mapping[str, Any]],
        train: Any,
        out: Path,
        scratch: Path,
        progress: Progress,
        look: Callable[[int, float], None] | None = None,
    ) -> dict[str, Any]:
        """Fit the candidates at equal cost; the better one on valid becomes `out/base`, the others `out/rivals`.

        `look` is called with (step, loss) after every look at valid, and may raise to stop.
        """

    def personalise(
        self, prepared: Prepared, model: Path, config: Any, scratch: Path, progress: Progress
    ) -> dict[str, Any]:
        """Fit what each subject's gate keeps into `model/people`, one directory a subject; `scratch` as in `fit`."""

    def calibrate(self, prepared: Prepared, model: Path, config: Any, progress: Progress) -> dict[str, Any]:
        """Learn honest intervals into `model/calibration`."""

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return train and test tables for the data report: numbers and groups, no ids and no text."""

    def predictor(self, model: Path, version: str, digest: str) -> Predictor:
        """Open a model directory for prediction; version and hallmark digest go into every answer."""

    def request_type(self) -> type["BaseModel"]:
        """The pydantic type of a request."""

    def response_type(self) -> type["BaseModel"]:
        """The pydantic type of an answer; it cannot be made without what safety demands."""


@runtime_checkable
class Refreshing(Protocol):
    """A task whose adapters take up new rows without training: they are updated in closed form."""

    def own_rows(self, path: Path, settings: Mapping[str, str]) -> Raw:
        """Read a table of one's own rows; `settings` say how, dotted as in `conf/data`.

        Raises:
            SourceError: the table cannot be read.
            ConfigError: a setting is unknown.
        """

    def refresh(self, raw: Raw, model: Path, diary: Path, out: Path) -> Mapping[str, Any]:
        """Take up new rows: rewrite the adapters in `model/people` and write the diary to go on from into `out`.

        Returns:
            What became of the rows, JSON values.

        Raises:
            DataError: the rows break the task's schema or its limits; nothing was written.
        """


@runtime_checkable
class Exporting(Protocol):
    """A task whose model can be packaged in another form than that of training."""

    def export(self, model: Path, form: Any) -> None:
        """Write the network in that form beside its weights in `model/base`: `predictor` then uses it."""

    def compared(self, prepared: Prepared, model: Path) -> Any:
        """Return the numbers that answers rest on for rows of test, (B, K): what another form must not change."""


class Evaluator(Protocol):
    """What evaluation of one task looks at; built from `conf/evaluate/*.yaml`."""

    @property
    def shown(self) -> Shown:
        """What report, terminal and `dvc exp show` show."""

    @property
    def segmentations(self) -> Sequence[str]:
        """How scores are cut into segments: what comes before the colon in a segment's name."""

    def metrics(self, task: Any) -> Mapping[str, Metric]:
        """Every metric that is reported, by name.

        Raises:
            ValueError: evaluation asks for what the task does not give, such as a horizon it does not forecast.
        """

    def evaluate(
        self, task: Any, prepared: Prepared, model: Path, champion: Path | None, out: Path, progress: Progress
    ) -> Evaluation:
        """Score the model, its rivals, baselines and the champion on test; write pictures into `out`."""
