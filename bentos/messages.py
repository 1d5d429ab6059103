"""Bodies of the service, typed by the task of the bundle; they document what `routes/` writes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from bentos.problems import Problem
from hallmark.wording import clinical_statements

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PredictionId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class ModelName(BaseModel):
    """The model that answered."""

    task: str
    version: str
    hallmark_sha256: Sha256


class EvidenceOut(BaseModel):
    """Digests of what an answer was computed with, taken from memory while it was computed."""

    hallmark_sha256: Annotated[Sha256, Field(description="of the manifest of the bundle")]
    base_sha256: Annotated[Sha256, Field(description="of the base model's weights")]
    adapter_sha256: Annotated[str, Field(description="of the adapter that was multiplied; empty if none was")]
    history_sha256: Annotated[str, Field(description="of the summary of the subject's past; empty if none was read")]


class RowProblem(BaseModel):
    """A row that was not answered."""

    status: Literal["problem"]
    problem: Problem


class OutcomeIn(BaseModel):
    """What really happened after a prediction; the first outcome of a prediction and horizon counts.

    The task checks it: a forecast needs one of its horizons, a number in its unit, and a time within two steps of the
    horizon; a classification needs one of its labels. If one of a call is refused, none is recorded.
    """

    model_config = STRICT
    prediction_id: PredictionId
    horizon: Annotated[
        str,
        BeforeValidator(lambda given: str(given) if type(given) is int else given),
        Field(pattern=r"^[\w.:-]{0,32}$", description="of a forecast in minutes, such as 60; empty for other tasks"),
    ] = ""
    value: Annotated[StrictFloat | StrictInt | StrictStr, Field(description="in the task's unit, or a label")]
    observed_at: Annotated[
        AwareDatetime,
        Field(ge=EARLIEST, lt=LATEST, description="with its offset; of a forecast, the subject's local time"),
    ]


class OutcomesIn(BaseModel):
    """Outcomes of several predictions."""

    model_config = STRICT
    outcomes: Annotated[list[OutcomeIn], Field(min_length=1, max_length=1000)]


class OutcomesOut(BaseModel):
    """How many outcomes were kept, how many were there already, and which predictions are not known."""

    recorded: int
    already_known: Annotated[int, Field(description="of the same prediction and horizon; the first ones stay")]
    unknown: Annotated[list[str], Field(description="ids that are none of this caller's predictions")]


class FeedbackIn(BaseModel):
    """Whether an answer helped; the first feedback to a prediction counts."""

    model_config = STRICT
    prediction_id: PredictionId
    helpful: StrictBool


class FeedbackOut(BaseModel):
    """Whether the feedback was kept."""

    recorded: Annotated[bool, Field(description="false: the prediction has a feedback already, which stays")]


class OutcomeOut(BaseModel):
    """A recorded outcome."""

    horizon: Annotated[str, Field(description="`feedback`: the value says whether the answer was helpful")]
    value: float | str
    observed_at: datetime
    recorded_at: datetime


class TrainingJobIn(BaseModel):
    """Whose adapter shall be fitted again."""

    model_config = STRICT
    subject_id: Annotated[str | None, Field(max_length=200, description="a person's token leaves it out")] = None


class TrainingJobOut(BaseModel):
    """A request to fit an adapter again, or a decision about it."""

    job_id: PredictionId
    subject_id: str
    status: Literal["requested", "skipped", "rejected", "failed", "deployed"]
    code: Annotated[str, Field(description="of the reason, such as insufficient_data; empty for a request")]
    reason: str
    created_at: datetime
    finished_at: Annotated[datetime | None, Field(description="null while it waits for the next `make retrain`")]


class TrainingJobsOut(BaseModel):
    """Requests and decisions, the newest first."""

    jobs: list[TrainingJobOut]


Informational = Literal[
    "What these readings show, by statistics alone. Research software, not for clinical use; no diagnosis and no "
    "advice."
]


class InsightOut(BaseModel):
    """Something that a subject's own readings show."""

    model_config = STRICT
    kind: Annotated[Literal["unusual", "pattern"], Field(description="a stretch of one day, or hours of most days")]
    text: str
    first: Annotated[datetime, Field(description="local; of the stretch, or of the days that show the pattern")]
    last: datetime
    chance: Annotated[float, Field(gt=0, le=1, description="how often a finding like this is one of chance alone")]

    @field_validator("text")
    @classmethod
    def _no_advice(cls, text: str) -> str:
        if found := clinical_statements(text):
            raise PydanticCustomError("hallmark_wording", "the text would give {kinds}", {"kinds": ", ".join(found)})
        return text


class InsightsOut(BaseModel):
    """What a subject's recorded readings show; it cannot be built without saying what it is not."""

    model_config = STRICT
    subject_id: str
    rows: Annotated[int, Field(description="readings that were looked at")]
    insights: list[InsightOut]
    informational: Informational = get_args(Informational)[0]


class PastOut(BaseModel):
    """Readings of a subject's past that an answer rests on."""

    readings: Annotated[list[str], Field(description="times of those that the statistics are computed from")]
    fitted_from: Annotated[str | None, Field(description="first day that the linear adapter was fitted on; null: none")]
    fitted_to: Annotated[str | None, Field(description="the last such day")]


class InfluenceOut(BaseModel):
    """How much an answer changes without one observation."""

    id: Annotated[str, Field(description="of the observation; `past` stands for the subject's past as a whole")]
    change: Annotated[float | None, Field(description="largest change of a figure; null: no answer without it")]


class ProvenanceOut(BaseModel):
    """What an answer rests on."""

    prediction_id: PredictionId
    hallmark_sha256: Sha256
    training_data: Annotated[dict[str, str], Field(description="sha256 of the tables that the model was trained on")]
    request: Annotated[list[str], Field(description="observations of the request: times, or places in it")]
    past: PastOut
    unit: Annotated[str, Field(description="of the influences; empty if this task measures none")]
    most_influential: list[InfluenceOut]


class ModelOut(BaseModel):
    """The model that answers: its manifest without the list of files, and its card."""

    task: str
    version: str
    reason: Annotated[str, Field(description="why it has this version")]
    hallmark_sha256: Sha256
    provenance: dict[str, Any]
    digests: dict[str, str]
    metrics: dict[str, Any]
    verdicts: Annotated[list[dict[str, Any]], Field(description="of every gate: passed, failed or skipped")]
    card: Annotated[str, Field(description="Markdown")]


class Health(BaseModel):
    """State of the service."""

    status: Literal["ready", "not_ready"]
    task: str
    version: str
    records_pending: Annotated[int, Field(description="answers that are not in the database yet; none is lost")]
    warnings: list[str]


class Bodies:
    """Types that depend on the task.

    Args:
        request: of the task.
        response: of the task.
        max_rows: of one request.
    """

    def __init__(self, request: type[BaseModel], response: type[BaseModel], max_rows: int) -> None:
        rows = Annotated[list[request], Field(min_length=1, max_length=max_rows)]  # type: ignore[valid-type]
        self.predict_in: type[BaseModel] = create_model(
            "PredictRequest", __doc__="Requests; each row has its own subject and its own error.", rows=(rows, ...)
        )
        answered = create_model(
            "AnsweredRow",
            __doc__="A row that was answered.",
            status=(Literal["answered"], ...),
            prediction_id=(PredictionId, ...),
            reason=(str, Field(description="why a simpler model answered than could, or why there is no answer")),
            evidence=(EvidenceOut, ...),
            answer=(response, ...),
        )
        row = Annotated[answered | RowProblem, Field(discriminator="status")]  # type: ignore[valid-type]
        self.predict_out: type[BaseModel] = create_model(
            "PredictResponse",
            __doc__="One row per request, in order.",
            model=(ModelName, ...),
            rows=(list[row], ...),
        )
        self.prediction: type[BaseModel] = create_model(
            "RecordedPrediction",
            __doc__="What was answered, from which inputs, by which version.",
            prediction_id=(PredictionId, ...),
            asked_at=(datetime, ...),
            model=(ModelName, ...),
            evidence=(EvidenceOut, ...),
            request=(request | None, Field(description="null if it was not kept, or its retention has passed")),
            answer=(response, ...),
            outcomes=(list[OutcomeOut], ...),
        )
