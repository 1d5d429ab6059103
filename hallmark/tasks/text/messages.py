"""Request and response of text generation, with model version, seed and finish reason."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from hallmark.wording import clinical_statements

Disclaimer = Literal["Written by a machine that knows words, not facts: nothing in it is to be taken for true."]
DISCLAIMER: Disclaimer = get_args(Disclaimer)[0]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
LONGEST = 20_000  # characters of a prompt; the model reads the last ones


class TextRequest(BaseModel):
    """A prompt with its sampling parameters."""

    model_config = STRICT
    prompt: Annotated[str, Field(max_length=LONGEST, description="English")]
    max_tokens: Annotated[int, Field(ge=1, le=400)] = 100
    temperature: Annotated[float, Field(ge=0, le=2, description="0 takes the likeliest token every time")] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1, description="share of probability that is drawn from")] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**31, description="the same seed gives the same text")] = 0


class TextResponse(BaseModel):
    """The continuation of a prompt, or an abstention with its reason."""

    model_config = STRICT
    status: Literal["generated", "abstained"]
    reason: Annotated[str, Field(description="why there is no text; empty when there is one")]
    text: Annotated[str | None, Field(description="the continuation, without the prompt")]
    finish: Annotated[Literal["end", "length"] | None, Field(description="it has ended, or max_tokens was reached")]
    tokens: Annotated[int, Field(ge=0, description="how many were made")]
    tokens_read: Annotated[int, Field(ge=0, description="of the prompt, its last ones")]
    harms: Annotated[list[str], Field(description="kinds of harm for which a text was withheld")]
    prompt_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    disclaimer: Disclaimer

    @model_validator(mode="after")
    def _whole(self) -> "TextResponse":
        """Check that a text has a finish reason, an abstention a reason and no text, and that harm is withheld."""
        generated = self.status == "generated"
        if (
            generated != (self.text is not None)
            or generated != (self.finish is not None)
            or generated == bool(self.reason)
        ):
            raise PydanticCustomError("hallmark_answer", "status, text, finish and reason must agree")
        if generated and (self.harms or clinical_statements(self.text or "")):
            raise PydanticCustomError("hallmark_answer", "a text with harm in it must be withheld")
        return self
