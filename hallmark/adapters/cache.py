"""LRU cache of per-subject adapters in the slots of an `AdapterBank`.

A subject without a usable adapter gets slot 0, the base model, with the reason; never the adapter of another subject.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import torch

from hallmark.adapters.bank import BASE, AdapterBank
from hallmark.adapters.files import AdapterStore, row_digest
from hallmark.arrays import Floats
from hallmark.errors import BundleError


class Bank(Protocol):
    """Numbered slots that hold one subject each; slot 0 is the base model."""

    @property
    def slots(self) -> int:
        """Number of subjects that fit, slot 0 not counted."""

    def put(self, slot: int, block: Floats) -> None:
        """Write adapters into neighbouring slots, the first into `slot`, (P, F)."""

    def take(self, slot: int, count: int = 1) -> Floats:
        """Read neighbouring slots as rows, (P, F): the numbers that a forward pass multiplies."""


B = TypeVar("B", bound=Bank)


class SlotCache(Generic[B]):
    """LRU cache: which subject is in which slot of a bank.

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
        """Subjects in the cache, the least recently used first."""
        with self._lock:
            return list(self._slots)

    @contextmanager
    def hold(self, subjects: Sequence[str | None]) -> Iterator[tuple[list[int], list[str]]]:
        """Hold some subjects in slots for as long as the block runs, one block at a time; None is the base.

        Yields:
            The slot of each subject, and why it is slot 0, empty where it is not.
        """
        with self._lock:
            yield self._place(subjects)

    def digests(self, slots: Sequence[int]) -> list[str]:
        """Digest what is now in some slots, empty for slot 0; call it while the slots are held.

        The digest of a subject's own adapter is `row_digest` of what the store reads; another digest means that the
        slot holds something else.
        """
        found = {slot: row_digest(self.bank.take(slot)[0]) for slot in set(slots) - {BASE}}
        return [found.get(slot, "") for slot in slots]

    def warm(self, subjects: Sequence[str]) -> dict[str, str]:
        """Load many subjects before they are asked for; returns those that could not be loaded, with the reason."""
        failed = {}
        with self._lock:
            for subject_id in subjects:
                if subject_id not in self._slots and (why := self._fetch(subject_id, {})):
                    failed[subject_id] = why
        return failed

    def forget(self, subject_id: str) -> None:
        """Remove a subject whose adapter has changed or must go; the next request loads it anew."""
        with self._lock:
            slot = self._slots.pop(subject_id, None)
            if slot is not None:
                self._free.append(slot)

    def _place(self, subjects: Sequence[str | None]) -> tuple[list[int], list[str]]:
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
        """Load one subject into a slot; returns the reason if it cannot, else empty."""
        if not self._free and next(iter(self._slots)) in keep:
            return f"the bank's {self.bank.slots} slots are all taken by this batch"
        try:
            row = self.store.read(subject_id)
        except KeyError:
            return "no subject has this id"
        except BundleError as error:
            return str(error)
        if not self._free:
            self._free.append(self._slots.popitem(last=False)[1])
        self.bank.put(self._free[-1], row[None])
        slot = self._free.pop()
        self._slots[subject_id] = slot
        return ""


class AdapterCache(SlotCache[AdapterBank]):
    """Cache of LoRA adapters, and the forward pass through them."""

    def forward(self, subjects: Sequence[str | None], *args: Any, **inputs: Any) -> tuple[Any, list[str]]:
        """Run one batch, row i for subjects[i], or all rows for a single subject; None is the base.

        Returns:
            What the model returns, and for every subject why the base answered, empty where the adapter did.
        """
        with self.hold(subjects) as (slots, reasons):
            return self._run(slots, *args, **inputs), reasons

    def forward_witnessed(
        self, subjects: Sequence[str | None], *args: Any, **inputs: Any
    ) -> tuple[Any, list[str], list[str]]:
        """Run one batch as `forward` does, and digest the slots that it multiplied.

        Returns:
            What `forward` returns, and for every subject the digest of the adapter in its slot, empty for the base.
        """
        with self.hold(subjects) as (slots, reasons):
            return self._run(slots, *args, **inputs), reasons, self.digests(slots)

    def _run(self, slots: list[int], *args: Any, **inputs: Any) -> Any:
        rows = torch.tensor(slots, dtype=torch.int64, device=self.bank.device) if any(slots) else None
        return self.bank(rows, *args, **inputs)
