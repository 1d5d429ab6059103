"""The sentiment task from rows to answers, and what it refuses."""

import dataclasses
import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from hallmark.build import build
from hallmark.contracts import Prepared, no_progress
from hallmark.errors import DataError, LeakageError, SourceError
from hallmark.families.language.encoder import Encoder, vectors
from hallmark.families.language.text_classifier import load_classifier
from hallmark.tasks.sentiment import behaviour
from hallmark.tasks.sentiment.messages import DISCLAIMER
from hallmark.tasks.sentiment.sources import LabelledSentences, TextTable
from tests.toys import SHARED, compose, fit

TOY = (
    "experiment=sentiment",
    "data.rows=260",
    "train.budget_tflop=1.0",
    "train.evaluate_every=10",
    "train.learning_rate=0.001",
)


def ask(task: Any, predictor: Any, *texts: str) -> Any:
    return predictor.predict([task.request_type()(text=text) for text in texts])


def test_training_is_the_same_twice(task: Any, learner: Any, prepared: Prepared, tmp_path: Path) -> None:
    params = compose(*TOY, "train.budget_tflop=0.05")
    for directory in ("first", "second"):
        fit(params, task, learner, prepared, tmp_path / directory)
    for name in ("base/learned.safetensors", "training.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_it_learns_more_than_its_initial_checkpoint(task: Any, prepared: Prepared, trained: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    classifier = load_classifier(trained / "base")
    train, valid = task.rows_of(prepared, "train"), task.rows_of(prepared, "valid")
    encoder = Encoder(classifier.tokens.directory).eval()
    start = LogisticRegression(max_iter=1000).fit(
        vectors(encoder, classifier.tokens, train["text"].tolist()), task.numbers(train["label"])
    )
    frozen = start.predict_log_proba(vectors(encoder, classifier.tokens, valid["text"].tolist()))
    logits = classifier.logits(classifier.tokens.ids(valid["text"].tolist()))
    ours = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = task.numbers(valid["label"])
    rows = np.arange(len(target))
    assert -ours[rows, target].mean() < -frozen[rows, target].mean() - 0.02


def test_an_answer_says_what_it_rests_on(task: Any, predictor: Any) -> None:
    [answer] = ask(task, predictor, "The  food was\tgreat. ")
    assert answer.text_sha256 == hashlib.sha256(b"The food was great.").hexdigest()
    assert answer.tokens == 7
    assert sum(p.probability for p in answer.probabilities) == pytest.approx(1, abs=1e-5)
    assert (answer.model_version, answer.hallmark_sha256, answer.disclaimer) == ("1.2.3", "d" * 64, DISCLAIMER)


def test_the_bits_of_an_answer_do_not_depend_on_its_neighbours(task: Any, predictor: Any) -> None:
    texts = ["The food was great.", "The film was dull and far too long for what it had to say.", "Fine."]
    together = ask(task, predictor, *texts)
    assert together == [ask(task, predictor, text)[0] for text in texts]
    assert ask(task, predictor, *texts[::-1]) == together[::-1]


@pytest.mark.parametrize("words", [1, 2, 5, 6, 7, 20, 60])
def test_texts_of_one_length_share_a_pass_and_keep_their_bits(task: Any, predictor: Any, words: int) -> None:
    known = ["good", "bad", "food", "film", "was", "not", "the", "long", "great", "slow"]
    generator = random.Random(words)
    texts = [" ".join(generator.choices(known, k=words)) for _ in range(70)]
    lengths = set(map(len, predictor.classifier.tokens.ids(texts)))
    assert lengths == {words + 2}
    assert ask(task, predictor, *texts) == [ask(task, predictor, text)[0] for text in texts]
    classifier = predictor.classifier
    ids = classifier.tokens.ids(texts[:1])
    with torch.no_grad():
        expected = classifier.model(**classifier.tokens.batch(ids))["logits"].numpy()
    np.testing.assert_allclose(classifier.logits(ids), expected, atol=1e-5)


def test_below_the_threshold_nothing_is_said(task: Any, predictor: Any) -> None:
    shy = dataclasses.replace(predictor, calibration=dataclasses.replace(predictor.calibration, threshold=0.9999))
    [answer] = ask(task, shy, "The food was on the table.")
    assert (answer.status, answer.label) == ("abstained", None)
    assert answer.reason == "no label reaches the probability 1.00"
    assert len(answer.probabilities) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ("\x00\x01", "the text is empty"),
        ("😀😀", "the text holds no letters"),
        ("это очень хорошо", "the text is not in Latin letters"),
        ("the food was good " * 800, "the text has 3,202 tokens, the model reads 256 at once: cut it into parts"),
    ],
)
def test_what_cannot_be_read_is_an_abstention_with_its_reason(
    task: Any, predictor: Any, text: str, reason: str
) -> None:
    [answer] = ask(task, predictor, text)
    assert (answer.status, answer.reason, answer.probabilities, answer.tokens) == ("abstained", reason, [], 0)


def test_a_megabyte_is_no_request(task: Any) -> None:
    with pytest.raises(ValidationError, match="at most 20000 characters") as caught:
        task.request_type()(text="secret " * 150_000)
    assert "secret" not in str(caught.value)


def test_a_response_cannot_contradict_itself(task: Any, predictor: Any) -> None:
    [answer] = ask(task, predictor, "The food was great.")
    response = task.response_type()
    for change in ({"reason": "because"}, {"label": None}, {"probabilities": []}, {"threshold": 1.0}):
        with pytest.raises(ValidationError):
            response.model_validate({**answer.model_dump(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "positive"}, "no row has the label 'negative' of negative, positive: nothing to learn it from"),
        ({"label": "meh"}, "label other than negative, positive"),
        ({"text": None}, "260 of 260 rows dropped"),
    ],
)
def test_bad_rows_are_named(params: dict[str, Any], task: Any, change: dict[str, Any], message: str) -> None:
    raw = build(params["data"]).load()
    with pytest.raises(DataError, match=message):
        task.clean(dataclasses.replace(raw, rows=raw.rows.assign(**change)))


def test_a_missing_column_is_named(params: dict[str, Any], task: Any) -> None:
    raw = build(params["data"]).load()
    with pytest.raises(DataError, match="has no column 'label'"):
        task.clean(dataclasses.replace(raw, rows=raw.rows.drop(columns="label")))


def test_a_planted_twin_is_found(task: Any, prepared: Prepared) -> None:
    rows = prepared.rows.copy()
    train = np.flatnonzero((prepared.splits["split"] == "train").to_numpy())[0]
    test = np.flatnonzero((prepared.splits["split"] == "test").to_numpy())[0]
    rows.loc[test, "text"] = rows.loc[train, "text"].upper() + " !"
    with pytest.raises(LeakageError, match="1 texts lie in two"):
        task.check_leakage(dataclasses.replace(prepared, rows=rows))


def test_the_files_are_read_as_they_are(tmp_path: Path) -> None:
    # A Unicode line separator inside a sentence ends no line, and a line without a tab has no label.
    (tmp_path / "shop_labelled.txt").write_text("Fine\x85 by me\t1\nNo label here\nBad\t0\nOdd\t5\n", encoding="utf-8")
    source = LabelledSentences(str(tmp_path), ("shop",), {"0": "negative", "1": "positive"})
    raw = source.load()
    assert raw.rows["text"].tolist() == ["Fine\x85 by me", "No label here", "Bad", "Odd"]
    assert raw.rows["label"].tolist()[::2] == ["positive", "negative"]
    assert pd.isna(raw.rows["label"][1])
    (tmp_path / "shop_labelled.txt").write_bytes("Caf\xe9\t1\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"shop_labelled\.txt is not UTF-8 text at byte 3"):
        source.load()
    with pytest.raises(SourceError, match=r"town\*_labelled\.txt is not there"):
        LabelledSentences(str(tmp_path), ("town",), {}).load()


def test_ones_own_table_needs_text_and_label(tmp_path: Path) -> None:
    pd.DataFrame({"review": ["Good one", "Bad one"], "stars": ["positive", "negative"]}).to_csv(tmp_path / "own.csv")
    raw = TextTable(str(tmp_path / "own.csv"), {"text": "review", "label": "stars"}, {}).load()
    assert raw.rows.to_dict("list") == {
        "subject_id": ["own", "own"],
        "text": ["Good one", "Bad one"],
        "label": ["positive", "negative"],
    }
    with pytest.raises(DataError, match="has no column 'text'"):
        TextTable(str(tmp_path / "own.csv"), {}, {}).load()


def test_a_gap_of_names_that_chance_explains_is_not_proven() -> None:
    """Every name is a little different, groups mean nothing: the interval reaches down to zero."""
    levels = {name: 0.5 + 0.1 * np.sin(97 * i) for i, name in enumerate(sum(behaviour.NAMES, ()))}

    def by_name(texts: Any) -> Any:
        p = np.array([next((level for name, level in levels.items() if name in t), 0.5) for t in texts])
        return np.stack([1 - p, p], axis=1)

    (gap, low, high), _ = behaviour.names(by_name, 0)
    assert gap > 0.01
    assert low < 0.01 < gap <= high


def test_behaviour_tests_tell_a_reader_from_a_counter() -> None:
    def counter(texts: Any) -> Any:
        """Counts good and bad words: knows no negation, but names mean nothing to it."""
        good = np.array([sum(w.strip(".,") in behaviour.GOOD for w in t.split()) for t in texts])
        bad = np.array([sum(w.strip(".,") in behaviour.BAD for w in t.split()) for t in texts])
        p = 1 / (1 + np.exp(-(good - bad)))
        return np.stack([1 - p, p], axis=1)

    def reader(texts: Any) -> Any:
        p = counter(texts)
        turned = np.array(["not" in t.split() for t in texts])
        return np.where(turned[:, None], p[:, ::-1], p)

    def biased(texts: Any) -> Any:
        p = counter(texts)
        p[:, 1] -= [0.3 * any(name in t for name in behaviour.NAMES[1]) for t in texts]
        return p

    assert behaviour.negation(counter) == (0.0, 0.0)
    assert behaviour.negation(reader) == (1.0, 1.0)
    (gap, low, high), groups = behaviour.names(biased, 0)
    assert gap == pytest.approx(0.3)
    assert 0.1 < low <= gap <= high
    assert groups.argmin() == 1
    assert behaviour.names(counter, 0)[0] == (0.0, 0.0, 0.0)
    texts = ["An enjoyable day", "Fine"]
    assert behaviour.typos(reader, texts, 0) == 0.0  # the one word that says something is the one that is misspelt


def test_evaluation_measures_every_gate(
    params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    evaluator, gates = build(params["evaluate"]["evaluator"]), build(params["evaluate"]["gates"])
    found = evaluator.evaluate(task, learner, prepared, trained, None, tmp_path, no_progress)
    metrics = evaluator.metrics(task, learner)
    verdicts = [gate.judge(found, metrics) for gate in gates]
    assert not [v for v in verdicts if "was not measured" in v.reason]
    assert set(found.summary["model"]) == {"hallmark", "tfidf", "frozen", "majority_class"}
    assert {(tmp_path / name).read_bytes()[:4] for name in found.pictures} == {b"\x89PNG"}
    ours = found.summary.query("model == 'hallmark' and segment == 'all' and metric == 'accuracy'").iloc[0]
    test = task.rows_of(prepared, "test")
    predictor = learner.open(task, trained, "", "")
    served = predictor.probabilities(test["text"].tolist()).argmax(axis=1)
    assert ours["mean"] == pytest.approx((served == task.numbers(test["label"])).mean())
    assert ours["n_units"] == len(test)


@pytest.mark.real
def test_the_uci_sentences_are_all_accounted_for(task: Any) -> None:
    params = compose("experiment=sentiment", "data=uci_sentences", f"data.directory={SHARED / 'sentiment'}")
    clean = task.clean(build(params["data"]).load())
    report = clean.report
    assert (report["rows_read"], report["rows_kept"]) == (2838, 2809)
    assert report["rows_read"] - report["dropped"] - report["merged"] == report["rows_kept"]
