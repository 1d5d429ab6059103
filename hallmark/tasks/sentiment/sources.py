"""Load labelled sentences from the UCI files or a user's table, or simulate reviews."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import Tuple, configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import rename_columns, require_columns

COLUMNS = ("subject_id", "text", "label")


@configuration
class LabelledSentences:
    """Files in the UCI layout: one file per source, one line `text TAB label` per sentence.

    Attributes:
        directory: directory of the files `NAME_labelled.txt`.
        names: names of the files to read, such as `yelp`; each becomes the subject_id of its rows.
        labels: labels in the files → labels of the task.
    """

    directory: str
    names: Tuple[str]
    labels: dict[str, str]

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read every file; a line without a label gets the label None, which cleaning counts."""
        rows: list[tuple[str, str, str | None]] = []
        digests = {}
        for name in self.names:
            paths = sorted(Path(self.directory).glob(f"{name}*_labelled.txt"))
            if not paths:
                raise SourceError(f"{self.directory}/{name}*_labelled.txt is not there: `dvc pull {self.directory}`")
            check_pointer(paths[0])
            digests[paths[0].name] = sha256(paths[0])
            try:
                lines = paths[0].read_text(encoding="utf-8").split("\n")  # other line ends belong to sentences
            except UnicodeDecodeError as error:
                raise SourceError(f"{paths[0]} is not UTF-8 text at byte {error.start}: save it as UTF-8") from error
            for line in filter(None, lines):
                text, tab, label = line.rpartition("\t")
                rows.append((name, text, self.labels.get(label.strip(), label.strip())) if tab else (name, label, None))
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        return Raw(frame, pd.DataFrame({"subject_id": list(self.names)}), {"sha256": digests})


@configuration
class TextTable:
    """A user's own CSV or Parquet file with text and label.

    Attributes:
        path: path of the file, UTF-8.
        columns: column names of this task → names in the file; without a subject_id, all rows are one source.
        labels: labels in the file → labels of the task; other labels stay as they are.
    """

    path: str
    columns: dict[str, str]
    labels: dict[str, str]

    def load(self, progress: Progress = no_progress) -> Raw:
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


@configuration
class SimulatedReviews:
    """Reviews from seeded templates: enough grammar to fit on, but scores do not carry over to real texts.

    Attributes:
        rows: number of reviews.
        noise: share of labels that are flipped.
        seed: seed of the generator.
    """

    rows: int
    noise: float
    seed: int

    def load(self, progress: Progress = no_progress) -> Raw:
        """Generate the reviews."""
        rng = np.random.default_rng(self.seed)
        reviews = [_review(rng) for _ in range(self.rows)]
        frame = pd.DataFrame(reviews, columns=list(COLUMNS))
        flipped = rng.random(self.rows) < self.noise
        opposite = frame["label"].map({"positive": "negative", "negative": "positive"})
        frame["label"] = frame["label"].where(~flipped, opposite)
        return Raw(frame, pd.DataFrame({"subject_id": sorted(_THINGS)}), {"simulated": self.seed})


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

    category = pick(sorted(_THINGS))
    item, other_item = (pick(_THINGS[category]) for _ in range(2))
    good = bool(rng.integers(2))
    adjective, opposite = (pick(_GOOD), pick(_BAD)) if good else (pick(_BAD), pick(_GOOD))
    forms = (
        f"the {item} was {adjective}",
        f"the {item} was not {opposite}",
        f"the {item} was not {opposite} but {adjective}",
        f"nobody could call the {item} {opposite}",
        f"the {item} was really {adjective}, and the {other_item} too",
        f"the {other_item} may be {opposite} but the {item} is {adjective} and that is what counts",
        f"{adjective}, that is the {item}",
        f"I expected the {item} to be {opposite} and it was {adjective}",
    )
    text = pick(_OPENERS) + pick(forms) + "." + pick(_CLOSERS)
    return category, text[0].upper() + text[1:], "positive" if good else "negative"
