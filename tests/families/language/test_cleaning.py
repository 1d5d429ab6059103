"""Texts as they come: bad ones are dropped with their reason, the same one never lies in two parts."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallmark.errors import DataError, LeakageError
from hallmark.families.language.cleaning import (
    clean_texts,
    key_of,
    merge_labelled,
    normalise_line,
    rejection_reason,
    text_features,
)
from hallmark.read.splits import SPLITS, GroupSplitConfig, check_groups, split_groups
from hallmark.read.validation import Ledger


@given(st.text())
def test_a_normal_text_stays_as_it_is(text: str) -> None:
    once = normalise_line(text)
    assert normalise_line(once) == once
    assert not set(once) & set("\x00\t\n\r\x1b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        (" \t\n ", "the text is empty"),
        ("👍👍👍 10/10!!!", "the text holds no letters"),
        ("это было очень хорошо", "the text is not in Latin letters"),
        ("Das Essen war kalt und der Kellner sehr unfreundlich zu uns allen", "the text does not look English"),
        ("���� was g���d �����", "the text was decoded with the wrong encoding"),
        ("word " * 250, "the text has 1,249 characters, at most 1,000 are read"),
        ("Loved it 😍", ""),
        ("Naïve café, but the crème brûlée is to die for.", ""),
        ("Great phone", ""),
    ],
)
def test_what_no_model_of_english_may_judge_is_refused(text: str, reason: str) -> None:
    assert rejection_reason(normalise_line(text), 1000) == reason


def test_every_dropped_row_is_counted_under_its_reason() -> None:
    rows = [("a", "Good one"), ("a", None), ("a", 7), ("b", "  Two   spaces here "), ("b", ""), ("b", "😀")]
    ledger = Ledger(len(rows))
    kept = clean_texts(pd.DataFrame(rows, columns=["subject_id", "text"]), ledger, 1000)
    assert kept["text"].tolist() == ["Good one", "Two spaces here"]
    report = ledger.report(len(kept), {})
    found = {r["reason"]: r["subjects"] for r in report["reasons"]}
    assert found == {
        "no text": {"a": 2},
        "spaces or control characters normalised": {"b": 1},
        "the text is empty": {"b": 1},
        "the text holds no letters": {"b": 1},
    }


def test_signs_tell_texts_apart_and_soft_hyphens_join_words() -> None:
    assert key_of("Good :)") != key_of("Good :(")
    assert key_of("“It’s fine.”") == key_of("It's Fine")
    assert normalise_line("ter\u00adrible, ba\u200bd") == "terrible, bad"


def test_repeated_texts_merge_and_contradictions_go() -> None:
    rows = [("a", "Fine.", "good"), ("a", "fine", "good"), ("a", "Odd!", "good"), ("b", "odd", "bad")]
    ledger = Ledger(len(rows))
    kept = merge_labelled(pd.DataFrame(rows, columns=["subject_id", "text", "label"]), ledger)
    assert kept["text"].tolist() == ["Fine."]
    assert (ledger.total("merged"), ledger.total("dropped")) == (1, 2)


def test_the_same_text_lies_in_one_part_and_every_stratum_in_each() -> None:
    texts = pd.Series([f"text {i // 2}" for i in range(400)])
    strata = pd.Series(["x" if i % 4 < 2 else "y" for i in range(400)])
    part = split_groups(texts, strata, GroupSplitConfig(0.1, 0.2, 0))
    assert part.groupby(texts).nunique().eq(1).all()
    assert check_groups(texts, part) == {"train": 280, "valid": 40, "test": 80}
    assert pd.crosstab(strata, part).to_numpy().min() == 20
    assert (split_groups(texts, strata, GroupSplitConfig(0.1, 0.2, 0)) == part).all()
    assert (split_groups(texts, strata, GroupSplitConfig(0.1, 0.2, 1)) != part).any()
    # Whoever else is there may change the draw, but the order of rows may not.
    turned = split_groups(texts[::-1], strata[::-1], GroupSplitConfig(0.1, 0.2, 0))
    assert (turned.sort_index() == part).all()


def test_a_planted_twin_is_a_leak() -> None:
    texts = pd.Series(["One", "Two", "two ", "Three"])
    part = pd.Series(["train", "train", "test", "valid"])
    with pytest.raises(LeakageError, match="1 texts lie in two of train, valid, test"):
        check_groups(texts.map(key_of), part)
    assert set(part) == set(SPLITS)


def test_too_few_texts_are_named() -> None:
    with pytest.raises(DataError, match=r"no row falls into valid: 4 texts are too few for task\.split_config"):
        split_groups(pd.Series(list("abcd")), pd.Series(["x"] * 4), GroupSplitConfig(0.1, 0.2, 0))


def test_features_tell_nothing_of_the_words() -> None:
    found = text_features(pd.Series(["Hello WORLD 42!", "é"]))
    assert found["words"].tolist() == [3, 1]
    assert found["share_upper"].tolist() == [6 / 15, 0]
    assert found["share_not_ascii"].tolist() == [0, 1]
    assert all(found[c].dtype.kind in "if" for c in found)
