"""python -m benchmarks.service_provenance: a thousand answers of two tasks, without observations named and not named.

For every answer of a forecaster one observation of each kind is left out: of the request, of the personal past, of the
days that the linear adapter was fitted on; and, not named: a reading of the request that is too old, one of the subject
after the midnight that the answer goes back to, one of another person. The past is computed anew from the readings that
are left. Without one that is not named the answer must have the same bytes. Without a named one it must have others,
or, where its figures are rounded more coarsely than one old reading weighs, the summary of the past must, whose digest
every answer carries. Of the linear adapter the days are named, not the readings: one beside a gap may be in none of its
windows. For trades: a trade that the answer names, and one that is too old.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from hallmark import kernels

REQUEST, PAST, SPAN = "named: of the request", "named: of the past", "named: of the linear adapter's days"
TOO_OLD, LATER, OTHERS = "not named: too old", "not named: after the midnight", "not named: of another person"
EPOCH = date(1970, 1, 1).toordinal()
OLDER = 40  # observations of a request that are too old to be used


@dataclass(frozen=True)
class Case:
    """An answer without one observation.

    Attributes:
        kind: of the observation.
        id: its id.
        holds: whether bytes have changed, or have not, as they must.
        figures: whether the answer itself has other bytes.
    """

    kind: str
    id: str
    holds: bool
    figures: bool


def main() -> None:
    """Measure and print."""
    kernels.pin()
    from tests.toys import trained_task

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=500, help="of each of the two tasks")
    options = parser.parse_args()
    forecaster = trained_task("experiment=toy")
    trades = trained_task("experiment=trades", "data.trades=20000", "model.candidates.0.iterations=60")
    both = {"glucose": forecasts(forecaster, options.answers), "trades": trades_of(trades, options.answers)}
    for name, cases in both.items():
        held, other, all_of = Counter[str](), Counter[str](), Counter[str]()
        for case in cases:
            all_of[case.kind] += 1
            held[case.kind] += case.holds
            other[case.kind] += case.figures
        for kind, count in all_of.items():
            print(f"{name:8} {kind:40} {held[kind]} of {count} hold; the answer itself differs in {other[kind]}")


def forecasts(toy: Any, answers: int) -> Iterator[Case]:
    """Yield what happens to forecasts; requests are spread over all people and the last day of each."""
    task, all_rows = toy.task, toy.prepared.rows
    named, panel = toy.predictor, task.split_panel(toy.prepared).panel
    generator = np.random.default_rng(0)
    last_day = panel.day[[np.flatnonzero(panel.subject == code)[-1] for code in range(len(panel.subjects))]]
    rows_of = {subject: all_rows[all_rows["subject_id"] == subject] for subject in panel.subjects}
    alone = {subject: Past(toy, rows) for subject, rows in rows_of.items()}
    pairs: dict[str, Past] = {}
    for number in range(answers):
        code = number % len(panel.subjects)
        subject, neighbour = panel.subjects[code], panel.subjects[(code + 1) % len(panel.subjects)]
        rows, other, midnight = rows_of[subject], rows_of[neighbour], int(last_day[code]) * 1440
        mine = panel.origins[(panel.subject[panel.origins] == code) & (panel.minute[panel.origins] >= midnight)]
        request = _request(task, panel, int(generator.choice(mine)), subject)
        answer, observed = alone[subject].answer(request), named.observations(request)

        def case(kind: str, picked: Any, past: Past, asked: Any, whole: tuple[str, str] = answer) -> Case:
            rest = past.answer(asked)
            holds = rest != whole if kind.startswith("named") else rest[0] == whole[0]
            return Case(kind, str(picked), holds, rest[0] != whole[0])

        reading = str(generator.choice(observed.request))
        yield case(REQUEST, reading, alone[subject], named.without(request, reading))
        times = [r.timestamp.isoformat() for r in request.readings]
        if unused := [time for time in times if time not in set(observed.request)]:
            too_old = str(generator.choice(unused))
            yield case(TOO_OLD, too_old, alone[subject], named.without(request, too_old))
        grid = _on_grid(rows["timestamp"], panel.grid.step_minutes)
        reading_before = pd.Timestamp(str(generator.choice(observed.past)))
        yield case(PAST, reading_before, Past(toy, rows[grid != reading_before]), request)
        assert observed.fitted is not None
        first, until = pd.Timestamp(observed.fitted[0]), pd.Timestamp(observed.fitted[1]) + pd.Timedelta(days=1)
        span = rows[(grid >= first) & (grid < until) & ~grid.isin(pd.to_datetime(list(observed.past)))]
        for kind, among in ((SPAN, span), (LATER, rows[grid >= until])):
            if len(among):
                picked = among.index[int(generator.integers(len(among)))]
                yield case(kind, rows["timestamp"][picked], Past(toy, rows.drop(picked)), request)
        if subject not in pairs:
            pairs[subject] = Past(toy, pd.concat([rows, other]))
        less = other.drop(other.index[int(generator.integers(len(other)))])
        yield case(OTHERS, neighbour, Past(toy, pd.concat([rows, less])), request, pairs[subject].answer(request))


def trades_of(toy: Any, answers: int) -> Iterator[Case]:
    """Yield what happens to answers about trades; their requests lie evenly over all rows."""
    rows, predictor = toy.prepared.rows, toy.predictor
    length, generator = predictor.model.memory + OLDER, np.random.default_rng(0)
    columns = list(zip(rows["timestamp"], rows["price"], rows["amount"], strict=True))
    for end in np.linspace(length, len(rows), answers).astype(int):
        part = columns[end - length : end]
        trades = [{"timestamp_ms": int(t), "price": float(p), "amount": float(a)} for t, p, a in part]
        request = toy.task.request_type().model_validate({"trades": trades})
        [answer] = predictor.predict([request])
        observed = predictor.observations(request).request
        for kind, places in ((REQUEST, observed), (TOO_OLD, [f"trades/{i}" for i in range(OLDER)])):
            assert kind == REQUEST or not set(places) & set(observed)
            picked = str(generator.choice(places))
            [rest] = predictor.predict([predictor.without(request, picked)])
            changed = rest.model_dump_json() != answer.model_dump_json()
            yield Case(kind, picked, changed == (kind == REQUEST), changed)


class Past:
    """Answers with a past that is computed from some readings."""

    def __init__(self, toy: Any, rows: pd.DataFrame) -> None:
        from hallmark.families.forecasting.base_fitting import population_forecast
        from hallmark.families.forecasting.history import build_history
        from hallmark.families.forecasting.linear_bank import FullHistory
        from hallmark.families.forecasting.panel import build_panel

        assembler = toy.predictor.base.assembler
        panel = build_panel(rows, toy.task.value, assembler.grid)
        population = population_forecast(assembler, panel)
        self.history = build_history(panel, assembler.history, assembler.scale, population)
        self.codes = {subject: code for code, subject in enumerate(panel.subjects)}
        self.predictor = replace(toy.predictor, histories=FullHistory(self.history, self.codes))

    def answer(self, request: Any) -> tuple[str, str]:
        """Return the answer's bytes, and the digest of the midnight's row of the past that it was computed with."""
        [answer] = self.predictor.predict([request])
        assert (answer.status, answer.fallback) == ("forecast", ""), answer.reason
        day = request.readings[-1].timestamp.date().toordinal() - EPOCH
        row = self.history.rows(np.asarray([self.codes[request.subject_id]]), np.asarray([day]))
        arrays = list(self.history.tensors().values())[3:]
        return str(answer.model_dump_json()), hashlib.sha256(b"".join(a[row].tobytes() for a in arrays)).hexdigest()


def _request(task: Any, panel: Any, origin: int, subject: str) -> Any:
    """Make a request of a window and of the readings before it, which are too old to be used."""
    points = np.arange(origin - panel.grid.context_length + 1 - OLDER, origin + 1)
    points = points[~np.isnan(panel.values[points])]
    times = panel.minute[points].astype("datetime64[m]").astype(object)
    readings = [
        {"timestamp": time.isoformat(), task.value: float(value)}
        for time, value in zip(times, panel.values[points], strict=True)
    ]
    body = {"subject_id": subject, "asked_at": (times[-1] + timedelta(minutes=4)).isoformat(), "readings": readings}
    return task.request_type().model_validate(body)


def _on_grid(times: "pd.Series[Any]", step_minutes: int) -> "pd.Series[Any]":
    from hallmark.families.forecasting.panel import nearest_slots

    slots = nearest_slots(times.to_numpy(), step_minutes) * step_minutes
    return pd.Series(slots.astype("datetime64[m]").astype("datetime64[ns]"), index=times.index)


if __name__ == "__main__":
    main()
