"""Clean texts: drop, normalise and merge rows, with counts; refuse what cannot be read."""

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
# The words of which almost every English sentence holds one.
_ENGLISH = re.compile(
    r"\b(the|an?|and|or|but|not|no|of|to|in|on|at|for|with|from|by|as|is|are|was|were|be|been|it|its|this|that|i|you|he|she"
    r"|we|they|my|your|our|their|his|her|me|him|us|them|do|does|did|have|has|had|will|would|can|could|so|very|too|just|if"
    r"|all|what|when|there|who|how|up|out|about|than|then)\b",
    re.IGNORECASE,
)


_OTHER = re.compile(  # of German, French, Spanish, Italian, Dutch, Swedish, none of them English
    r"\b(der|die|das|und|nicht|ein|eine|ist|mit|für|von|le|les|des|une|est|dans|pour|avec|el|los|las|una|para|con|del|por"
    r"|il|gli|che|di|per|het|een|och|att|är)\b",
    re.IGNORECASE,
)
FEW = 8  # words that are enough where one of them is another language's


def normal(text: str) -> str:
    """Write a text the one way that models see: NFC, no control characters, single spaces."""
    kinds = ((c, unicodedata.category(c)) for c in text)
    kept = "".join(" " if kind in ("Cc", "Cs") else c for c, kind in kinds if kind != "Cf")  # soft hyphens join words
    return _SPACE.sub(" ", unicodedata.normalize("NFC", kept)).strip()


def tidy(text: str) -> str:
    """Write a text the one way that it is read by lines: NFC, Unix line ends, plain hyphens, no control characters."""
    unified = _BREAK.sub("\n", unicodedata.normalize("NFC", text)).translate(_HYPHENS)
    kinds = ((c, unicodedata.category(c)) for c in unified)
    return "".join(c if c == "\n" else " " if k in ("Cc", "Cs", "Zs") else c for c, k in kinds if k != "Cf")


def key_of(text: str) -> str:
    """Reduce a text to lower case without spaces, quotes and stops: texts of one key are the same text.

    Other signs stay: a smile may be all that tells two texts apart.
    """
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c not in " .,!?;\"'-’“”")


def unreadable(text: str, longest: int, running: int = 8) -> str:
    """Tell why a text is none that a model of English may judge; empty if it is one.

    A guess from letters and common words, not a language detector: it refuses what is clearly something else.

    Args:
        text: as `normal` writes it.
        longest: characters.
        running: words from which a text without one of English's commonest is taken for another language; lists have
            few of them.
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
    if not _ENGLISH.search(text) and (words >= running or (words >= FEW and _OTHER.search(text))):
        return "the text does not look English"
    return ""


def clean_texts(frame: pd.DataFrame, ledger: Ledger, longest: int) -> pd.DataFrame:
    """Normalise the column `text`, and drop and count what cannot be read.

    Args:
        frame: columns subject_id and text.
        ledger: of the rows.
        longest: characters of a text.
    """
    missing = frame["text"].isna().to_numpy() | ~frame["text"].map(lambda t: isinstance(t, str)).to_numpy(dtype=bool)
    frame = ledger.drop(frame, missing, "no text")
    clean = frame["text"].map(normal)
    ledger.count("changed", "spaces or control characters normalised", frame.loc[clean != frame["text"], "subject_id"])
    frame = frame.assign(text=clean)
    why = frame["text"].map(lambda text: re.sub(r"[\d,]+ characters", "too many characters", unreadable(text, longest)))
    for reason in sorted(set(why) - {""}):
        ledger.count("dropped", reason, frame.loc[why == reason, "subject_id"])
    return frame[why == ""]


def merge_labelled(frame: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Keep one row a text: repeated ones are merged, those that contradict each other dropped.

    Args:
        frame: columns subject_id, text and label.
        ledger: of the rows.
    """
    key = frame["text"].map(key_of)
    torn = frame.groupby(key)["label"].transform("nunique").to_numpy() > 1
    frame = ledger.drop(frame, torn, "the same text with different labels")
    again = frame["text"].map(key_of).duplicated().to_numpy()
    ledger.count("merged", "the same text again", frame.loc[again, "subject_id"])
    return frame[~again]


def text_features(texts: "pd.Series[Any]") -> pd.DataFrame:
    """Describe texts by numbers that give none of them away: for drift."""
    length = texts.str.len()
    safe = np.maximum(length, 1)
    return pd.DataFrame(
        {
            "characters": length,
            "words": texts.str.count(r"\S+"),
            "share_upper": texts.str.count(r"[A-Z]") / safe,
            "share_digits": texts.str.count(r"\d") / safe,
            "share_punctuation": texts.str.count(r"[^\w\s]") / safe,
            "share_not_ascii": texts.str.count(r"[^\x00-\x7f]") / safe,
        }
    )
