"""Evaluate CV matching: skill retrieval, name bias, missed personal data, undetected hallucinations."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.build import configuration
from hallmark.contracts import CHAMPION, OURS, Better, Evaluation, Metric, Prepared, Progress, ReportLayout
from hallmark.families.language.cleaning import tidy
from hallmark.families.language.encoder import Encoder, Tokens, vectors
from hallmark.families.language.perturbations import with_spaces, with_typos
from hallmark.families.language.retrieval import letter_ngram_cosines, retrieval_metrics, score_ranking
from hallmark.families.language.retriever import Retriever, load_retriever
from hallmark.judge.bootstrap import N_RESAMPLES, SCORE_COLUMNS, SUMMARY_COLUMNS, interval
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

TEST = "test"
UNREDACTED, TYPOS, SPACES = "not redacted", "typos", "double spaces"
FROZEN, LETTERS = "frozen", "letter n-grams"
BASELINES = (FROZEN, f"{FROZEN}, clauses", LETTERS)
WHOLE_TOKENS = 512  # maximum tokens of a whole text, for the baseline of the frozen encoder
FEW_NAMES = 5  # names per group where every name requires a new encoding
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


@configuration
class CvEvaluation:
    """Evaluates CV matching on test.

    Attributes:
        audited_cvs: number of CVs per job in the audit of names.
        seed: seed of the bootstrap.
    """

    evaluates = (CvTask, CvLearner)

    audited_cvs: int
    seed: int

    @property
    def segmentations(self) -> Sequence[str]:
        """Return the segmentation of sentences by source."""
        return ("source",)

    @property
    def layout(self) -> ReportLayout:
        """Return the report layout, with the metrics of skill retrieval first."""
        ranking = tuple(retrieval_metrics())
        headline = tuple((name, TEST, "all") for name in (*ranking, "own_job_auc", "name_gap", "inventions_passed")[:6])
        tables = tuple((name, "all") for name in (*ranking, "own_job_auc"))
        return ReportLayout((TEST,), "", headline, tables, "sentences")

    def metrics(self, task: CvTask, learner: CvLearner) -> Mapping[str, Metric]:
        """Return every metric, by name."""
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
        questions = task.questions(prepared, "test")
        skill_ids = questions["right"].tolist()
        progress("evaluate", 0, 4, f"{len(questions):,} sentences")
        served = learner.open(task, model, "0.0.0", "0" * 64)  # placeholders: answers need a version
        frozen = Encoder(served.retriever.tokens.directory).eval()
        rankings = {
            name: score_ranking(similarity, skill_ids)
            for name, similarity in _similarities(
                served.retriever, frozen, model, champion, questions["text"].tolist()
            ).items()
        }
        rows = _ranked(rankings, questions["subject_id"], self.seed)
        predictor = replace(served, retriever=_CachingRetriever(**vars(served.retriever)))
        progress("evaluate", 1, 4, "CVs against jobs")
        cvs, jobs = task.of_kind(prepared, CV), task.of_kind(prepared, JOB)
        rows += _own_job_auc(predictor, frozen, cvs, jobs, self.seed)
        progress("evaluate", 2, 4, "names")
        grouped = task.of_kind(prepared, WHOLE_NAME).groupby("label")["text"]
        names = {str(group): group_names.tolist() for group, group_names in grouped}
        audits = self._audits(predictor, cvs, jobs, names)
        for name, audit in audits.items():
            rows.append((name, "name_gap", TEST, "all", audit.gap, audit.low, audit.high, audit.cvs))
            rows += [
                _single(name, "impact_ratio", audit.ratio, audit.cvs),
                _single(name, "score_moved", audit.names_moved, audit.cvs),
            ]
        rows += self._placebos(predictor, cvs, jobs)
        progress("evaluate", 3, 4, "missed personal data, undetected inventions")
        rows += _left(predictor, cvs, names)
        requests, answers, timings = _answers(served, cvs, jobs)
        rows += _inventions(predictor, requests, answers)
        changes = {f"redacted {group}": change for group, change in audits[OURS].groups.items()}
        changes |= {f"not redacted {group}": change for group, change in audits[UNREDACTED].groups.items()}
        changes |= {f"{row[0]}, without sign": row[4] for row in rows if row[0] in (TYPOS, SPACES)}
        draw_changes(out / "names.png", changes, "mean change of the score, points")
        summary = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
        notes = {
            **training_notes(model),
            "test": f"{len(questions):,} sentences; {len(cvs)} CVs, {len(jobs)} jobs",
            "what every model is given": {
                LETTERS: "three to five letters within words",
                FROZEN: "the pretrained encoder as it is, the whole sentence",
                f"{FROZEN}, clauses": "the same, with clauses as ours reads them",
                OURS: "the encoder has learned too; sentence and best clause",
            },
        }
        progress("evaluate", 4, 4, "")
        pictures = {"names.png": "What a name changes, by group, beside changes that should not matter either"}
        scores = _by_source(rankings, questions["subject_id"])
        return Evaluation(scores, summary, BASELINES, pictures, notes, timings)

    def _audits(
        self, predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame, names: Mapping[str, Sequence[str]]
    ) -> dict[str, Audit]:
        """Audit names: with redaction all of them, without redaction a few."""
        pairs, one_each = (_pairs(cvs.groupby("label").head(count), jobs) for count in (self.audited_cvs, 1))
        cache: dict[tuple[str, str], float] = {}
        redacting_scorers, plain_scorers = (
            {job: predictor.scorer(job, redact) for _, job in pairs} for redact in (True, False)
        )

        def score_redacted(cv: str, job: str) -> float:
            key = plain(predictor.redactor.redact(tidy(cv)).text), job  # equal redacted CVs are scored once
            if key not in cache:
                cache[key] = redacting_scorers[job](cv)
            return cache[key]

        few_names = {group: group_names[:FEW_NAMES] for group, group_names in names.items()}
        return {
            OURS: swap_names(score_redacted, pairs, names, SLOT, self.seed),
            UNREDACTED: swap_names(lambda cv, job: plain_scorers[job](cv), one_each, few_names, SLOT, self.seed),
        }

    def _placebos(self, predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame) -> list[tuple[Any, ...]]:
        """Measure how much typos and double spaces change scores, to compare with names."""
        rng = np.random.default_rng(self.seed)
        pairs = _pairs(cvs.groupby("label").head(self.audited_cvs), jobs)
        texts, scorers = [cv.replace(SLOT, "") for cv, _ in pairs], {job: predictor.scorer(job) for _, job in pairs}

        def score_all(cvs: Sequence[str]) -> Array:
            return np.asarray([scorers[job](cv) for cv, (_, job) in zip(cvs, pairs, strict=True)])

        before = score_all(texts)
        rows: list[tuple[Any, ...]] = []
        for name, changed in (
            (TYPOS, [with_typos(cv, rng) for cv in texts]),
            (SPACES, [with_spaces(cv) for cv in texts]),
        ):
            shifts = np.abs(score_all(changed) - before)
            rows.append(
                (name, "score_moved", TEST, "all", float(shifts.mean()), *interval(shifts, self.seed), len(shifts))
            )
        return rows


@dataclass(frozen=True)
class _CachingRetriever(Retriever):
    """Caches the vectors of texts, because an audit changes one line of a CV and keeps the others."""

    memory: dict[str, Array] = field(default_factory=dict)

    def vectors(self, texts: Sequence[str]) -> Array:
        """Encode new texts and read the others from the cache; see `Retriever.vectors`."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self.memory]:
            self.memory.update(zip(missing, super().vectors(missing), strict=True))
        return np.stack([self.memory[text] for text in texts])


def _pairs(cvs: pd.DataFrame, jobs: pd.DataFrame) -> list[tuple[str, str]]:
    """Pair every CV with its own job."""
    return list(zip(cvs["text"], cvs["label"].map(jobs.set_index("label")["text"]), strict=True))


def _single(model: str, metric: str, value: float, count: int = 1) -> tuple[Any, ...]:
    return (model, metric, TEST, "all", value, value, value, count)


def _similarities(
    ours: Retriever, encoder: Encoder, model: Path, champion: Path | None, sentences: Sequence[str]
) -> dict[str, Array]:
    """Compute the similarity of every sentence with every skill, (Q, A), by every model."""
    skills = ours.answers
    similarities = {OURS: read_sentences(sentences, ours.vectors).similarity(ours.known)}
    for directory in sorted((model / "candidates").glob("*")):
        candidate = load_retriever(directory)
        similarities[directory.name] = read_sentences(sentences, candidate.vectors).similarity(candidate.known)
    if champion is not None:
        champion_model = load_retriever(champion / "base")
        # Skills are encoded again, because the champion's own list may differ.
        skill_vectors = vectors(champion_model.model.encoder, champion_model.tokens, skills)
        similarities[CHAMPION] = read_sentences(sentences, champion_model.vectors).similarity(skill_vectors)
    skill_vectors = vectors(encoder, ours.tokens, skills)
    similarities[FROZEN] = vectors(encoder, ours.tokens, sentences) @ skill_vectors.T
    reading = read_sentences(sentences, lambda texts: vectors(encoder, ours.tokens, texts))
    similarities[f"{FROZEN}, clauses"] = reading.similarity(skill_vectors)
    similarities[LETTERS] = letter_ngram_cosines(sentences, skills)
    return similarities


def _ranked(rankings: Mapping[str, Mapping[str, Array]], source: "pd.Series[str]", seed: int) -> list[tuple[Any, ...]]:
    rows = []
    segments = {"all": np.ones(len(source), dtype=bool)}
    segments |= {f"source:{name}": (source == name).to_numpy() for name in sorted(source.unique())}
    for model, scores in rankings.items():
        for metric, values in scores.items():
            for segment, inside in segments.items():
                subset = values[inside].astype(np.float64)
                rows.append((model, metric, TEST, segment, float(subset.mean()), *interval(subset, seed), len(subset)))
    return rows


def _by_source(rankings: Mapping[str, Mapping[str, Array]], source: "pd.Series[str]") -> pd.DataFrame:
    rows = [
        (name, model, metric, TEST, "all", float(values[places].mean()), len(places))
        for name, places in source.groupby(source.to_numpy()).indices.items()
        for model, scores in rankings.items()
        for metric, values in scores.items()
    ]
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def _own_job_auc(
    predictor: CvPredictor, encoder: Encoder, cvs: pd.DataFrame, jobs: pd.DataFrame, seed: int
) -> list[tuple[Any, ...]]:
    """Compute how often a CV of a job's occupation scores above one of another, by our model and two baselines."""
    texts = [tidy(predictor.redactor.redact(text.replace(SLOT, "")).text) for text in cvs["text"]]
    matcher = predictor.matcher
    readings = [matcher.read(text) for text in texts]
    wanted = [
        matcher.asked(matcher.read(predictor.redactor.redact(tidy(job), headed=False).text)) for job in jobs["text"]
    ]
    our_scores = np.asarray([[sum(p.points for p in matcher.compare(r, w)) for r in readings] for w in wanted])
    letters = letter_ngram_cosines(jobs["text"].tolist(), texts)
    tokens = Tokens(predictor.retriever.tokens.directory, WHOLE_TOKENS)
    frozen = vectors(encoder, tokens, jobs["text"].tolist()) @ vectors(encoder, tokens, texts).T
    own = jobs["label"].to_numpy()[:, None] == cvs["label"].to_numpy()[None]
    rng = np.random.default_rng(seed)
    resampled = rng.integers(0, len(texts), (N_RESAMPLES, len(texts)))
    rows = []
    for name, scores in ((OURS, our_scores), (FROZEN, frozen), (LETTERS, letters)):
        areas = np.asarray([_area(scores[:, sample], own[:, sample]) for sample in resampled])
        low, high = np.nanquantile(areas, [0.025, 0.975])
        rows.append((name, "own_job_auc", TEST, "all", _area(scores, own), float(low), float(high), len(texts)))
    return rows


def _area(scores: Array, own: Array) -> float:
    """Return the mean over jobs of the share of (own, other) pairs in the right order; ties count half."""
    areas = []
    for row, is_own in zip(scores, own, strict=True):
        if is_own.any() and not is_own.all():
            difference = row[is_own][:, None] - row[~is_own][None]
            areas.append(float((difference > 0).mean() + 0.5 * (difference == 0).mean()))
    return float(np.mean(areas)) if areas else float("nan")


def _left(predictor: CvPredictor, cvs: pd.DataFrame, names: Mapping[str, Sequence[str]]) -> list[tuple[Any, ...]]:
    """Insert names and contact data, and count those that redaction misses."""
    missed = {"head": 0, "text": 0}
    all_names = [name for group_names in names.values() for name in group_names]
    texts = cvs["text"].tolist()
    for i, name in enumerate(all_names):
        name_parts = [name_part for name_part in name.split() if len(name_part) > 1]
        without_name = predictor.redactor.redact(texts[i % len(texts)].replace(SLOT, "")).text
        redacted = predictor.redactor.redact(texts[i % len(texts)].replace(SLOT, name)).text
        missed["head"] += any(redacted.count(name_part) > without_name.count(name_part) for name_part in name_parts)
        redacted = predictor.redactor.redact(MENTIONS[i % len(MENTIONS)].format(name=name)).text
        missed["text"] += any(name_part in redacted for name_part in name_parts)
    redacted_contacts = [predictor.redactor.redact(f"Jane Doe\n{line}\nManaged 12 projects").text for line in CONTACTS]
    is_missed = [planted in text for (planted, text) in zip(CONTACTS.values(), redacted_contacts, strict=True)]
    return [
        _single(OURS, "names_left", missed["head"] / len(all_names), len(all_names)),
        (OURS, "names_left", "running text", "all", *[missed["text"] / len(all_names)] * 3, len(all_names)),
        _single(OURS, "contacts_left", float(np.mean(is_missed)), len(is_missed)),
    ]


def _answers(
    predictor: CvPredictor, cvs: pd.DataFrame, jobs: pd.DataFrame
) -> tuple[list[CvRequest], list[Any], list[float]]:
    """Answer every CV against its own job; return requests, answers and latencies in milliseconds."""
    requests = [CvRequest(cv=cv.replace(SLOT, "Jane Doe"), job=job) for cv, job in _pairs(cvs, jobs)]
    answers, latencies_ms = [], []
    for request in requests:
        start = time.perf_counter()
        answers += predictor.predict([request])
        latencies_ms.append((time.perf_counter() - start) * 1000)
    return requests, answers, latencies_ms


def _inventions(predictor: CvPredictor, requests: Sequence[CvRequest], answers: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Append inventions to every CV; count those that the guard accepts, and honest rewritings that it refuses."""
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
