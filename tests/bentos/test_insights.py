"""A subject reads what its recorded readings show, nobody else does, and no medical sentence can be sent."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from bentos.messages import InsightOut, InsightsOut
from hallmark.cli import app
from hallmark.records.tables import predictions
from tests.bentos.server import Server, running


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    people = {"ada": ("ada", "person", ()), "ben": ("ben", "person", ())}
    with running(bundle, tmp_path_factory.mktemp("insights"), people, rate={"rows": "100000/minute"}) as found:
        yield found


@pytest.fixture(scope="module")
def asked(server: Server) -> datetime:
    """Forty days of a person whose readings are higher from 8 to 10, asked about once a day; returns the last time."""
    rng, last = np.random.default_rng(0), datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(40):
        at = last - timedelta(days=39 - day)
        times = [at.replace(tzinfo=None) - timedelta(minutes=5 * k) for k in range(288)][::-1]
        level = rng.normal(130, 5) + np.repeat(rng.normal(0, 8, 24), 12)
        values = level + rng.normal(0, 4, 288) + [60 if 8 <= t.hour < 10 else 0 for t in times]
        readings = [
            {"timestamp": t.isoformat(), "glucose_mg_dl": float(v)} for t, v in zip(times, values.clip(40), strict=True)
        ]
        body = {"asked_at": (times[-1] + timedelta(minutes=1)).isoformat(), "readings": readings}
        row = server.predict(body, "ada").json()["rows"][0]
        server.flush()
        with server.state.records.database.writing() as connection:
            moved = predictions.update().where(predictions.c.id == row["prediction_id"])
            connection.execute(moved.values(asked_at=at))
    return last


def test_a_person_reads_the_own_patterns_and_is_told_what_they_are_not(server: Server, asked: datetime) -> None:
    response = server.call("GET", "/v1/subjects/ada/insights", "ada")
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["rows"] == 40 * 288
    [pattern] = [i for i in found["insights"] if i["text"].startswith("Between 08:00 and 10:00")]
    assert "higher than in most other hours of the day" in pattern["text"]
    assert (pattern["kind"], pattern["chance"]) == ("pattern", 0.05)
    assert "no diagnosis and no advice" in found["informational"]


def test_the_command_says_the_same(server: Server, asked: datetime, bundle: Path) -> None:
    url = server.state.settings.records.url.get_secret_value()
    done = CliRunner().invoke(app, ["insights", "ada", "--bundle", str(bundle), "--records", url])
    assert done.exit_code == 0, done.output
    assert "pattern  Between 08:00 and 10:00 readings are usually " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("11,520 readings were looked at")


def test_nobody_reads_another_ones(server: Server, asked: datetime) -> None:
    assert server.call("GET", "/v1/subjects/ada/insights", "ben").status_code == 403
    assert server.call("GET", "/v1/subjects/ada/insights", None).status_code == 401
    unrelated = server.call("GET", "/v1/subjects/ada/insights", "service").json()
    assert (unrelated["rows"], unrelated["insights"]) == (0, []), "a service sees what it asked for itself"
    assert server.call("GET", "/v1/subjects/ada/insights", "admin").json()["rows"] == 40 * 288
    empty = server.call("GET", "/v1/subjects/ben/insights", "ben").json()
    assert (empty["rows"], empty["insights"]) == (0, [])


def test_what_reads_like_medicine_cannot_be_built() -> None:
    fields: dict[str, Any] = {"kind": "pattern", "first": datetime(2026, 1, 1), "last": datetime(2026, 1, 2)}
    with pytest.raises(ValidationError, match="the text would give diagnosis"):
        InsightOut(**fields, text="You have diabetes.", chance=0.05)
    with pytest.raises(ValidationError):
        InsightsOut(subject_id="ada", rows=1, insights=[], informational="All is well.")  # type: ignore[arg-type]
