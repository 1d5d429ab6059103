"""Request and response of the sentiment task."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Disclaimer = Literal[
    "A machine's reading of a text's tone. It may be wrong, knows no irony and says nothing about who wrote the text."
]
DISCLAIMER: Disclaimer = get_args(Disclaimer)[0]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
LONGEST = 20_000  # maximum characters of a request; the token limit of the model is lower


class SentimentRequest(BaseModel):
    """A text to classify."""

    model_config = STRICT
    text: Annotated[str, Field(max_length=LONGEST, description="English")]


class LabelProbability(BaseModel):
    """One label with its calibrated probability."""

    model_config = STRICT
    label: str
    probability: Annotated[float, Field(ge=0, le=1)]


class SentimentResponse(BaseModel):
    """A label with its calibrated probability, or an abstention with its reason; never a guess below the threshold."""

    model_config = STRICT
    status: Literal["classified", "abstained"]
    reason: Annotated[str, Field(description="why there is no label; empty when there is one")]
    label: str | None
    probabilities: Annotated[list[LabelProbability], Field(description="of all labels, calibrated; empty if unread")]
    threshold: Annotated[float, Field(description="no label is given below this probability")]
    tokens: Annotated[int, Field(description="how many the model has read")]
    text_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the text as the model sees it")]
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    disclaimer: Disclaimer

    @model_validator(mode="after")
    def _whole(self) -> "SentimentResponse":
        """Check that a label agrees with its probabilities, and that an abstention has a reason and no label."""
        answered = self.status == "classified"
        if answered != (self.label is not None) or answered == bool(self.reason):
            raise PydanticCustomError("hallmark_answer", "status, label and reason must agree")
        if answered:
            best = max(self.probabilities, key=lambda p: p.probability, default=None)
            if best is None or best.label != self.label or best.probability < self.threshold - 1e-4:
                raise PydanticCustomError("hallmark_answer", "the label must be the likeliest, over the threshold")
        return self
