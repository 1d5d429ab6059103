"""What a task, a candidate, a learner or a predictor may do in addition to its contract: optional protocols.

Stages, the service and the command line ask with `isinstance`; one that lacks an ability is used without it.
"""

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from hallmark.arrays import Array
from hallmark.contracts import AnyPredictor, JsonObject, Prepared, Progress, Raw, TrainResult

T = TypeVar("T", contravariant=True)
C = TypeVar("C", contravariant=True)
K = TypeVar("K", contravariant=True)
M = TypeVar("M")
X = TypeVar("X", contravariant=True)
Request = TypeVar("Request", contravariant=True)


@runtime_checkable
class Streaming(Protocol[Request]):
    """A predictor that generates a text and can yield it piece by piece."""

    def stream(self, request: Request) -> Generator[str, None, Any]:
        """Yield the text that `predict` returns, piece by piece, nothing if it abstains; return that response."""


@runtime_checkable
class OwnRows(Protocol):
    """A task whose users can supply their own table of rows, for a learner that is `Refreshing`."""

    @property
    def own_source(self) -> JsonObject:
        """Configuration node of the source that reads such a table, without its `path`."""


@runtime_checkable
class HasRequirements(Protocol):
    """A candidate that needs a pretrained model which is installed as a package."""

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that its service needs in addition to those of the library."""


@runtime_checkable
class ChecksTask(Protocol[T]):
    """A learner whose settings must fit those of the task."""

    def check(self, task: T) -> None:
        """Check the settings of the learner against those of the task.

        Raises:
            ValueError: names the setting of the learner, such as `history.ridge`, and the task's value.
        """


@runtime_checkable
class Combining(Protocol[X, C, M]):
    """A learner that can also combine fitted models into one, for candidates that have `members`."""

    def combine(self, examples: X, candidate: C, members: Sequence[M]) -> tuple[M, TrainResult]:
        """Combine the fitted members, in the candidate's order, without training."""


@runtime_checkable
class Calibrating(Protocol[T, K]):
    """A learner whose answers carry calibrated probabilities or intervals."""

    def calibrate(self, task: T, prepared: Prepared, model: Path, config: K, progress: Progress) -> JsonObject:
        """Fit the calibration on valid and write it to `model/calibration`; return a summary, JSON values."""


@runtime_checkable
class Personalising(Protocol[T, K]):
    """A learner that fits adapters: weights of one subject each."""

    def personalise(
        self, task: T, prepared: Prepared, model: Path, config: K, scratch: Path, progress: Progress
    ) -> JsonObject:
        """Fit the methods that the subjects' gates select; write one directory per subject to `model/subjects`.

        `scratch` is used as in `fit_one`; returns a summary, JSON values.
        """


@runtime_checkable
class Refreshing(Protocol[T]):
    """A learner whose adapters are updated with new rows in closed form, without training."""

    def refresh(self, task: T, raw: Raw, model: Path, state: Path, out: Path) -> JsonObject:
        """Update the adapters in `model/subjects` with new rows, and write the state of the next refresh into `out`.

        Returns:
            Counts of rows by what happened to them, JSON values.

        Raises:
            DataError: the rows violate the task's schema or its limits; nothing was written.
        """

    def known_until(self, state: Path) -> Mapping[str, datetime]:
        """Return the time of the newest row of every subject in the state of the next refresh.

        Raises:
            BundleError: the state is missing or was changed.
        """


@runtime_checkable
class Forgetting(Protocol):
    """A learner whose models hold files of single subjects, which can be taken out without training."""

    def forget(self, model: Path, state: Path | None, subject_id: str) -> bool:
        """Rewrite a model directory, and the state of its next refresh, without a subject.

        What was fitted on many subjects, the base model, stays as it is. The others' weights keep their bits.

        Returns:
            Whether the subject was in one of them.

        Raises:
            BundleError: a file cannot be read.
        """


@runtime_checkable
class Exporting(Protocol[T, K]):
    """A learner whose model can be exported to another form, such as ONNX."""

    def export(self, model: Path, form: K) -> None:
        """Write the network in `form` beside its weights in `model/base`; `open` then uses it."""

    def raw_outputs(self, task: T, prepared: Prepared, model: Path) -> Array:
        """Return the raw outputs for rows of test, (B, K), which another form must not change."""


@runtime_checkable
class Placeable(Protocol):
    """A predictor whose networks may be on another device than the CPU."""

    @property
    def networks(self) -> Sequence[Any]:
        """Modules that do the heavy work of an answer; they are placed before the first one."""


@runtime_checkable
class Degrading(Protocol[T]):
    """A learner whose model answers without some of its files, with fewer abilities."""

    def spares(self, file: str) -> bool:
        """Tell whether the model answers without a file, named by its path in the model directory."""

    def open_damaged(self, task: T, model: Path, version: str, digest: str, damaged: Sequence[str]) -> AnyPredictor:
        """Open a model directory of which files that `spares` names are missing or changed; see `Learner.open`."""
