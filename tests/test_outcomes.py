"""Outcomes are checked by the task and compared with the answer, whatever the task."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hallmark.build import build
from hallmark.outcomes import FEEDBACK, HELPFUL, UNHELPFUL, Outcome, OutcomeError, check, errors_of
from runtime.compose import composed

ASKED = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def answered(predictor: Any, task: Any, requests_by_subject: dict[str, Any]) -> Any:
    """A forecast."""
    [answer] = predictor.predict([task.request_type().model_validate(next(iter(requests_by_subject.values())))])
    return answer


def outcome(answer: Any, value: float, minutes: int = 60) -> Outcome:
    when = answer.provenance.last + timedelta(minutes=minutes)
    return Outcome(str(minutes), value, when.replace(tzinfo=UTC))


def test_a_forecast_is_compared_with_the_reading_of_its_time(answered: Any, task: Any) -> None:
    [step] = [step for step in answered.forecast if step.minutes == 60]
    check(task, answered, outcome(answered, step.median_mg_dl + 7.5), ASKED, ASKED)
    found = task.errors(answered, "60", step.median_mg_dl + 7.5)
    assert found["absolute_error"] == pytest.approx(7.5)
    assert found["squared_error"] == pytest.approx((step.median_mg_dl + 7.5 - step.mean_mg_dl) ** 2)
    for interval in step.intervals:
        name = f"covered_{100 * interval.nominal_coverage:.0f}"
        for value, inside in ((interval.high_mg_dl, 1), (interval.high_mg_dl + 0.1, 0), (interval.low_mg_dl - 0.1, 0)):
            assert task.errors(answered, "60", value)[name] == inside


def test_the_time_of_an_outcome_is_the_local_one(answered: Any, task: Any) -> None:
    right = outcome(answered, 120.0)
    east = right.observed_at.replace(tzinfo=None).astimezone().tzinfo
    check(task, answered, Outcome("60", 120.0, right.observed_at.replace(tzinfo=east)), ASKED, ASKED)
    for minutes, fits in ((10, True), (-10, True), (11, False), (-11, False)):
        moved = Outcome("60", 120.0, right.observed_at + timedelta(minutes=minutes))
        if fits:
            check(task, answered, moved, ASKED, ASKED)
        else:
            with pytest.raises(OutcomeError, match="last reading plus the horizon"):
                check(task, answered, moved, ASKED, ASKED)


def test_an_abstention_has_no_outcome(answered: Any, task: Any) -> None:
    nothing = answered.model_copy(update={"forecast": [], "status": "abstained"})
    with pytest.raises(OutcomeError, match="no forecast") as told:
        check(task, nothing, outcome(answered, 120.0), ASKED, ASKED)
    assert told.value.field == "prediction_id"


@pytest.mark.parametrize(
    ("experiment", "labels"), [("sentiment", ("negative", "positive")), ("trades", ("sell", "buy"))]
)
def test_a_label_is_compared_with_the_true_one(experiment: str, labels: tuple[str, str]) -> None:
    task = build(composed(f"experiment={experiment}")["task"])
    field = task.label_field
    shares = [SimpleNamespace(**{field: name, "probability": p}) for name, p in zip(labels, (0.3, 0.7), strict=True)]
    answer = SimpleNamespace(**{field: labels[1], "probabilities": shares})

    def told(value: Any, horizon: str = "", late: timedelta = timedelta(0)) -> Any:
        check(task, answer, Outcome(horizon, value, ASKED + late), ASKED, ASKED)
        return task.errors(answer, horizon, value)

    assert told(labels[1]) == {"error": 0.0, "brier": pytest.approx(0.18)}
    assert told(labels[0]) == {"error": 1.0, "brier": pytest.approx(0.98)}
    answer = SimpleNamespace(**{field: None, "probabilities": ()})
    assert told(labels[0]) == {}
    for wrong, field_name, problem in (
        (("glad",), "value", f"one of {', '.join(task.labels)}"),
        ((1.0,), "value", "one of"),
        ((labels[0], "60"), "horizon", "must be empty"),
        ((labels[0], "", timedelta(minutes=-6)), "observed_at", "before the prediction"),
        ((labels[0], "", timedelta(minutes=6)), "observed_at", "in the future"),
    ):
        with pytest.raises(OutcomeError, match=problem) as error:
            told(*wrong)
        assert error.value.field == field_name


@pytest.mark.parametrize("experiment", ["cv", "text"])
def test_tasks_without_outcomes_say_so(experiment: str) -> None:
    task = build(composed(f"experiment={experiment}")["task"])
    with pytest.raises(OutcomeError, match=f"answers of the task {experiment} have no outcome"):
        check(task, SimpleNamespace(), Outcome("", "good", ASKED), ASKED, ASKED)
    assert errors_of(task, SimpleNamespace(), "", "good") == {}
    assert errors_of(task, None, FEEDBACK, HELPFUL) == {"unhelpful": 0.0}, "but feedback"
    assert errors_of(task, None, FEEDBACK, UNHELPFUL) == {"unhelpful": 1.0}
