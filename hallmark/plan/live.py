"""Count the bytes of all tensors that are alive while code runs, and what they were at their peak.

The code may run on real tensors or on fake ones, which have shapes and no contents. The count follows storages, not
tensors: a view costs nothing, and memory is free when the last tensor that needs it is gone.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

Purpose = Literal["weights", "gradients", "optimizer", "activations"]
PURPOSES: tuple[Purpose, ...] = ("weights", "gradients", "optimizer", "activations")
BLOCK = 512  # bytes: what CUDA's caching allocator rounds every request to


class _Entry:
    """Bytes of one living storage, and what it is for."""

    __slots__ = ("bytes", "purpose")

    def __init__(self, size: int, purpose: Purpose) -> None:
        self.bytes, self.purpose = size, purpose


class LiveBytes(TorchDispatchMode):
    """Context in which every new storage is counted until it is freed.

    A tensor that no operator returned, such as a parameter, is counted from `assign` on. What has no other purpose
    counts as an activation.

    Args:
        block: every storage is rounded up to a multiple of so many bytes.
    """

    def __init__(self, block: int = BLOCK) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block = block
        self.live: dict[Purpose, int] = dict.fromkeys(PURPOSES, 0)
        self.peak: Mapping[Purpose, int] = dict(self.live)
        self._total = self._highest = 0
        self._entries: Any = WeakIdKeyDictionary()
        self._resize: Callable[..., Any] | None = None

    @property
    def peak_bytes(self) -> int:
        """Bytes that were alive at the peak."""
        return self._highest

    def begin_again(self) -> None:
        """Forget the peak so far; what is alive stays counted."""
        self._highest, self.peak = self._total, dict(self.live)

    def assign(self, tensors: Iterable[Tensor], purpose: Purpose) -> None:
        """Say what tensors are for; those that were not counted yet are from now on."""
        for tensor in tensors:
            entry = self._entry(tensor)
            self.live[entry.purpose] -= entry.bytes
            self.live[purpose] += entry.bytes
            entry.purpose = purpose
        if self._total == self._highest:
            self.peak = dict(self.live)

    def release(self, tensors: Iterable[Tensor]) -> None:
        """Stop counting tensors that the code would have freed, though somebody else keeps them."""
        for tensor in tensors:
            entry = self._entry(tensor)
            self._grow(entry.purpose, -entry.bytes)
            entry.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it returned."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._entry(value)
        return result

    def __enter__(self) -> "LiveBytes":
        """Begin to count; a storage that is resized, as sharded parameters are, counts with its new size."""
        resize = self._resize = torch.UntypedStorage.resize_
        counter = self

        def counted(storage: Any, size: int) -> Any:
            result = resize(storage, size)
            if (entry := counter._entries.get(storage)) is not None:
                fresh = counter._rounded(size)
                counter._grow(entry.purpose, fresh - entry.bytes)
                entry.bytes = fresh
            return result

        torch.UntypedStorage.resize_ = counted  # type: ignore[method-assign,assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop counting."""
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign,assignment]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _entry(self, tensor: Tensor) -> _Entry:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()  # a DTensor claims its global size
        entry: _Entry | None = self._entries.get(storage)
        if entry is None:
            entry = _Entry(self._rounded(storage.nbytes()), "activations")
            self._entries[storage] = entry
            weakref.finalize(storage, self._free, entry)
            self._grow(entry.purpose, entry.bytes)
        return entry

    def _rounded(self, size: int) -> int:
        return -(-size // self.block) * self.block

    def _grow(self, purpose: Purpose, size: int) -> None:
        self.live[purpose] += size
        self._total += size
        if self._total > self._highest:
            self._highest, self.peak = self._total, dict(self.live)

    def _free(self, entry: _Entry) -> None:
        self._grow(entry.purpose, -entry.bytes)
