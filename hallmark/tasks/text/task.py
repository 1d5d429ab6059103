"""The text task: text generation in a target corpus, without forgetting the source corpus."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from hallmark.build import Tuple, configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.errors import DataError
from hallmark.families.language.cleaning import key_of, text_features, tidy
from hallmark.families.language.screens import Screen
from hallmark.read.splits import GroupSplitConfig, check_groups, split_groups
from hallmark.read.validation import CleaningLimits, Ledger, require_columns
from hallmark.tasks.text.messages import DISCLAIMER, TextRequest, TextResponse
from hallmark.tasks.text.sources import COLUMNS, DOMAINS, SOURCE, TARGET

LONGEST = 100_000  # maximum characters of a text


@configuration
class TextTask:
    """Configuration and contract of the task.

    Attributes:
        name: name of the ZenML model and of the Bento.
        limits: maximum shares of dropped and changed rows; cleaning fails above them.
        split_config: how texts are split.
        screens: checks of generated text for harm.
    """

    name: str
    limits: CleaningLimits
    split_config: GroupSplitConfig
    screens: Annotated[Tuple[Screen], Field(min_length=1)]

    @property
    def purpose(self) -> str:
        """Return the intended use, for the model card."""
        return f"How a text of the new domain goes on. {DISCLAIMER}"

    @property
    def card_limits(self) -> Sequence[str]:
        """Return excluded uses and known weaknesses, for the model card."""
        return (
            "Not for stating facts, giving advice or writing in another person's name.",
            "The model of the default is small and made here: it knows the texts that it was given and no others.",
            "It may copy what it has learned from: the report gives the longest piece beside that of human texts.",
            "The screens are word lists: they know no context. The wording guard, which withholds what it takes for a "
            "diagnosis, dosing or triage, misses some.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean texts; every dropped or merged row is counted.

        Raises:
            DataError: a column is missing, too many rows are dropped, or a domain is left without a text.
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
        invalid = frame["text"].map(lambda text: not any(c.isalpha() for c in text) or len(text) > LONGEST)
        frame = ledger.drop(frame, invalid.to_numpy(dtype=bool), f"no letters, or more than {LONGEST:,} characters")
        frame = ledger.drop(
            frame, frame["text"].str.contains("�").to_numpy(dtype=bool), "decoded with the wrong encoding"
        )
        repeated = frame["text"].map(key_of).duplicated().to_numpy()
        ledger.count("merged", "the same text again", frame.loc[repeated, "subject_id"])
        frame = frame[~repeated]
        ledger.enforce(self.limits)
        for domain in DOMAINS:
            if not (frame["domain"] == domain).any():
                raise DataError(f"no text of the {domain} domain is left: the task needs both (data)")
        subjects = pd.DataFrame({"subject_id": sorted(frame["subject_id"].astype(str).unique())})
        notes = {"domains": frame["domain"].value_counts().sort_index().to_dict()}
        return Clean(frame.astype(str).reset_index(drop=True), subjects, ledger.report(len(frame), notes))

    def split(self, clean: Clean) -> pd.DataFrame:
        """Split the texts, stratified by domain."""
        strata = clean.rows["domain"].map({TARGET: "1", SOURCE: "2"})  # strata are sampled in this order
        split = split_groups(clean.rows["text"].map(key_of), strata, self.split_config)
        return pd.DataFrame({"row": np.arange(len(split)), "split": split})

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check that no text lies in two splits."""
        return check_groups(prepared.rows["text"].map(key_of), prepared.splits["split"])

    def texts(self, prepared: Prepared, domain: str, split: str) -> list[str]:
        """Select a domain's texts of a split."""
        inside = (prepared.splits["split"] == split).to_numpy() & (prepared.rows["domain"] == domain).to_numpy()
        return [str(text) for text in prepared.rows.loc[inside, "text"]]

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return lengths, character shares and domains of train and test; no text."""
        split = prepared.splits["split"]
        table = text_features(prepared.rows["text"]).assign(domain=prepared.rows["domain"].astype(object))
        return table[(split == "train").to_numpy()], table[(split == "test").to_numpy()]

    def request_type(self) -> type:
        """Return the pydantic type of a request."""
        return TextRequest

    def response_type(self) -> type:
        """Return the pydantic type of a response."""
        return TextResponse
