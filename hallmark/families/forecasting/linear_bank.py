"""Look up a subject's `History` rows: LRU cache of the two newest from files (serving), or all (evaluation).

A slot holds the two newest midnights of one subject's `History`; slot 0 is empty, for newcomers.
Legend of shapes: S slots, P subjects, F numbers of one subject.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from hallmark.adapters.bank import check_slots
from hallmark.adapters.cache import SlotCache
from hallmark.arrays import Array, Floats, Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.panel import MINUTES_A_DAY
from hallmark.files import sha256

MIDNIGHTS = 2  # the last day with readings and the day after it
KNOWN, SINCE = "known", "since"
_NUMBERS = [f.name for f in fields(History)][3:]


@dataclass(frozen=True)
class SubjectHistory:
    """Rows of one subject in a history.

    Attributes:
        history: of several subjects.
        number: position of the subject among them.
        sha256: digest of its numbers as they lie in memory while they are held; empty where nobody asks for it.
    """

    history: History
    number: int
    sha256: str = ""

    def rows(self, day: Integers) -> Integers:
        """Look up the row of each day, (B,)."""
        return self.history.rows(np.full(len(day), self.number), day)

    def knows(self, day: Integers, longest_days: int) -> bool:
        """Tell whether all of some days may use it: none before it begins or over `longest_days` after it ends."""
        return bool(self.history.knows(self.number, day, longest_days).all())


class HistoryLookup(Protocol):
    """Source of the subjects' histories."""

    @property
    def history(self) -> History:
        """The history that the rows refer to."""

    def of(self, subject_id: str) -> AbstractContextManager[tuple[SubjectHistory | None, str]]:
        """Hold a subject's history while the block runs; yields None and the reason if there is none."""

    def readings(self, subject_id: str, day: int) -> tuple[tuple[str, str] | None, Array]:
        """Return what a day's row rests on.

        Returns:
            The first and the last day that the linear adapter was fitted on, None if there was no whole day yet, and
            the times of the readings that the statistics are computed from, (N,) `datetime64[m]`.
        """


@dataclass(frozen=True)
class FullHistory:
    """History of all subjects at every midnight, for training and evaluation.

    Attributes:
        history: of all subjects.
        numbers: subject_id → position among the subjects of `history`.
    """

    history: History
    numbers: Mapping[str, int]

    @contextmanager
    def of(self, subject_id: str) -> Iterator[tuple[SubjectHistory | None, str]]:
        """Look up one subject; see `HistoryLookup.of`."""
        number = self.numbers.get(subject_id)
        yield (None, "no subject has this id") if number is None else (SubjectHistory(self.history, number), "")

    def readings(self, subject_id: str, day: int) -> tuple[tuple[str, str] | None, Array]:
        """Nothing asks what an answer in evaluation rests on."""
        raise NotImplementedError("evaluation keeps no times of readings")


class HistoryBank:
    """Slots that hold the newest midnights of one subject each.

    Args:
        sizes: shape of one row of every array of a `History`, by name.
        slots: number of subjects that fit, slot 0 not counted.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, ...]], slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots} must be at least 1")
        count = slots + 1
        numbers = {name: np.zeros((MIDNIGHTS * count, *sizes[name]), dtype=np.float32) for name in _NUMBERS}
        first_row = MIDNIGHTS * np.arange(count, dtype=np.int64)
        days = np.full(count, MIDNIGHTS, dtype=np.int64)
        self.slots = slots
        self.history = History(first_row, np.zeros(count, dtype=np.int64), days, **numbers)

    def put(self, slot: int, block: Floats) -> None:
        """Write subjects into neighbouring slots, the first into `slot`, (P, F) as `flatten` makes them."""
        check_slots(slot, len(block), self.slots)
        self.history.first_day[slot : slot + len(block)] = block[:, 0].astype(np.int64)
        start, slot_rows = 1, slice(MIDNIGHTS * slot, MIDNIGHTS * (slot + len(block)))
        for name in _NUMBERS:
            rows = getattr(self.history, name)[slot_rows]
            size = rows[0].size * MIDNIGHTS
            rows[:] = block[:, start : start + size].reshape(rows.shape)
            start += size

    def take(self, slot: int, count: int = 1) -> Floats:
        """Read neighbouring slots as rows, (P, F), as `flatten` makes them."""
        rows = slice(MIDNIGHTS * slot, MIDNIGHTS * (slot + count))
        blocks = [self.history.first_day[slot : slot + count, None].astype(np.float32)]
        blocks += [getattr(self.history, name)[rows].reshape(count, -1) for name in _NUMBERS]
        taken: Floats = np.concatenate(blocks, axis=1)
        return taken


def flatten(newest: History) -> Floats:
    """Concatenate one subject's two newest midnights, (F,): the first day, then array after array."""
    arrays = [newest.first_day.astype(np.float32), *(getattr(newest, name).reshape(-1) for name in _NUMBERS)]
    row: Floats = np.concatenate(arrays).astype(np.float32)
    return row


class CachedHistory(SlotCache[HistoryBank]):
    """Cache of the subjects' histories, for serving.

    Args:
        bank: with all slots free.
        store: the subjects' files.
    """

    store: "HistoryFiles"

    def __init__(self, bank: HistoryBank, store: "HistoryFiles") -> None:
        super().__init__(bank, store)

    @property
    def history(self) -> History:
        """The history whose subjects are the slots."""
        return self.bank.history

    @contextmanager
    def of(self, subject_id: str) -> Iterator[tuple[SubjectHistory | None, str]]:
        """Look up one subject; see `HistoryLookup.of`."""
        with self.hold([subject_id]) as ([slot], [why]):
            yield (SubjectHistory(self.bank.history, slot, self.digests([slot])[0]) if slot else None), why

    def readings(self, subject_id: str, day: int) -> tuple[tuple[str, str] | None, Array]:
        """Read from the subject's file what a day's row rests on; see `HistoryLookup.readings`."""
        return self.store.past(subject_id).before(day)


@dataclass(frozen=True)
class Past:
    """Which readings a subject's two newest midnights rest on; legend: D days, T grid steps of a day.

    Attributes:
        since: the first day of the subject's readings, in days since 1970.
        first_day: of `known`.
        known: (D, T) whether there was a reading; D is one more than the days of the statistics.
    """

    since: int
    first_day: int
    known: Array

    def before(self, day: int) -> tuple[tuple[str, str] | None, Array]:
        """Return what the row of a day rests on; see `HistoryLookup.readings`."""
        days, steps = len(self.known) - 1, self.known.shape[1]
        offset = min(max(day - self.first_day - days, 0), MIDNIGHTS - 1)
        rows, slots = np.nonzero(self.known[offset : offset + days])
        minutes = (self.first_day + offset + rows) * MINUTES_A_DAY + slots * (MINUTES_A_DAY // steps)
        until = self.first_day + offset + days - 1
        fitted = (str(np.datetime64(self.since, "D")), str(np.datetime64(until, "D"))) if self.since <= until else None
        return fitted, minutes.astype("datetime64[m]")


@dataclass(frozen=True)
class HistoryFiles:
    """One safetensors file per subject.

    Attributes:
        files: subject_id → file.
        digests: subject_id → its sha256.
        sizes: shape of one row of every array of a `History`, by name.
    """

    files: Mapping[str, Path]
    digests: Mapping[str, str]
    sizes: Mapping[str, tuple[int, ...]]

    def write(self, subject_id: str, newest: History, known: Array, since: int) -> str:
        """Write one subject's file; returns its sha256.

        Args:
            subject_id: whose.
            newest: the two newest midnights.
            known: (D, T) as in `Past`, up to the first of the two midnights and the day after it.
            since: the first day of the subject's readings.
        """
        file = self.files[subject_id]
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in newest.tensors().items()}
        arrays |= {KNOWN: np.packbits(known, axis=1), SINCE: np.asarray([since, known.shape[1]], dtype=np.int64)}
        save_file(arrays, str(file))
        return sha256(file)

    def past(self, subject_id: str) -> Past:
        """Read which readings a subject's file rests on.

        Raises:
            KeyError: no subject has this id.
            BundleError: the file is missing or changed.
        """
        arrays = self._load(subject_id)
        since, steps = arrays[SINCE].tolist()
        known = np.unpackbits(arrays[KNOWN], axis=1, count=steps).astype(bool)
        return Past(since, int(arrays["first_day"][0]) - len(known) + 1, known)

    def read(self, subject_id: str) -> Floats:
        """Read one subject as a row; see `AdapterStore.read`."""
        arrays = self._load(subject_id)
        newest = History(**{f.name: arrays[f.name] for f in fields(History)})
        for name in _NUMBERS:
            array = getattr(newest, name)
            if array.shape != (MIDNIGHTS, *self.sizes[name]) or not np.isfinite(array).all():
                raise BundleError(f"history was made for another base: {name} has shape {array.shape}")
        return flatten(newest)

    def _load(self, subject_id: str) -> dict[str, Array]:
        if subject_id not in self.files:
            raise KeyError(subject_id)
        file = self.files[subject_id]
        try:
            if not file.is_file():
                raise BundleError("history is missing")
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.digests[subject_id]:
                raise BundleError("history was changed after it was made (sha256)")
            arrays: dict[str, Array] = load(data)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"history cannot be read ({type(error).__name__})") from error
        if missing := {*(f.name for f in fields(History)), KNOWN, SINCE} - set(arrays):
            raise BundleError(f"history cannot be read ({sorted(missing)[0]} is missing): make it anew")
        return arrays
