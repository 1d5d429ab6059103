"""Request and response of the trades task: recent trades, and the side that probably started the last one."""

from itertools import pairwise
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Disclaimer = Literal[
    "A statistical guess at who started a past trade. It forecasts no price and is no advice to buy or to sell."
]
DISCLAIMER: Disclaimer = get_args(Disclaimer)[0]

SIDES = ("sell", "buy")
STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
MOST_TRADES = 1000
EARLIEST_MS = 100_000_000_000  # 1973; timestamps in seconds lie far below
LATEST_MS = 7_258_118_400_000  # the year 2200; timestamps in microseconds lie far above


class Trade(BaseModel):
    """One trade without its side, which the model predicts."""

    model_config = STRICT
    timestamp_ms: Annotated[
        int, Field(ge=EARLIEST_MS, lt=LATEST_MS, strict=True, description="milliseconds since 1970, UTC")
    ]
    price: Annotated[float, Field(gt=1e-15, lt=1e15, strict=True)]
    amount: Annotated[float, Field(gt=0, lt=1e15, strict=True)]


class TradesRequest(BaseModel):
    """Trades of one instrument in the order in which they happened; the last one is classified."""

    model_config = STRICT
    trades: Annotated[list[Trade], Field(min_length=1, max_length=MOST_TRADES)]

    @field_validator("trades")
    @classmethod
    def _in_order(cls, trades: list[Trade]) -> list[Trade]:
        if any(later.timestamp_ms < earlier.timestamp_ms for earlier, later in pairwise(trades)):
            raise PydanticCustomError("hallmark_unordered", "trades must not go back in time")
        return trades


class SideProbability(BaseModel):
    """One side with its calibrated probability."""

    model_config = STRICT
    side: Literal["sell", "buy"]
    probability: Annotated[float, Field(ge=0, le=1)]


class TradesResponse(BaseModel):
    """A side with its calibrated probability, or an abstention with its reason; never a guess below the threshold."""

    model_config = STRICT
    status: Literal["classified", "abstained"]
    reason: Annotated[str, Field(description="why there is no side; empty when there is one")]
    side: Annotated[Literal["sell", "buy"] | None, Field(description="who started the trade")]
    probabilities: Annotated[list[SideProbability], Field(description="calibrated; empty if nothing was computed")]
    threshold: Annotated[float, Field(description="no side is given below this probability")]
    trades_used: int
    trades_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of those, as `ms,price,amount` lines")]
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    disclaimer: Disclaimer

    @model_validator(mode="after")
    def _whole(self) -> "TradesResponse":
        """Check that a side agrees with its probabilities, and that an abstention has a reason and no side."""
        answered = self.status == "classified"
        if answered != (self.side is not None) or answered == bool(self.reason):
            raise PydanticCustomError("hallmark_answer", "status, side and reason must agree")
        if answered:
            best = max(self.probabilities, key=lambda p: p.probability, default=None)
            if best is None or best.side != self.side or best.probability < self.threshold - 1e-4:
                raise PydanticCustomError("hallmark_answer", "the side must be the likelier, over the threshold")
        return self
