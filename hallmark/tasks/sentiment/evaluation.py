"""Evaluate sentiment: the family's metrics, and behavioural tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import configuration
from hallmark.contracts import Better, Metric, Prepared
from hallmark.families.classification.evaluation import ClassEvaluation, Tested
from hallmark.judge.pictures import draw_shares
from hallmark.tasks.sentiment import behaviour
from hallmark.tasks.sentiment.learner import SentimentLearner
from hallmark.tasks.sentiment.task import SentimentTask

BEHAVIOUR: dict[str, Better] = {
    "negated_praise_turns": "higher",
    "negated_blame_rises": "higher",
    "typo_stays": "higher",
    "name_gap": "lower",
}


@configuration
class SentimentEvaluation(ClassEvaluation):
    """Evaluates with the metrics of the classification family and with behavioural tests."""

    evaluates = (SentimentTask, SentimentLearner)

    @property
    def further(self) -> Mapping[str, Metric]:
        """Return the metrics of behaviour.py."""
        return {name: Metric(name, "", better) for name, better in BEHAVIOUR.items()}

    def tests(self, task: Any, prepared: Prepared, predictor: Any, out: Path) -> Tested:
        """Test negation, typos and names; see `ClassEvaluation.tests`."""
        classify, texts = predictor.probabilities, task.rows_of(prepared, "test")["text"].tolist()
        gap, groups = behaviour.names(classify, self.seed)
        values = (*behaviour.negation(classify), behaviour.typos(classify, texts, self.seed), gap)
        bars = {names[0]: float(p) for names, p in zip(behaviour.NAMES, groups, strict=True)}
        draw_shares(out / "names.png", bars, f"mean probability of {task.labels[-1]!r}")
        caption = "The same sentences with names of four groups (by the group's first name)"
        return dict(zip(BEHAVIOUR, values, strict=True)), {"names.png": caption}
