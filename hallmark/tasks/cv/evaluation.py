"""Evaluate CV matching: skill retrieval, name bias, missed personal data, undetected hallucinations."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Better, Evaluation, Metric, Prepared, Progress, Shown
from hallmark.families.language.cleaning import tidy
from hallmark.families.language.encoder import Encoder, Tokens, vectors
from hallmark.families.language.perturbations import with_spaces, with_typos
from hallmark.families.language.retrieval import counted_letters, retrieval_metrics, score_ranking
from hallmark.families.language.retriever import Retriever, load_retriever
from hallmark.judge.bootstrap import DRAWS, interval
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_changes
from hallmark.judge.report import training_notes
from hallmark.tasks.cv.audit import Audit, swap_names
from hallmark.tasks.cv.learner import CvLearner
from hallmark.tasks.cv.matching import read_sentences
from hallmark.tasks.cv.messages import CvRequest
from hallmark.tasks.cv.planted import CONTACTS, INVENTIONS, MENTIONS, recombined
from hallmark.tasks.cv.predictor import CvPredictor
from hallmark.tasks.cv.redaction import plain
from hallmark.tasks.cv.rewriting import invented
from hallmark.tasks.cv.sources import CV, JOB, SLOT, WHOLE_NAME
from hallmark.tasks.cv.task import CvTask

AT = "test"
UNREDACTED, TYPOS, SPACES = "not redacted", "typos", "double spaces"
FROZEN, LETTERS = "frozen", "counted letters"
WHOLE_TOKENS = 512  # of a text that the frozen encoder reads at once, for comparison
FEW_NAMES = 5  # a group, where every name means encoding anew
OWN: dict[str, tuple[str, Better]] = {
    "own_job_auc": ("", "higher"),
    "name_gap": ("points", "lower"),
    "impact_ratio": ("", "higher"),
    "score_moved": ("points", "lower"),
    "names_left": ("", "lower"),
    "contacts_left": ("", "lower"),
    "inventions_passed": ("", "lower"),
    "rewritings_refused": ("", "lower"),
}


@dataclass(frozen=True)
class CvEvaluation:
    """What evaluation looks at.

    Attributes:
        audited_cvs: of every job, for the audit of names.
        seed: of the bootstrap.
    """

    evaluates = (CvTask, CvLearner)

    audited_cvs: int
    seed: int

    @property
    def segmentations(self) -> Sequence[str]:
        """Sentences by source."""
        return ("source",)

    @property
    def shown(self) -> Shown:
        """Skills found first."""
        ranking = tuple((name, "all") for name in retrieval_metrics())
        return Shown(
            (AT,), "", (*ranking, *((name, "all") for name in OWN)), (*ranking, ("own_job_auc", "all")), "sentences"
        )

    def metrics(self, task: CvTask, learner: CvLearner) -> Mapping[str, Metric]:
        """Every metric, by name."""
        return retrieval_metrics() | {name: Metric(name, unit, better) for name, (unit, better) in OWN.items()}

    def evaluate(
        self,
        task: CvTask,
        learner: CvLearner,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score everything on test; see `Evaluator.evaluate`."""
        asked = task.questions(prepared, "test")
        right = asked["right"].tolist()
        progress("evaluate", 0, 4, f"{len(asked):,} sentences")
        served = learner.open(task, model, "0.0.0", "0" * 64)  # an answer must name a version: these go nowhere
        frozen = Encoder(served.retriever.tokens.directory).eval()
        rankings = {
            name: score_ranking(similarity, right)
            for name, similarity in _similarities(
                served.retriever, frozen, model, champion, asked["text"].tolist()
            ).items()
        }
        rows = _ranked(rankings, asked["subject_id"], self.seed)
        predictor = replace(served, retriever=_Remembering(**vars(served.retriever)))
        progress("evaluate", 1, 4, "CVs against jobs")
        cvs, jobs = task.of_kind(prepared, CV), task.of_kind(prepared, JOB)
        rows += _told_apart(predictor, frozen, cvs, jobs, self.seed)
        progress("evaluate", 2, 4, "names")
        grouped = task.of_kind(prepared, WHOLE_NAME).groupby("label")["text"]
        names = {str(group): listed.tolist() for group, listed in grouped}
        audits = self._audits(predictor, cvs, jobs, names)
        for name, found in audits.items():
            rows.append((name, "name_gap", AT, "all", found.gap, found.low, found.high, found.cvs))
            rows += [
                _single(name, "impact_ratio", found.ratio, found.cvs),
                _single(name, "score_moved", found.names_moved, found.cvs),
            ]
        rows += self._placebos(predictor, cvs, jobs)
        progress("evaluate", 3, 4, "what is left, what is invented")
        rows += _left(predictor, cvs, names)
        requests, answers, timings = _answers(served, cvs, jobs)
        rows += _inventions(predictor, requests, answers)
        drawn = {f"redacted {group}": change for group, change in audits[OURS].groups.items()}
        drawn |= {f"not redacted {group}": change for group, change in audits[UNREDACTED].groups.items()}
        drawn |= {f"{row[0]}, without sign": row[4] for row in rows if row[0] in (TYPOS, SPACES)}
        draw_changes(out / "names.png", drawn, "mean change of the score, points")
        columns = ["model", "metric", "at", "segment", "mean", "low", "high", "drawn"]
        summary = pd.DataFrame(rows, columns=columns)
        notes = {
            **training_notes(model),
            "test": f"{len(asked):,} sentences; {len(cvs)} CVs, {len(jobs)} jobs",
            "what every model is given": {
                LETTERS: "three to five letters within words",
                FROZEN: "the pretrained encoder as it is, the whole sentence",
                f"{FROZEN}, clauses": "the same, with clauses as ours reads them",
                OURS: "the encoder has learned too; sentence and best clause",
            },
        }
        progress("evaluate", 4, 4, "")
        pictures = {"names.png": "What a name changes, by group, beside changes that should not matter either"}
        return Evaluation(_by_source(rankings, asked["subject_id"]), summary, pictures, notes, timings)

    def _audits(
        self, predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame, names: Mapping[str, Sequence[str]]
    ) -> dict[str, Audit]:
        """Swap names with redaction, every name, and without it, a few."""
        pairs, one_each = (_pairs(cvs.groupby("label").head(count), jobs) for count in (self.audited_cvs, 1))
        known: dict[tuple[str, str], float] = {}
        ours, others = ({job: predictor.scorer(job, redact) for _, job in pairs} for redact in (True, False))

        def redacted(cv: str, job: str) -> float:
            key = plain(predictor.redactor.redact(tidy(cv)).text), job  # what is the same when redacted is scored once
            if key not in known:
                known[key] = ours[job](cv)
            return known[key]

        few = {group: listed[:FEW_NAMES] for group, listed in names.items()}
        return {
            OURS: swap_names(redacted, pairs, names, SLOT, self.seed),
            UNREDACTED: swap_names(lambda cv, job: others[job](cv), one_each, few, SLOT, self.seed),
        }

    def _placebos(self, predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame) -> list[tuple[Any, ...]]:
        """Measure what typos and spaces change."""
        rng = np.random.default_rng(self.seed)
        pairs = _pairs(cvs.groupby("label").head(self.audited_cvs), jobs)
        texts, scorers = [cv.replace(SLOT, "") for cv, _ in pairs], {job: predictor.scorer(job) for _, job in pairs}

        def scored(cvs: Sequence[str]) -> Array:
            return np.asarray([scorers[job](cv) for cv, (_, job) in zip(cvs, pairs, strict=True)])

        before = scored(texts)
        rows: list[tuple[Any, ...]] = []
        for name, changed in (
            (TYPOS, [with_typos(cv, rng) for cv in texts]),
            (SPACES, [with_spaces(cv) for cv in texts]),
        ):
            moved = np.abs(scored(changed) - before)
            rows.append((name, "score_moved", AT, "all", float(moved.mean()), *interval(moved, self.seed), len(moved)))
        return rows


@dataclass(frozen=True)
class _Remembering(Retriever):
    """Encodes every text once: audits change a line of a CV and leave the others."""

    memory: dict[str, Array] = field(default_factory=dict)

    def vectors(self, texts: Sequence[str]) -> Array:
        """Encode what is new, look up the rest; see `Retriever.vectors`."""
        if new := [text for text in dict.fromkeys(texts) if text not in self.memory]:
            self.memory.update(zip(new, super().vectors(new), strict=True))
        return np.stack([self.memory[text] for text in texts])


def _pairs(cvs: pd.DataFrame, jobs: pd.DataFrame) -> list[tuple[str, str]]:
    """Put every CV beside its own job."""
    return list(zip(cvs["text"], cvs["label"].map(jobs.set_index("label")["text"]), strict=True))


def _single(model: str, metric: str, value: float, count: int = 1) -> tuple[Any, ...]:
    return (model, metric, AT, "all", value, value, value, count)


def _similarities(
    ours: Retriever, encoder: Encoder, model: Path, champion: Path | None, sentences: Sequence[str]
) -> dict[str, Array]:
    """Compare the sentences with every skill, (Q, A), by every model."""
    skills = ours.answers
    found = {OURS: read_sentences(sentences, ours.vectors).similarity(ours.known)}
    for directory in sorted((model / "candidates").glob("*")):
        other = load_retriever(directory)
        found[directory.name] = read_sentences(sentences, other.vectors).similarity(other.known)
    if champion is not None:
        theirs = load_retriever(champion / "base")
        known = vectors(theirs.model.encoder, theirs.tokens, skills)  # its list of skills may be another one
        found[CHAMPION] = read_sentences(sentences, theirs.vectors).similarity(known)
    known = vectors(encoder, ours.tokens, skills)
    found[FROZEN] = vectors(encoder, ours.tokens, sentences) @ known.T
    cut = read_sentences(sentences, lambda texts: vectors(encoder, ours.tokens, texts))
    found[f"{FROZEN}, clauses"] = cut.similarity(known)
    found[LETTERS] = counted_letters(sentences, skills)
    return found


def _ranked(rankings: Mapping[str, Mapping[str, Array]], source: "pd.Series[str]", seed: int) -> list[tuple[Any, ...]]:
    rows = []
    segments = {"all": np.ones(len(source), dtype=bool)}
    segments |= {f"source:{name}": (source == name).to_numpy() for name in sorted(source.unique())}
    for model, scores in rankings.items():
        for metric, values in scores.items():
            for segment, inside in segments.items():
                mine = values[inside].astype(np.float64)
                rows.append((model, metric, AT, segment, float(mine.mean()), *interval(mine, seed), len(mine)))
    return rows


def _by_source(rankings: Mapping[str, Mapping[str, Array]], source: "pd.Series[str]") -> pd.DataFrame:
    rows = [
        (name, model, metric, AT, "all", float(values[places].mean()), len(places))
        for name, places in source.groupby(source.to_numpy()).indices.items()
        for model, scores in rankings.items()
        for metric, values in scores.items()
    ]
    return pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "n_examples"])


def _told_apart(
    predictor: CvPredictor, encoder: Encoder, cvs: pd.DataFrame, jobs: pd.DataFrame, seed: int
) -> list[tuple[Any, ...]]:
    """How often a CV of a job's occupation scores above one of another, by us, by whole texts, and by letters."""
    texts = [tidy(predictor.redactor.redact(text.replace(SLOT, "")).text) for text in cvs["text"]]
    matcher = predictor.matcher
    readings = [matcher.read(text) for text in texts]
    wanted = [
        matcher.asked(matcher.read(predictor.redactor.redact(tidy(job), headed=False).text)) for job in jobs["text"]
    ]
    ours = np.asarray([[sum(p.points for p in matcher.compare(r, w)) for r in readings] for w in wanted])
    letters = counted_letters(jobs["text"].tolist(), texts)
    tokens = Tokens(predictor.retriever.tokens.directory, WHOLE_TOKENS)
    frozen = vectors(encoder, tokens, jobs["text"].tolist()) @ vectors(encoder, tokens, texts).T
    own = jobs["label"].to_numpy()[:, None] == cvs["label"].to_numpy()[None]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(texts), (DRAWS, len(texts)))
    rows = []
    for name, scores in ((OURS, ours), (FROZEN, frozen), (LETTERS, letters)):
        areas = np.asarray([_area(scores[:, some], own[:, some]) for some in drawn])
        low, high = np.nanquantile(areas, [0.025, 0.975])
        rows.append((name, "own_job_auc", AT, "all", _area(scores, own), float(low), float(high), len(texts)))
    return rows


def _area(scores: Array, own: Array) -> float:
    """Mean over jobs of the share of (own, other) pairs in the right order, ties half."""
    areas = []
    for row, mine in zip(scores, own, strict=True):
        if mine.any() and not mine.all():
            difference = row[mine][:, None] - row[~mine][None]
            areas.append(float((difference > 0).mean() + 0.5 * (difference == 0).mean()))
    return float(np.mean(areas)) if areas else float("nan")


def _left(predictor: CvPredictor, cvs: pd.DataFrame, names: Mapping[str, Sequence[str]]) -> list[tuple[Any, ...]]:
    """Plant names and contact data, and count what redaction has missed."""
    missed = {"head": 0, "text": 0}
    everybody = [name for listed in names.values() for name in listed]
    heads = cvs["text"].tolist()
    for i, name in enumerate(everybody):
        parts = [part for part in name.split() if len(part) > 1]
        bare = predictor.redactor.redact(heads[i % len(heads)].replace(SLOT, "")).text
        kept = predictor.redactor.redact(heads[i % len(heads)].replace(SLOT, name)).text
        missed["head"] += any(kept.count(part) > bare.count(part) for part in parts)
        kept = predictor.redactor.redact(MENTIONS[i % len(MENTIONS)].format(name=name)).text
        missed["text"] += any(part in kept for part in parts)
    gone = [predictor.redactor.redact(f"Jane Doe\n{line}\nManaged 12 projects").text for line in CONTACTS]
    left = [planted in text for (planted, text) in zip(CONTACTS.values(), gone, strict=True)]
    return [
        _single(OURS, "names_left", missed["head"] / len(everybody), len(everybody)),
        (OURS, "names_left", "running text", "all", *[missed["text"] / len(everybody)] * 3, len(everybody)),
        _single(OURS, "contacts_left", float(np.mean(left)), len(left)),
    ]


def _answers(
    predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame
) -> tuple[list[CvRequest], list[Any], list[float]]:
    """Answer and time every CV against its own job, milliseconds."""
    requests = [CvRequest(cv=cv.replace(SLOT, "Jane Doe"), job=job) for cv, job in _pairs(cvs, jobs)]
    answers, times = [], []
    for request in requests:
        start = time.perf_counter()
        answers += predictor.predict([request])
        times.append((time.perf_counter() - start) * 1000)
    return requests, answers, times


def _inventions(predictor: CvPredictor, requests: Sequence[CvRequest], answers: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Plant inventions behind every CV and count those that the guard lets pass, and honest rewritings it refuses."""
    passed, planted = 0, 0
    for request in requests:
        source = tidy(request.cv or "")
        guard = predictor.guard(source)
        for line in (*INVENTIONS, *recombined(source)):
            planted += 1
            passed += not invented(source, f"{source}\n- {line}", *guard)
    refused = [answer.rewritten is None or answer.rewritten.text is None for answer in answers]
    return [
        _single(OURS, "inventions_passed", passed / planted, planted),
        _single(OURS, "rewritings_refused", float(np.mean(refused)), len(refused)),
    ]
