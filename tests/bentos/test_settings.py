"""A setting that is wrong is told by its own name and with the way to write it."""

from pathlib import Path

import pytest

from bentos.jobs import check_directory
from bentos.rates import Rates
from bentos.settings import read_settings
from hallmark.errors import ConfigError
from hallmark.records.database import Database


def checked() -> None:
    """Read the settings and make what they configure."""
    settings = read_settings()
    Rates(settings.rate)
    Database(settings.records.url.get_secret_value())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("CORS_ORIGINS", "https://a.example", r"must be JSON, such as \[\"https://app.example\"\]"),
        ("QUEUE", "4", "is not set itself: set HALLMARK_QUEUE__MAX_ROWS, HALLMARK_QUEUE__MAX_BATCH"),
        ("TRACES__ENDPOINT", "collector", "must be an address that begins with http:// or https://"),
        ("RATE__ROWS", "many", "HALLMARK_RATE__ROWS='many' is no rate: write it as 6000/minute"),
        ("RATE__STORAGE", "redis://user:hush@", "HALLMARK_RATE__STORAGE cannot be used"),
        ("RECORDS__URL", "nonsense", "HALLMARK_RECORDS__URL cannot be read: write sqlite:///PATH"),
        ("RELOAD_S", "nan", "must be a finite number"),
    ],
)
def test_the_message_names_the_variable(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"HALLMARK_{name}", value)
    with pytest.raises(ConfigError, match=told) as error:
        checked()
    assert f"HALLMARK_{name}" in str(error.value)
    assert "hush" not in str(error.value)


def test_a_directory_of_jobs_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigError, match="set HALLMARK_JOBS__DIRECTORY"):
        check_directory(Path("/proc/jobs"))
