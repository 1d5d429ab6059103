"""Clean texts: normalise, deduplicate, and drop empty, too long or non-English ones (heuristic), with counts."""

import re
import unicodedata
from typing import Any

import numpy as np
import pandas as pd

from hallmark.read.validation import Ledger

_BREAK = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_HYPHENS = str.maketrans("\u2010\u2011\u2212", "---")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
# Common words: almost every English sentence contains one.
_ENGLISH = re.compile(
    r"\b(the|an?|and|or|but|not|no|of|to|in|on|at|for|with|from|by|as|is|are|was|were|be|been|it|its|this|that|i|you|he|she"
    r"|we|they|my|your|our|their|his|her|me|him|us|them|do|does|did|have|has|had|will|would|can|could|so|very|too|just|if"
    r"|all|what|when|there|who|how|up|out|about|than|then)\b",
    re.IGNORECASE,
)


_OTHER = re.compile(  # common words of other European languages, none of them an English word
    r"\b(der|die|das|und|nicht|ein|eine|ist|mit|für|von|le|les|des|une|est|dans|pour|avec|el|los|las|una|para|con|del|por"
    r"|il|gli|che|di|per|het|een|och|att|är)\b",
    re.IGNORECASE,
)
MIN_WORDS = 8  # from so many words on, a common word of another language decides


def normalise_line(text: str) -> str:
    """Normalise a text for models: NFC, no control characters, single spaces."""
    kinds = ((c, unicodedata.category(c)) for c in text)
    kept = "".join(" " if kind in ("Cc", "Cs") else c for c, kind in kinds if kind != "Cf")  # soft hyphens join words
    return _SPACE.sub(" ", unicodedata.normalize("NFC", kept)).strip()


def tidy(text: str) -> str:
    """Normalise a text of several lines: NFC, Unix line ends, plain hyphens, no control characters."""
    unified = _BREAK.sub("\n", unicodedata.normalize("NFC", text)).translate(_HYPHENS)
    kinds = ((c, unicodedata.category(c)) for c in unified)
    return "".join(c if c == "\n" else " " if k in ("Cc", "Cs", "Zs") else c for c, k in kinds if k != "Cf")


def key_of(text: str) -> str:
    """Return the key of a text for deduplication: lower case, without spaces, quotes and punctuation.

    Other characters stay: two texts may differ only by an emoticon.
    """
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c not in " .,!?;\"'-’“”")


def rejection_reason(text: str, longest: int, running: int = 8) -> str:
    """Return the reason why a model of English must not judge a text; empty if it may.

    A heuristic on letters and common words, not a language detector: it rejects only clear cases.

    Args:
        text: output of `normalise_line`.
        longest: largest number of characters.
        running: number of words from which a text without any common English word counts as another language; raise
            it for lists, which contain few common words.
    """
    if not text:
        return "the text is empty"
    if len(text) > longest:
        return f"the text has {len(text):,} characters, at most {longest:,} are read"
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return "the text holds no letters"
    if text.count("�") > 0.05 * len(text):
        return "the text was decoded with the wrong encoding"
    if sum(c <= "ɏ" for c in letters) < 0.5 * len(letters):
        return "the text is not in Latin letters"
    words = len(_WORD.findall(text))
    if not _ENGLISH.search(text) and (words >= running or (words >= MIN_WORDS and _OTHER.search(text))):
        return "the text does not look English"
    return ""


def clean_texts(frame: pd.DataFrame, ledger: Ledger, longest: int) -> pd.DataFrame:
    """Normalise the column `text`, and drop and count what cannot be read.

    Args:
        frame: columns subject_id and text.
        ledger: counts the rows.
        longest: largest number of characters of a text.
    """
    missing = frame["text"].isna().to_numpy() | ~frame["text"].map(lambda t: isinstance(t, str)).to_numpy(dtype=bool)
    frame = ledger.drop(frame, missing, "no text")
    clean = frame["text"].map(normalise_line)
    ledger.count("changed", "spaces or control characters normalised", frame.loc[clean != frame["text"], "subject_id"])
    frame = frame.assign(text=clean)
    why = frame["text"].map(
        lambda text: re.sub(r"[\d,]+ characters", "too many characters", rejection_reason(text, longest))
    )
    for reason in sorted(set(why) - {""}):
        ledger.count("dropped", reason, frame.loc[why == reason, "subject_id"])
    return frame[why == ""]


def merge_labelled(frame: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Keep one row per text: merge repeated rows, drop texts with different labels.

    Args:
        frame: columns subject_id, text and label.
        ledger: counts the rows.
    """
    key = frame["text"].map(key_of)
    contradictory = frame.groupby(key)["label"].transform("nunique").to_numpy() > 1
    frame = ledger.drop(frame, contradictory, "the same text with different labels")
    repeated = frame["text"].map(key_of).duplicated().to_numpy()
    ledger.count("merged", "the same text again", frame.loc[repeated, "subject_id"])
    return frame[~repeated]


def text_features(texts: "pd.Series[Any]") -> pd.DataFrame:
    """Compute numeric features of texts for the drift report; they do not reveal any text."""
    length = texts.str.len()
    length_or_one = np.maximum(length, 1)
    return pd.DataFrame(
        {
            "characters": length,
            "words": texts.str.count(r"\S+"),
            "share_upper": texts.str.count(r"[A-Z]") / length_or_one,
            "share_digits": texts.str.count(r"\d") / length_or_one,
            "share_punctuation": texts.str.count(r"[^\w\s]") / length_or_one,
            "share_not_ascii": texts.str.count(r"[^\x00-\x7f]") / length_or_one,
        }
    )
