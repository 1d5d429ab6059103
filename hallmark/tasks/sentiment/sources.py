"""Sources of labelled sentences: the UCI files, or a seeded generator of reviews."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.contracts import Progress, Raw, silent
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import rename_columns, require_columns

COLUMNS = ("subject_id", "text", "label")


@dataclass(frozen=True)
class LabelledSentences:
    """The UCI layout: one file a source, a line `text TAB label`.

    Attributes:
        directory: of the files `NAME_labelled.txt`.
        names: which, such as `yelp`; the subject of every row.
        labels: the files' labels → ours.
    """

    directory: str
    names: tuple[str, ...]
    labels: dict[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))

    def load(self, progress: Progress = silent) -> Raw:
        """Read every file; a line without a label keeps None, for cleaning to count."""
        rows: list[tuple[str, str, str | None]] = []
        digests = {}
        for name in self.names:
            found = sorted(Path(self.directory).glob(f"{name}*_labelled.txt"))
            if not found:
                raise SourceError(f"{self.directory}/{name}*_labelled.txt is not there: `dvc pull {self.directory}`")
            check_pointer(found[0])
            digests[found[0].name] = sha256(found[0])
            try:
                lines = found[0].read_text(encoding="utf-8").split("\n")  # other line ends are part of sentences
            except UnicodeDecodeError as error:
                raise SourceError(f"{found[0]} is not UTF-8 text at byte {error.start}: save it as UTF-8") from error
            for line in filter(None, lines):
                text, tab, label = line.rpartition("\t")
                rows.append((name, text, self.labels.get(label.strip(), label.strip())) if tab else (name, label, None))
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        return Raw(frame, pd.DataFrame({"subject_id": list(self.names)}), {"sha256": digests})


@dataclass(frozen=True)
class TextTable:
    """One's own CSV or Parquet file with text and label.

    Attributes:
        path: of the file, UTF-8.
        columns: our names → the file's; without a subject_id everything is one source.
        labels: the file's labels → ours; others stay as they are.
    """

    path: str
    columns: dict[str, str]
    labels: dict[str, str]

    def load(self, progress: Progress = silent) -> Raw:
        """Read the file."""
        path = Path(self.path)
        frame = read_table(path, COLUMNS[1:], text=str)
        frame = rename_columns(frame, self.columns, str(path))
        require_columns(frame, ("text", "label"), str(path))
        frame["label"] = frame["label"].map(lambda label: self.labels.get(str(label), label))
        if "subject_id" not in frame:
            frame["subject_id"] = path.stem
        subjects = pd.DataFrame({"subject_id": frame["subject_id"].dropna().unique()})
        return Raw(frame[list(COLUMNS)], subjects, {"file": path.name, "sha256": sha256(path)})


@dataclass(frozen=True)
class MadeUpReviews:
    """Seeded reviews from templates: enough grammar to learn from, and says nothing about people's texts.

    Attributes:
        rows: how many.
        noise: share of labels turned over.
        seed: of everything.
    """

    rows: int
    noise: float
    seed: int

    def load(self, progress: Progress = silent) -> Raw:
        """Make them."""
        rng = np.random.default_rng(self.seed)
        made = [_review(rng) for _ in range(self.rows)]
        frame = pd.DataFrame(made, columns=list(COLUMNS))
        turned = rng.random(self.rows) < self.noise
        other = frame["label"].map({"positive": "negative", "negative": "positive"})
        frame["label"] = frame["label"].where(~turned, other)
        return Raw(frame, pd.DataFrame({"subject_id": sorted(_THINGS)}), {"made_up": self.seed})


_THINGS = {
    "films": ("film", "plot", "cast", "ending", "music", "first half", "director's cut", "dialogue"),
    "places": ("food", "service", "soup", "terrace", "waiter", "breakfast", "room", "coffee"),
    "products": ("phone", "battery", "headset", "case", "screen", "charger", "keyboard", "sound"),
}
_GOOD = ("good", "enjoyable", "great", "lovely", "excellent", "a delight", "worth every penny", "superb", "charming",
         "reliable", "fresh")  # fmt: skip
_BAD = ("bad", "boring", "disappointing", "awful", "dull", "terrible", "a waste of time", "overpriced", "dreadful",
        "careless", "flimsy", "stale")  # fmt: skip
_OPENERS = ("", "Honestly, ", "To my surprise ", "As always ", "On our second visit ", "After a week ", "I must say ")
_CLOSERS = ("", " I would come again", " I told all my friends", " We talked about it for days", " That was in March")


def _review(rng: np.random.Generator) -> tuple[str, str, str]:
    def pick(options: Any) -> str:
        return str(options[int(rng.integers(len(options)))])

    where = pick(sorted(_THINGS))
    thing, other = (pick(_THINGS[where]) for _ in range(2))
    good = bool(rng.integers(2))
    word, against = (pick(_GOOD), pick(_BAD)) if good else (pick(_BAD), pick(_GOOD))
    forms = (
        f"the {thing} was {word}",
        f"the {thing} was not {against}",
        f"the {thing} was not {against} but {word}",
        f"nobody could call the {thing} {against}",
        f"the {thing} was really {word}, and the {other} too",
        f"the {other} may be {against} but the {thing} is {word} and that is what counts",
        f"{word}, that is the {thing}",
        f"I expected the {thing} to be {against} and it was {word}",
    )
    text = pick(_OPENERS) + pick(forms) + "." + pick(_CLOSERS)
    return where, text[0].upper() + text[1:], "positive" if good else "negative"
