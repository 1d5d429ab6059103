"""The text task: text generation in a target corpus, without forgetting the source corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.families.language.cleaning import key_of, text_features, tidy
from hallmark.families.language.screens import Screen
from hallmark.read.splits import PartsConfig, check_parts, split_groups
from hallmark.read.validation import Ledger, Limits, require_columns
from hallmark.tasks.text.messages import DISCLAIMER, TextRequest, TextResponse
from hallmark.tasks.text.sources import COLUMNS, DOMAINS

LONGEST = 100_000  # characters of a text


@dataclass(frozen=True)
class TextTask:
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        limits: when cleaning fails.
        parts: how texts are shared out.
        screens: look for harm in what is made.
    """

    name: str
    limits: Limits
    parts: PartsConfig
    screens: tuple[Screen, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "screens", tuple(self.screens))
        if not self.screens:
            raise ValueError("screens is empty: generated text must be looked at by one at least")

    @property
    def purpose(self) -> str:
        """What it is for."""
        return f"How a text of the new domain goes on. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is weak."""
        return (
            "Not for stating facts, giving advice or writing in somebody's name.",
            "The model of the default is small and made here: it knows the texts that it was given and no others.",
            "It may copy what it has learned from: the report gives the longest piece beside that of human texts.",
            "The screens are word lists: they know no context.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean texts; every dropped or merged row is counted.

        Raises:
            DataError: a column is missing, too much had to go, or a domain is left without a text.
        """
        require_columns(raw.rows, COLUMNS, "the table")
        frame = raw.rows[list(COLUMNS)].reset_index(drop=True)
        ledger = Ledger(len(frame))
        missing = ~frame["text"].map(lambda text: isinstance(text, str)).to_numpy(dtype=bool)
        frame = ledger.drop(frame, missing, "no text")
        unknown = ~frame["domain"].isin(DOMAINS).to_numpy()
        frame = ledger.drop(frame, unknown, f"a domain other than {', '.join(DOMAINS)}")
        clean = frame["text"].map(lambda text: tidy(text).strip())
        changed = frame.loc[clean != frame["text"], "subject_id"]
        ledger.count("changed", "line ends, control characters or outer spaces normalised", changed)
        frame = frame.assign(text=clean)
        bad = frame["text"].map(lambda text: not any(c.isalpha() for c in text) or len(text) > LONGEST)
        frame = ledger.drop(frame, bad.to_numpy(dtype=bool), f"no letters, or more than {LONGEST:,} characters")
        frame = ledger.drop(
            frame, frame["text"].str.contains("�").to_numpy(dtype=bool), "decoded with the wrong encoding"
        )
        again = frame["text"].map(key_of).duplicated().to_numpy()
        ledger.count("merged", "the same text again", frame.loc[again, "subject_id"])
        frame = frame[~again]
        ledger.enforce(self.limits)
        for domain in DOMAINS:
            if not (frame["domain"] == domain).any():
                raise DataError(f"no text of the {domain} domain is left: the task needs both (data)")
        subjects = pd.DataFrame({"subject_id": sorted(frame["subject_id"].astype(str).unique())})
        notes = {"domains": frame["domain"].value_counts().sort_index().to_dict()}
        return Clean(frame.astype(str).reset_index(drop=True), subjects, ledger.report(len(frame), notes))

    def split(self, clean: Clean) -> pd.DataFrame:
        """Share texts out, domains alike in every part."""
        part = split_groups(clean.rows["text"].map(key_of), clean.rows["domain"], self.parts)
        return pd.DataFrame({"row": np.arange(len(part)), "part": part})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no text lies in two parts."""
        return check_parts(prepared.rows["text"].map(key_of), prepared.splits["part"])

    def texts(self, prepared: Prepared, domain: str, part: str) -> list[str]:
        """Select a domain's texts of a part."""
        inside = (prepared.splits["part"] == part).to_numpy() & (prepared.rows["domain"] == domain).to_numpy()
        return [str(text) for text in prepared.rows.loc[inside, "text"]]

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lengths, signs and domains of train and test; no text."""
        part = prepared.splits["part"]
        table = text_features(prepared.rows["text"]).assign(domain=prepared.rows["domain"].astype(object))
        return table[(part == "train").to_numpy()], table[(part == "test").to_numpy()]

    def request_type(self) -> type:
        """The pydantic type of a request."""
        return TextRequest

    def response_type(self) -> type:
        """The pydantic type of an answer."""
        return TextResponse
