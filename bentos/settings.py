"""Settings of the service from environment variables, such as `HALLMARK_QUEUE__MAX_ROWS=2048`.

A variable that is misspelt or has an invalid value is an error that names it.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from hallmark.errors import ConfigError
from hallmark.records import DEFAULT_URL
from hallmark.watch.guard import GuardRule

PREFIX = "HALLMARK_"
PACKAGED = Path(__file__).resolve().parents[1] / "hallmark-bundle"
OF_OTHERS = ("HALLMARK_KERNELS", "HALLMARK_CACHE", "HALLMARK_DEBUG", "HALLMARK_KEY", "HALLMARK_SIGNING_PASSWORD")
"""Variables with this prefix that other parts of the project read."""

STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
Seconds = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
WebAddress = Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
Count = Annotated[int, Field(ge=1, lt=2**40)]


class QueueSettings(BaseModel):
    """The queue in front of the model.

    Attributes:
        max_rows: rows that may wait; more are refused with status 503.
        max_batch: rows of one call of the model.
    """

    model_config = STRICT
    max_rows: Count = 1024
    max_batch: Count = 64


class JwtSettings(BaseModel):
    """Tokens that are accepted; exactly one of `secret`, `public_key_file` and `jwks_file` verifies their signature.

    Attributes:
        algorithms: accepted algorithms.
        issuer: required value of the claim `iss`.
        audience: required value of the claim `aud`.
        secret: of HS256, at least 32 bytes.
        public_key_file: PEM file, for RS256 and ES256.
        jwks_file: JSON Web Key Set, for RS256 and ES256 with key ids.
        leeway_s: by how much clocks may differ.
    """

    model_config = STRICT
    algorithms: list[Literal["HS256", "RS256", "ES256"]] = Field(min_length=1)
    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    secret: SecretStr | None = None
    public_key_file: Path | None = None
    jwks_file: Path | None = None
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 10.0

    @model_validator(mode="after")
    def _one_key(self) -> "JwtSettings":
        given = [name for name in ("secret", "public_key_file", "jwks_file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("set exactly one of secret, public_key_file, jwks_file")
        if (given == ["secret"]) != (self.algorithms == ["HS256"]):
            raise ValueError("a secret belongs to HS256 alone; RS256 and ES256 need a public key")
        if self.secret is not None and len(self.secret.get_secret_value().encode()) < 32:
            raise ValueError("secret must have at least 32 bytes, such as of `openssl rand -hex 32`")
        return self


class AuthSettings(BaseModel):
    """Who may call; without keys and tokens, every call is refused.

    Attributes:
        keys_file: API keys, written by `python -m bentos.keys`.
        jwt: accepted tokens.
    """

    model_config = STRICT
    keys_file: Path | None = None
    jwt: JwtSettings | None = None


class RateSettings(BaseModel):
    """How often one client may call.

    Attributes:
        rows: rows of one client, such as `6000/minute`.
        failures: failed identifications of one address; more are not even looked at.
        storage: `memory://`, counted by each process, or `redis://HOST`, shared by all.
    """

    model_config = STRICT
    rows: str = "60000/minute"
    failures: str = "60/minute"
    storage: str = "memory://"


class RecordsSettings(BaseModel):
    """What is recorded of answers.

    Attributes:
        url: SQLAlchemy URL of SQLite or PostgreSQL.
        spool: directory that holds records until the database has them.
        anchor: file outside the database that gets the head of the audit log's chain after every decision; None for
            `audit.heads` beside the spool.
        keep_requests: whether inputs are kept, so that an answer can be replayed.
        request_days: after so many days, inputs are removed.
        days: after so many days, answers, their outcomes and the figures of subjects are deleted; None keeps them.
    """

    model_config = STRICT
    url: SecretStr = SecretStr(DEFAULT_URL)
    spool: Path = Path(".records/spool")
    anchor: Path | None = None
    keep_requests: bool = True
    request_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None

    @property
    def audit_heads(self) -> Path:
        """The anchor, or its default."""
        return self.anchor or self.spool.parent / "audit.heads"


class JobSettings(BaseModel):
    """Files of requests that are answered in the background.

    Attributes:
        directory: inputs and results of jobs.
        max_waiting: jobs that may wait or run.
        max_bytes: largest file.
        timeout_s: seconds within which some rows of a job must be answered.
    """

    model_config = STRICT
    directory: Path = Path(".records/jobs")
    max_waiting: Count = 100
    max_bytes: Count = 4_000_000_000
    timeout_s: Seconds = 600.0


class WitnessSettings(BaseModel):
    """Background replay of answers.

    Attributes:
        per_hour: answers that are computed again from the bundle's files in an hour; 0 for none.
    """

    model_config = STRICT
    per_hour: Annotated[int, Field(ge=0, le=3600)] = 60


class GuardSettings(BaseModel):
    """When a version is rolled back by itself, soon after it was promoted.

    Attributes:
        fewest_rows: below which shares are not judged.
        failed_share: share of rows that may fail, or be answered by a baseline because the network failed.
        more_fallbacks: by how much the share of subjects whose own model cannot be used may rise.
        error_rate: how often each bound of a share is wrong, at one look.
        days: after its promotion; later, a failure has other causes than the version.
    """

    model_config = STRICT
    fewest_rows: Count = 20
    failed_share: Annotated[float, Field(gt=0, lt=1)] = 0.02
    more_fallbacks: Annotated[float, Field(gt=0, lt=1)] = 0.1
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.001
    days: Annotated[float, Field(ge=0, le=365)] = 1.0

    @property
    def rule(self) -> GuardRule:
        """The rule of the decision."""
        return GuardRule(self.fewest_rows, self.failed_share, self.more_fallbacks, self.error_rate)


class TraceSettings(BaseModel):
    """OpenTelemetry traces.

    Attributes:
        endpoint: of a collector, OTLP over HTTP, such as `http://collector:4318/v1/traces`; None sends nothing.
    """

    model_config = STRICT
    endpoint: WebAddress | None = None


class Settings(BaseSettings):
    """Settings of one service.

    Attributes:
        bundle: directory of the served bundle; the bundle inside a Bento has precedence.
        public_key: PEM file; a bundle that its owner has not signed is not served.
        device: on which the model computes; `cuda` for tasks with a network.
        predict_timeout_s: seconds after which a request is no longer answered, waiting included.
        read_timeout_s: seconds within which a whole request must arrive.
        max_body_bytes: largest body of a request.
        max_rows: rows of one request; more are a job.
        cors_origins: web pages that may call from a browser, such as `["https://app.example"]`.
        reload_s: seconds between two looks for a new bundle in the same place.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True, hide_input_in_errors=True
    )
    bundle: Path = Path("bundle")
    public_key: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    predict_timeout_s: Seconds = 30.0
    read_timeout_s: Seconds = 10.0
    max_body_bytes: Count = 4_000_000
    max_rows: Count = 256
    cors_origins: list[str] = []
    reload_s: Seconds = 0.25
    queue: QueueSettings = QueueSettings()
    auth: AuthSettings = AuthSettings()
    rate: RateSettings = RateSettings()
    records: RecordsSettings = RecordsSettings()
    jobs: JobSettings = JobSettings()
    witness: WitnessSettings = WitnessSettings()
    guard: GuardSettings = GuardSettings()
    traces: TraceSettings = TraceSettings()

    @cached_property
    def served(self) -> Path:
        """The directory of the bundle; a link stays one, so that what it points to may change."""
        return PACKAGED if PACKAGED.is_dir() else self.bundle.absolute()


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigError: a value is invalid, or a variable unknown; names the variable and never a secret.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = PREFIX + "__".join(str(part) for part in first["loc"]).upper()
        given = os.environ.get(variable)
        shown = f"{variable}={given!r}" if given is not None and "SECRET" not in variable else variable
        raise ConfigError(f"{shown}: {_wanted(variable, first)}") from None
    except SettingsError as error:  # a list or a mapping that is no JSON; the text names the field
        found = re.search(r'field "(\w+)"', str(error))
        variable = PREFIX + (found[1].upper() if found else "…")
        raise ConfigError(f"{variable} must be JSON{_nested(variable)}") from None


def _wanted(variable: str, error: ErrorDetails) -> str:
    """Say what a value must be, in the words of whoever sets it."""
    if "dictionary or instance" in error["msg"]:
        return f"is not set itself{_nested(variable)}"
    if error["type"] == "string_pattern_mismatch":
        return "must be an address that begins with http:// or https://"
    return str(error["msg"]).replace("Input should ", "must ").replace("Value error, ", "")


def _nested(variable: str) -> str:
    """Name the settings within a group, or how a list is written."""
    inside = [name for name in variables(Settings, PREFIX) if name.startswith(f"{variable}__")]
    return f": set {', '.join(inside)}" if inside else ', such as ["https://app.example"]'


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {*OF_OTHERS, *variables(Settings, PREFIX)}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"did you mean {near[0]}?" if near else "see docs/service.md for the settings of the service"
            raise ConfigError(f"{name} is not a setting: {hint}")


def variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the environment variable of every setting."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        yield variable
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from variables(kind, f"{variable}__")
