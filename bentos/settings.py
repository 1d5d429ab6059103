"""Settings of the service from environment variables; an invalid value raises an error that names the variable."""

import os
from dataclasses import dataclass
from pathlib import Path

from hallmark.errors import ConfigError

PACKAGED = Path(__file__).resolve().parents[1] / "hallmark-bundle"


@dataclass(frozen=True)
class Settings:
    """Settings of one service.

    Attributes:
        bundle: directory of the served bundle; the bundle inside a Bento has precedence over HALLMARK_BUNDLE.
        predict_timeout_s: seconds after which a prediction is cancelled (HALLMARK_PREDICT_TIMEOUT_S).
        read_timeout_s: seconds within which a whole request must arrive (HALLMARK_READ_TIMEOUT_S).
        max_body_bytes: largest body of a request, in bytes (HALLMARK_MAX_BODY_BYTES).
    """

    bundle: Path
    predict_timeout_s: float
    read_timeout_s: float
    max_body_bytes: int


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigError: a value is not a positive number; names the variable.
    """
    named = Path(os.environ.get("HALLMARK_BUNDLE") or "bundle").resolve()
    return Settings(
        bundle=PACKAGED if PACKAGED.is_dir() else named,
        predict_timeout_s=_positive("HALLMARK_PREDICT_TIMEOUT_S", "30"),
        read_timeout_s=_positive("HALLMARK_READ_TIMEOUT_S", "10"),
        max_body_bytes=int(_positive("HALLMARK_MAX_BODY_BYTES", "1000000")),
    )


def _positive(name: str, default: str) -> float:
    text = os.environ.get(name) or default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12:
        raise ConfigError(f"{name}={text!r} must be a positive number, such as {default}")
    return value
