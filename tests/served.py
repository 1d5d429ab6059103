"""What a service would have recorded after the training of the toy cohort: requests with fresh readings, outcomes."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import build
from hallmark.evidence import answers_with_evidence
from hallmark.records.database import Database
from hallmark.records.rows import Asked, outcome_row, prediction_row
from hallmark.records.tables import outcomes, predictions
from hallmark.retrain.start import Champion
from hallmark.watch.pairs import Serving, open_serving
from runtime.compose import composed

END = datetime(2024, 1, 17, tzinfo=UTC)  # of the toy cohort's readings


def readings_after() -> pd.DataFrame:
    """Readings of ten further days: of other people, for people change."""
    rows: pd.DataFrame = build({**composed("experiment=toy")["data"], "seed": 1, "days": 26}).load().rows
    return rows[rows["timestamp"] >= np.datetime64(END.replace(tzinfo=None))]


Truth = Callable[[Any, str, float], float]
"""Request, horizon and the champion's median → what happens."""


class Service:
    """Answers people as a service would have, and records it."""

    def __init__(self, database: Database, champion: Champion, life: pd.DataFrame) -> None:
        self.database, self.champion, self.life = database, champion, life
        self.serving: Serving = open_serving(champion.pointer.resolve())

    def request(self, subject: str, at: datetime) -> Any:
        """A request at a time, with the readings of two days before."""
        local = at.replace(tzinfo=None)
        mine = self.life[self.life["subject_id"] == subject]
        mine = mine[(mine["timestamp"] <= local) & (mine["timestamp"] > local - timedelta(days=2))]
        readings = [
            {"timestamp": t.to_pydatetime(), "glucose_mg_dl": float(v)}
            for t, v in zip(mine["timestamp"], mine["glucose"], strict=True)
        ]
        body = {"subject_id": subject, "asked_at": local, "readings": readings}
        return self.serving.task.request_type().model_validate(body)

    def answer(self, subjects: list[str], times: list[datetime], truth: Truth) -> None:
        """Answer each of some people at each of some times, and record what happened an hour and two later."""
        answers, happened = [], []
        for subject in subjects:
            asked = [self.request(subject, at) for at in times]
            given = answers_with_evidence(self.serving.predictor, asked, "0" * 64)
            for at, request, (response, evidence) in zip(times, asked, given, strict=True):
                who = Asked(str(uuid.uuid4()), "key:app", subject, at, request)
                digest, hallmark = self.champion.digest, self.champion.hallmark
                row = prediction_row(who, response, evidence, hallmark, digest, "0" * 64, 5.0, 1, True)
                answers.append(row)
                for step in response.forecast:
                    if step.minutes in (60, 120):
                        value = truth(request, str(step.minutes), step.median_mg_dl)
                        then = at + timedelta(minutes=step.minutes)
                        happened.append(outcome_row(row, "key:app", str(step.minutes), value, then))
        with self.database.writing() as connection:
            self.database.insert(connection, predictions, answers)
            self.database.insert(connection, outcomes, happened)
