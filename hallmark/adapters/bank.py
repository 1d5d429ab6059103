"""AdapterBank: many subjects' LoRA adapters on one frozen base, a different one for each row of a batch.

PEFT runs the adapters of a mixed batch one after the other; here a layer gathers its rows' factors and multiplies
them all at once. Slot 0 holds zeros and is exactly the base model. PEFT is the file format (files.py) and the
reference in the tests.
Legend of shapes: S slots, R rank, I inputs and O outputs of a layer, B rows of a batch, N rows that a layer sees (a
multiple of B where a model folds channels into the batch), T positions of a row.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.arrays import Floats
from hallmark.errors import BundleError

BASE = 0  # the slot that is the base model


@dataclass(frozen=True)
class AdapterSpec:
    """What all adapters of one base version share.

    Attributes:
        base: sha256 of the base's weights.
        rank: of every factor pair.
        alpha: their scale is alpha / rank.
        shapes: adapted layer → (outputs, inputs).
    """

    base: str
    rank: int
    alpha: float
    shapes: Mapping[str, tuple[int, int]]

    @property
    def scaling(self) -> float:
        """Number that the product of the factors is multiplied by."""
        return self.alpha / self.rank

    def plain(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {**asdict(self), "shapes": {name: list(shape) for name, shape in self.shapes.items()}}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "AdapterSpec":
        """Make a spec from the values that `plain` returned."""
        return cls(**{**plain, "shapes": {name: tuple(shape) for name, shape in plain["shapes"].items()}})

    @property
    def size(self) -> int:
        """Number of parameters of one adapter, F."""
        return sum(self.rank * (outputs + inputs) for outputs, inputs in self.shapes.values())


Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Layer → PEFT's lora_A (R, I) and lora_B (O, R)."""


def check_slots(first: int, count: int, slots: int) -> None:
    """Check that neighbouring slots may be written.

    Raises:
        IndexError: slot 0 or one that a bank does not have is among them.
    """
    if not 1 <= first <= first + count - 1 <= slots:
        raise IndexError(f"slots {first}…{first + count - 1} are not in 1…{slots}: slot {BASE} is the base")


def target_layers(model: nn.Module, targets: str) -> dict[str, nn.Linear]:
    """Find the linear layers whose whole name matches a regular expression, as PEFT does.

    Raises:
        BundleError: none matches.
    """
    pattern = re.compile(targets)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and pattern.fullmatch(name)}
    if not layers:
        raise BundleError(f"no linear layer of {type(model).__name__} matches lora_targets={targets!r}")
    return layers


def spec_of(model: nn.Module, targets: str, base: str, rank: int, alpha: float) -> AdapterSpec:
    """Describe the adapters that fit a model."""
    layers = target_layers(model, targets)
    return AdapterSpec(base, rank, alpha, {name: (m.out_features, m.in_features) for name, m in layers.items()})


@dataclass
class _Choice:
    """Slots of the rows of the current batch: one object that all layers of a bank share.

    Attributes:
        rows: (B,) slot of every row; None if the base answers for all, or if another attribute is set.
        groups: the batch is this many equal blocks of rows, block i using slot i + 1; 0 if not.
        shared_slot: every row uses this slot; 0 if not.
    """

    rows: Tensor | None = None
    groups: int = 0
    shared_slot: int = 0


class BankedLinear(nn.Module):
    """A frozen linear layer with the factors of many subjects.

    Args:
        linear: the base's layer.
        slots: number of adapters that fit, slot 0 not counted.
        spec: rank and scale of the factors.
        choice: shared by the layers of one bank.
        dtype: in which factors are stored; products are made in the input's.
    """

    def __init__(self, linear: nn.Linear, slots: int, spec: AdapterSpec, choice: _Choice, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.choice = choice
        self.scaling = spec.scaling
        device = linear.weight.device
        a = torch.zeros(slots + 1, spec.rank, linear.in_features, dtype=dtype, device=device)
        b = torch.zeros(slots + 1, spec.rank, linear.out_features, dtype=dtype, device=device)
        self.a, self.b = nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, …, I) → (N, …, O)."""
        y = nn.functional.linear(x, self.linear.weight, self.linear.bias)
        groups, rows, shared_slot = self.choice.groups, self.choice.rows, self.choice.shared_slot
        if shared_slot:
            return _one_subject(x, y, self.a[shared_slot], self.b[shared_slot], self.scaling)
        if groups:
            return _grouped(x, y, self.a[1 : groups + 1], self.b[1 : groups + 1], self.scaling)
        if rows is None:
            return y
        if len(x) != len(rows):
            rows = rows.repeat_interleave(len(x) // len(rows))
        if x.numel() == len(x) * x.shape[-1]:
            return _one_position(x, y, self.a, self.b, rows, self.scaling)
        # index_select, because indexing with a tensor is four times slower on a CPU.
        return _grouped(x, y, self.a.index_select(0, rows), self.b.index_select(0, rows), self.scaling)


# Products are added in place: the base's output is fresh, and another tensor of its size costs a third of the time.


def _one_subject(x: Tensor, y: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Add one subject's low-rank product to every row, (R, I) and (R, O)."""
    inner = nn.functional.linear(x.reshape(-1, x.shape[-1]), a.to(x.dtype))
    return y.reshape(-1, y.shape[-1]).addmm_(inner.to(y.dtype), b.to(y.dtype), alpha=scaling).view(y.shape)


def _grouped(x: Tensor, y: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Add each group's own low-rank product, (N, …, I) and (N, …, O) with (G, R, I) and (G, R, O) → (N, …, O).

    N is a multiple of G; the rows of one group are adjacent.
    """
    inner = torch.bmm(x.reshape(len(a), -1, x.shape[-1]), a.to(x.dtype).mT)
    shaped = y.reshape(len(b), -1, y.shape[-1])
    return shaped.baddbmm_(inner.to(y.dtype), b.to(y.dtype), alpha=scaling).view(y.shape)


def _one_position(x: Tensor, y: Tensor, a: Tensor, b: Tensor, rows: Tensor, scaling: float) -> Tensor:
    """Add the low-rank products of rows of one position, (N, …1, I); an embedding bag avoids a copy of (N, R, O)."""
    rank = a.shape[1]
    inner = torch.bmm(x.reshape(len(rows), 1, -1), a.index_select(0, rows).to(x.dtype).mT)
    index = rows[:, None] * rank + torch.arange(rank, device=rows.device)
    weights = (inner.view(-1, rank) * scaling).to(b.dtype)
    product = nn.functional.embedding_bag(index, b.view(-1, b.shape[-1]), mode="sum", per_sample_weights=weights)
    return y.add_(product.to(y.dtype).view(y.shape))


class AdapterBank(nn.Module):
    """A base model whose target layers hold many adapters.

    The model is changed in place and frozen. `forward` is not thread-safe: one caller at a time (`SlotCache` locks).

    Args:
        model: the base.
        spec: what the adapters share.
        slots: number of adapters that fit, slot 0 not counted.
        dtype: in which factors are stored.
    """

    def __init__(self, model: nn.Module, spec: AdapterSpec, slots: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if slots < 1:
            raise ValueError(f"slots={slots} must be at least 1")
        self.spec, self.slots = spec, slots
        self.choice = _Choice()
        self.model = model.requires_grad_(False)
        self.layers: dict[str, BankedLinear] = {}
        for name in spec.shapes:
            parent, _, child = name.rpartition(".")
            owner = model.get_submodule(parent)
            linear = getattr(owner, child)
            assert isinstance(linear, nn.Linear)
            self.layers[name] = BankedLinear(linear, slots, spec, self.choice, dtype)
            setattr(owner, child, self.layers[name])

    def forward(self, rows: Tensor | int | None, *args: Any, **inputs: Any) -> Any:
        """Run the model.

        Args:
            rows: (B,) slot of every row; a number of equal blocks of rows, block i using slot i + 1; or None, the base
                for all.
            args: of the model.
            inputs: of the model.
        """
        if isinstance(rows, int):
            self.choice.groups = rows
        elif rows is not None and len(rows) == 1:
            self.choice.shared_slot = int(rows)
        else:
            self.choice.rows = rows
        try:
            return self.model(*args, **inputs)
        finally:
            self.choice.rows, self.choice.groups, self.choice.shared_slot = None, 0, 0

    @property
    def device(self) -> torch.device:
        """Device of the factors."""
        return next(iter(self.layers.values())).a.device

    @torch.no_grad()
    def put(self, slot: int, block: Floats) -> None:
        """Write adapters into neighbouring slots, the first into `slot`, (P, F) as `flatten` makes them."""
        check_slots(slot, len(block), self.slots)
        flat, offset, slots = torch.from_numpy(block), 0, slice(slot, slot + len(block))
        for layer in self.layers.values():
            a, b = layer.a[slots], layer.b[slots]
            a.copy_(flat[:, offset : (offset := offset + a[0].numel())].view(a.shape))
            b.copy_(
                flat[:, offset : (offset := offset + b[0].numel())].view(len(b), -1, self.spec.rank).transpose(1, 2)
            )

    @torch.no_grad()
    def take(self, slot: int, count: int = 1) -> Floats:
        """Read neighbouring slots as rows, (P, F)."""
        blocks = []
        for layer in self.layers.values():
            blocks.append(layer.a[slot : slot + count].float().reshape(count, -1))
            blocks.append(layer.b[slot : slot + count].float().transpose(1, 2).reshape(count, -1))
        rows: Floats = torch.cat(blocks, dim=1).cpu().numpy()
        return rows
