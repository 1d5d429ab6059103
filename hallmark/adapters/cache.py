"""Who sits in a bank: subjects' adapters are fetched when asked for, the least recently used make room.

A subject without a usable adapter gets slot 0, the base model, with the reason; never somebody else's adapter.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import torch

from hallmark.adapters.bank import BASE, AdapterBank
from hallmark.adapters.files import AdapterStore
from hallmark.arrays import Floats
from hallmark.errors import BundleError


class Bank(Protocol):
    """Numbered slots that hold one subject each; slot 0 is nobody's."""

    @property
    def slots(self) -> int:
        """How many find room beside slot 0."""

    def put(self, slot: int, block: Floats) -> None:
        """Write adapters into neighbouring slots, the first into `slot`, (P, F)."""


B = TypeVar("B", bound=Bank)


class Residents(Generic[B]):
    """A bank and the subjects in its slots.

    Args:
        bank: with all slots free.
        store: where adapters come from.
    """

    def __init__(self, bank: B, store: AdapterStore) -> None:
        self.bank, self.store = bank, store
        self._slots: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free = list(range(bank.slots, 0, -1))
        self._lock = Lock()

    @property
    def subjects(self) -> list[str]:
        """Who is resident, the least recently used first."""
        with self._lock:
            return list(self._slots)

    @contextmanager
    def seated(self, subjects: Sequence[str | None]) -> Iterator[tuple[list[int], list[str]]]:
        """Seat some subjects for as long as the block runs, one block at a time; None is the base.

        Yields:
            The slot of each, and why it is slot 0, empty where it is not.
        """
        with self._lock:
            yield self._seat(subjects)

    def warm(self, subjects: Sequence[str]) -> dict[str, str]:
        """Fetch many subjects before they are asked for; returns who could not be seated, and why."""
        failed = {}
        with self._lock:
            for subject_id in subjects:
                if subject_id not in self._slots and (why := self._fetch(subject_id, {})):
                    failed[subject_id] = why
        return failed

    def forget(self, subject_id: str) -> None:
        """Drop a subject, whose adapter has changed or must go; the next request fetches it anew."""
        with self._lock:
            slot = self._slots.pop(subject_id, None)
            if slot is not None:
                self._free.append(slot)

    def _seat(self, subjects: Sequence[str | None]) -> tuple[list[int], list[str]]:
        why: dict[str | None, str] = {None: "no subject was named"}
        wanted = dict.fromkeys(s for s in subjects if s is not None)
        for subject_id in wanted:
            if subject_id in self._slots:
                self._slots.move_to_end(subject_id)
        for subject_id in wanted:
            if subject_id not in self._slots:
                why[subject_id] = self._fetch(subject_id, wanted)
        slots = [self._slots.get(s, BASE) if s is not None else BASE for s in subjects]
        reasons = ["" if slot else why[s] for s, slot in zip(subjects, slots, strict=True)]
        return slots, reasons

    def _fetch(self, subject_id: str, keep: dict[str, None]) -> str:
        """Fetch one subject; returns why not."""
        if not self._free and next(iter(self._slots)) in keep:
            return f"the bank's {self.bank.slots} slots are all taken by this batch"
        try:
            row = self.store.read(subject_id)
        except KeyError:
            return "nobody is known by this id"
        except BundleError as error:
            return str(error)
        if not self._free:
            self._free.append(self._slots.popitem(last=False)[1])
        self.bank.put(self._free[-1], row[None])
        slot = self._free.pop()
        self._slots[subject_id] = slot
        return ""


class ResidentAdapters(Residents[AdapterBank]):
    """People's LoRA adapters, and their model's answers."""

    def forward(self, subjects: Sequence[str | None], *args: Any, **inputs: Any) -> tuple[Any, list[str]]:
        """Run one batch, row i for subjects[i], or all rows for a single subject; None is the base.

        Returns:
            What the model returns, and for every subject why the base spoke, empty where the adapter did.
        """
        with self.seated(subjects) as (slots, reasons):
            rows = torch.tensor(slots, dtype=torch.int64, device=self.bank.device) if any(slots) else None
            return self.bank(rows, *args, **inputs), reasons
