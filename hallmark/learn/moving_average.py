"""A model and the exponential moving average of its trainable weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from hallmark.errors import BundleError
from hallmark.learn.sharding import distributed_like, reshard, whole


class EmaModel(nn.Module):
    """A model that trains with its weights and is evaluated with their moving average; both are checkpointed.

    Only trainable parameters have an average: frozen ones and buffers exist once. In evaluation mode, the averages are
    in the model's parameters and the weights in `average`; `train()` and `eval()` exchange them in place, so that it
    makes no difference whether the parameters are sharded.

    Args:
        model: the network; its parameters may be sharded already.
        decay: of the average, once enough updates were made.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = model
        names, trainable = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
        self.names: tuple[str, ...] = names
        self.average = nn.ParameterList([nn.Parameter(p.detach().clone(), requires_grad=False) for p in trainable])
        self.decay = decay
        self.exchanged = False
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.updates: Tensor

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Run the model, with its weights in training mode and with their average in evaluation mode."""
        result: dict[str, Tensor] = self.model(**batch)
        return result

    def train(self, mode: bool = True) -> "EmaModel":
        """Switch to training or to evaluation mode."""
        if self.exchanged == mode:
            self._exchange()
        super().train(mode)
        return self

    @torch.no_grad()
    def update(self) -> None:
        """Update the average of the trainable weights; its decay rises at first, so that early steps are forgotten."""
        assert not self.exchanged, "the average is updated in training mode"
        self.updates += 1
        updates = int(self.updates)
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_([*self.average], [weight.detach() for weight in self._trainable()], 1 - decay)

    def averaged(self) -> nn.Module:
        """Return the model with its average, frozen and in evaluation mode; this one cannot be trained on."""
        self.eval()
        return self.model.requires_grad_(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # it has two forms
        """Return the trainable parameters, their average, and all buffers; frozen parameters are not stored.

        Sharded parameters are gathered, by all processes together.
        """
        state: dict[str, Any] = {name: whole(value).detach() for name, value in self._stored().items()}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a `state_dict` of this class, in whichever mode it was made.

        Raises:
            BundleError: it belongs to another model.
        """
        mine = self._stored()
        if mismatched := sorted(set(state_dict) ^ set(mine)):
            raise BundleError(f"{mismatched[0]} is in the model or in the checkpoint alone: remove .work/checkpoints")
        if other := [name for name, value in mine.items() if state_dict[name].shape != value.shape]:
            raise BundleError(f"{other[0]} has another shape in the checkpoint: remove .work/checkpoints")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(distributed_like(state_dict[name], value))
        return _IncompatibleKeys([], [])  # no trainable parameter is missing

    def _stored(self) -> dict[str, Tensor]:
        first, second = ("average", "model") if self.exchanged else ("model", "average")
        weights = {f"{first}.{name}": value for name, value in zip(self.names, self._trainable(), strict=True)}
        averages = {f"{second}.{name}": value for name, value in zip(self.names, self.average, strict=True)}
        return {**weights, **averages, **dict(self.named_buffers())}

    def _trainable(self) -> list[Tensor]:
        reshard(self.model)  # what a validation pass gathered would be changed in this process alone
        parameters = dict(self.model.named_parameters())
        return [parameters[name] for name in self.names]

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in zip(self._trainable(), self.average, strict=True):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
        self.exchanged = not self.exchanged
