"""No adapters and no calibration: for tasks whose rows belong to nobody, and that give no probabilities away."""

from dataclasses import dataclass
from pathlib import Path

from hallmark.files import write_json


@dataclass(frozen=True)
class Impersonal:
    """The base model answers everybody.

    Attributes:
        processes: that share the work; there is none.
    """

    processes: int

    def __post_init__(self) -> None:
        if self.processes != 1:
            raise ValueError(f"processes={self.processes}: nothing is personalised, one is enough")


def write_nobody(people: Path) -> None:
    """Write an empty table of choices."""
    write_json(people / "people.json", [])


@dataclass(frozen=True)
class Uncalibrated:
    """The model's own probabilities are used as they are."""
