"""Request and response of the CV task: every part of the score comes with its evidence."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Disclaimer = Literal[
    "A comparison of two texts, not of people. It must not decide alone whom to invite, hire or reject: a line that "
    "the CV lacks is no proof that its owner lacks the skill."
]
DISCLAIMER: Disclaimer = get_args(Disclaimer)[0]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
LONGEST = 60_000  # maximum characters of a document: about twenty pages
TOLERANCE = 0.01  # of sums of rounded numbers

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CvRequest(BaseModel):
    """A CV and the job it is for; without a CV, the skills that the job asks for."""

    model_config = STRICT
    job: Annotated[str, Field(max_length=LONGEST, description="the job description, English, lines kept")]
    cv: Annotated[str | None, Field(max_length=LONGEST, description="plain text, English, lines kept")] = None


class Evidence(BaseModel):
    """A line that shows a skill."""

    model_config = STRICT
    start: Annotated[int, Field(ge=0, description="in the CV in NFC, with Unix line ends, without format characters")]
    end: Annotated[int, Field(ge=0)]
    text: Annotated[str, Field(description="as the model has read it: personal data are placeholders")]
    probability: Share


class SkillPart(BaseModel):
    """What one skill adds to the score."""

    model_config = STRICT
    skill: str
    asked_by: Annotated[str, Field(description="the job's line that asks for it most clearly")]
    probability: Annotated[Share, Field(description="that the job asks for it")]
    weight: Annotated[float, Field(ge=0, le=100.001, description="points it can give")]
    coverage: Annotated[Share, Field(description="probability that the CV shows it")]
    points: Annotated[float, Field(ge=0, le=100.001)]
    evidence: list[Evidence]


class Suggestion(BaseModel):
    """What would change the score, or make the CV easier to read for this job."""

    model_config = STRICT
    kind: Literal["gap", "name_it"]
    skill: str
    points: Annotated[float, Field(ge=0, description="still to be had")]
    text: str


class Rewritten(BaseModel):
    """The CV rewritten for the job, or the reasons why it is withheld."""

    model_config = STRICT
    text: Annotated[str | None, Field(description="moved lines of the CV, and names of skills that it shows")]
    diff: str
    refused: Annotated[list[str], Field(description="kinds of what the rewriter had made up; its text is withheld")]

    @model_validator(mode="after")
    def _whole(self) -> "Rewritten":
        if (self.text is None) == (not self.refused):
            raise PydanticCustomError("hallmark_answer", "a text with inventions must be withheld")
        return self


class Decision(BaseModel):
    """Record of a decision and its inputs, to be stored; it holds no personal data."""

    model_config = STRICT
    cv_sha256: Annotated[str, Field(description="of the redacted CV, empty without one")]
    job_sha256: Sha256
    redacted: Annotated[dict[str, int], Field(description="personal data taken out of the CV, how many by kind")]
    score: float | None
    parts: int
    invented: Annotated[list[str], Field(description="kinds of what the guard has refused")]
    harms: Annotated[list[str], Field(description="kinds of harm found in generated text, which was withheld")]


class CvResponse(BaseModel):
    """A score with its parts, or the skills of a job, or an abstention with its reason."""

    model_config = STRICT
    status: Literal["matched", "retrieved", "abstained"]
    reason: Annotated[str, Field(description="why there is no answer; empty when there is one")]
    score: Annotated[float | None, Field(ge=0, le=100.001, description="the sum of the parts' points")]
    parts: list[SkillPart]
    gap: Annotated[list[str], Field(description="skills that no line shows, the most valuable first")]
    suggestions: list[Suggestion]
    rewritten: Rewritten | None
    decision: Decision | None
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Sha256
    disclaimer: Disclaimer

    @model_validator(mode="after")
    def _whole(self) -> "CvResponse":
        """Check that points add up to the score, weights to 100, and that an abstention has only a reason."""
        if (self.status == "abstained") != bool(self.reason) or (self.status == "matched") != (self.score is not None):
            raise PydanticCustomError("hallmark_answer", "status, score and reason must agree")
        if (self.status == "abstained") == bool(self.parts):
            raise PydanticCustomError("hallmark_answer", "an answer has parts, an abstention has none")
        if self.score is not None and abs(self.score - sum(part.points for part in self.parts)) > TOLERANCE:
            raise PydanticCustomError("hallmark_answer", "the points must add up to the score")
        if self.parts and abs(sum(part.weight for part in self.parts) - 100) > TOLERANCE:
            raise PydanticCustomError("hallmark_answer", "the weights must add up to 100")
        return self
