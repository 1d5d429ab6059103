"""Provenance that holds: without a named observation an answer has other bytes, without an unnamed one the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.service_provenance import LATER, OTHERS, PAST, REQUEST, SPAN, TOO_OLD, forecasts, trades_of
from hallmark.evidence import Traceable
from hallmark.families.forecasting.linear_bank import Past
from hallmark.prove.influence import PAST as THE_PAST
from hallmark.prove.influence import influences, trace
from tests.toys import Toy, trained_task

DAY = pd.Timedelta(days=1)
TRADES = ("experiment=trades", "data.trades=2500", "model.candidates.0.iterations=60")


@pytest.fixture(scope="module")
def request_of_one(task: Any, requests_by_subject: dict[str, Any]) -> Any:
    return task.request_type().model_validate(next(iter(requests_by_subject.values())))


def test_forecasts_change_without_what_they_name_and_not_without_what_they_do_not(toy: Toy) -> None:
    found = list(forecasts(toy, 18))
    assert {case.kind for case in found} == {REQUEST, PAST, SPAN, TOO_OLD, LATER, OTHERS}
    assert [case for case in found if not case.holds and case.kind != SPAN] == []
    # Days are named, not readings: one beside a gap may be in no window that the linear adapter was fitted on.
    assert np.mean([case.holds for case in found if case.kind == SPAN]) > 0.75


def test_trades_change_without_what_they_name_and_not_without_what_they_do_not() -> None:
    found = list(trades_of(trained_task(*TRADES), 100))
    assert {case.kind for case in found} == {REQUEST, TOO_OLD}
    assert [case for case in found if not case.holds] == []


def test_the_most_influential_reading_is_the_one_without_which_most_changes(
    predictor: Any, request_of_one: Any
) -> None:
    assert isinstance(predictor, Traceable)
    [answer] = predictor.predict([request_of_one])
    traced = trace(predictor, request_of_one, answer)
    assert traced.unit == "largest change of a median, mg/dL"
    few = type(traced)(traced.observations, traced.unit, [*traced.left_out[-12:]])
    answers = predictor.predict([rest for _, rest in few.left_out])
    found = influences(predictor, answer, few, answers)
    assert {item.id for item in found} == {*traced.observations.request[-11:], THE_PAST}
    for item in found:
        rest = answers[[name for name, _ in few.left_out].index(item.id)]
        pairs = zip(predictor.figures(answer), predictor.figures(rest), strict=False)
        assert item.change == (max(abs(a - b) for a, b in pairs) if rest.forecast else None)
    known = [item.change for item in found if item.change is not None]
    assert known == sorted(known, reverse=True)
    assert known[0] > 0


def test_the_past_of_an_answer_is_the_days_before_its_midnight(
    predictor: Any, request_of_one: Any, prepared: Any, params: Any
) -> None:
    observed = predictor.observations(request_of_one)
    rows = prepared.rows[prepared.rows["subject_id"] == request_of_one.subject_id]["timestamp"]
    midnight = rows.max().normalize()  # the request is of the last day with readings
    days = params["learner"]["history"]["days"]
    expected = rows[(rows < midnight) & (rows >= midnight - days * DAY)]
    assert list(observed.past) == [time.isoformat() for time in expected.dt.round("5min")]
    assert observed.fitted == (str(rows.min().date()), str((midnight - DAY).date()))
    ungated = replace(predictor, personalisation=replace(predictor.personalisation, methods={}))
    assert ungated.observations(request_of_one) == replace(observed, fitted=None)
    stranger = request_of_one.model_copy(update={"subject_id": "stranger"})
    assert predictor.observations(stranger).past == ()
    assert predictor.observations(stranger).request == observed.request


def test_readings_of_one_second_are_one_observation(predictor: Any, request_of_one: Any) -> None:
    *others, last = request_of_one.readings
    half = last.model_copy(update={"timestamp": last.timestamp.replace(microsecond=500_000)})
    doubled = request_of_one.model_copy(update={"readings": [*others, last, half]})
    named = predictor.observations(doubled).request
    assert len(set(named)) == len(named)
    assert predictor.without(doubled, named[-1]).readings == others


def test_after_one_day_of_readings_nothing_was_fitted() -> None:
    known = np.ones((3, 288), dtype=bool)
    fitted, times = Past(since=102, first_day=100, known=known).before(102)
    assert fitted is None
    assert len(times) == 2 * 288
    assert Past(since=101, first_day=100, known=known).before(102)[0] == ("1970-04-12", "1970-04-12")


def test_a_predictor_that_knows_no_better_names_the_fields_of_its_request() -> None:
    from hallmark.tasks.sentiment.messages import SentimentRequest

    class Plain:
        def predict(self, requests: Any) -> list[Any]:
            return []

    answer = SentimentRequest(text="any")
    traced = trace(Plain(), SentimentRequest(text="A fine day."), answer)
    assert traced.observations.request == ("text",)
    assert influences(Plain(), answer, traced, []) == []


def test_an_abstention_rests_on_no_past_and_has_no_influences(predictor: Any, request_of_one: Any) -> None:
    short = request_of_one.model_copy(update={"readings": request_of_one.readings[-3:]})
    [answer] = predictor.predict([short])
    assert answer.status == "abstained"
    traced = trace(predictor, short, answer)
    assert len(traced.observations.request) == 3
    assert (traced.observations.past, traced.observations.fitted, list(traced.left_out)) == ((), None, [])
