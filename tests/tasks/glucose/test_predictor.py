"""One preprocessing: the service's answer is the evaluation's forecast; unsafe requests are refused with a reason."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from hallmark.families.forecasting.predictor import ForecastPredictor
from hallmark.tasks.glucose.messages import DISCLAIMER, GlucoseResponse
from tests.tasks.glucose.requests import request_of


@pytest.fixture(scope="module")
def predictor(task: Any, learner: Any, trained: Path) -> ForecastPredictor:
    found = learner.open(task, trained, "1.2.3", "d" * 64)
    assert isinstance(found, ForecastPredictor)
    return found


@pytest.fixture(scope="module")
def window(task: Any, prepared: Any) -> tuple[Any, int]:
    """The newest origin of subject 0."""
    panel = task.split_panel(prepared).panel
    return panel, int(panel.origins[panel.subject[panel.origins] == 0][-1])


def test_the_service_answers_what_evaluation_scored(
    task: Any, learner: Any, prepared: Any, trained: Path, predictor: ForecastPredictor, window: Any
) -> None:
    panel, origin = window
    tested = learner.open_for_test(task, trained, task.split_panel(prepared))
    at = np.asarray([origin])
    mean, quantiles = tested.forecast(panel.subjects[0], panel.context(at), panel.minute[at].astype(np.int64))
    [answer] = predictor.predict([request_of(panel, origin)])
    np.testing.assert_allclose([f.mean_mg_dl for f in answer.forecast], mean[0], atol=0.06)
    widest = [f.intervals[0].low_mg_dl for f in answer.forecast]
    np.testing.assert_allclose(widest, quantiles[0, :, 0], atol=0.06)


def test_an_answer_carries_everything_that_safety_demands(predictor: ForecastPredictor, window: Any) -> None:
    [answer] = predictor.predict([request_of(*window)])
    assert answer.status == "forecast"
    assert answer.disclaimer == DISCLAIMER
    assert answer.model_version == "1.2.3"
    assert answer.data_age_minutes == 4
    assert len(answer.forecast) == 112
    assert [i.nominal_coverage for i in answer.forecast[0].intervals] == [0.9, 0.8, 0.5]
    assert answer.provenance.rows_used > 500
    assert len(answer.provenance.sha256) == 64


def test_an_answer_without_its_disclaimer_cannot_be_made(predictor: ForecastPredictor, window: Any) -> None:
    [answer] = predictor.predict([request_of(*window)])
    values = answer.model_dump()
    for field in ("disclaimer", "provenance", "data_age_minutes", "model_version", "hallmark_sha256"):
        with pytest.raises(pydantic.ValidationError):
            GlucoseResponse(**{k: v for k, v in values.items() if k != field})
    with pytest.raises(pydantic.ValidationError):
        GlucoseResponse(**{**values, "disclaimer": "Trust me."})


def test_stale_data_are_refused(predictor: ForecastPredictor, window: Any) -> None:
    panel, origin = window
    late = request_of(panel, origin).asked_at + datetime.timedelta(hours=3)
    [answer] = predictor.predict([request_of(panel, origin, asked_at=late)])
    assert (answer.status, answer.served_by, answer.forecast) == ("abstained", "none", [])
    assert "184 minutes old" in answer.reason


def test_a_personal_history_that_ended_long_ago_is_not_used(predictor: ForecastPredictor, window: Any) -> None:
    panel, origin = window
    now = request_of(panel, origin)
    longest = predictor.task.max_history_age_days
    for days in (-3, longest + 2):  # the newest row of a history is that of the day after its last readings
        shift = datetime.timedelta(days=days)
        moved = [r.model_copy(update={"timestamp": r.timestamp + shift}) for r in now.readings]
        then = now.model_copy(update={"asked_at": now.asked_at + shift, "readings": moved})
        stranger = then.model_copy(update={"subject_id": None})
        mine, theirs = predictor.predict([then, stranger])
        assert mine.served_by == "base"
        assert mine.forecast == theirs.forecast


def test_an_empty_forecast_cannot_be_made(predictor: ForecastPredictor, window: Any) -> None:
    [answer] = predictor.predict([request_of(*window)])
    values = answer.model_dump()
    for change in ({"forecast": []}, {"served_by": "none"}, {"reason": "why not"}, {"hallmark_sha256": ""}):
        with pytest.raises(pydantic.ValidationError):
            GlucoseResponse(**{**values, **change})


def test_provenance_tells_readings_apart_that_answers_tell_apart(predictor: ForecastPredictor, window: Any) -> None:
    one = request_of(*window)
    last = one.readings[-1].model_copy(update={"glucose_mg_dl": one.readings[-1].glucose_mg_dl + 0.04})
    other = one.model_copy(update={"readings": [*one.readings[:-1], last]})
    first, second = predictor.predict([one, other])
    assert first.provenance.sha256 != second.provenance.sha256


def test_a_gap_is_refused(predictor: ForecastPredictor, window: Any) -> None:
    panel, origin = window
    whole = request_of(panel, origin)
    [answer] = predictor.predict(
        [whole.model_copy(update={"readings": [*whole.readings[:-40], *whole.readings[-20:]]})]
    )
    assert answer.status == "abstained"
    assert "gap of more than 3 intervals of the sensor (5 minutes each)" in answer.reason


def test_a_newcomer_is_answered_by_the_base_and_nobody_elses_adapter(predictor: ForecastPredictor, window: Any) -> None:
    nobody, stranger = predictor.predict([request_of(*window, subject_id=None), request_of(*window, subject_id="zz")])
    assert nobody.served_by == stranger.served_by == "base"
    assert nobody.forecast == stranger.forecast


def test_answers_do_not_depend_on_neighbours(predictor: ForecastPredictor, window: Any) -> None:
    mine, other = request_of(*window), request_of(*window, subject_id="sim-003")
    assert predictor.predict([mine])[0] == predictor.predict([other, mine, other])[1]


@pytest.mark.parametrize(
    "change",
    [
        {"readings": []},
        {"surprise": 1},
        {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": float("nan")}]},
        {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": 5}]},
        {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": "100"}]},
        {"readings": [{"timestamp": "2024-01-01T00:00:00Z", "glucose_mg_dl": 100}]},
        {"readings": [{"timestamp": "9999-01-01T00:00:00", "glucose_mg_dl": 100}]},
        {"asked_at": "9999-01-01T00:00:00"},
        {"readings": [{"timestamp": f"2024-01-01T00:0{m}:00", "glucose_mg_dl": 100} for m in (5, 0)]},
    ],
)
def test_malformed_requests_are_refused_without_an_echo(window: Any, change: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        request_of(*window, **change)
    assert "input_value" not in str(caught.value)
