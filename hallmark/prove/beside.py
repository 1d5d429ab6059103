"""Versions that serve beside the champion: which of them answers whom.

    served/TASK/beside.json                        challenger, its share, and subjects that are pinned to a version

Whoever is answered by the challenger is drawn by a salted hash of the id, so that it stays the same one on every
machine and in every process, and no list of ids is kept: pins, too, are digests.

Source: Kohavi, Tang and Xu 2020, Trustworthy Online Controlled Experiments, on assignment by hash.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from hallmark.errors import BundleError
from hallmark.files import read_json, write_json

FILE = "beside.json"
Mode = Literal["split", "shadow"]
BUCKETS = 100


@dataclass(frozen=True)
class Beside:
    """Who is answered by another version than the champion.

    Attributes:
        challenger: name of its directory; empty if there is none.
        mode: `split`: it answers its share; `shadow`: it only computes what it would have answered.
        share: per cent of owners that are its own.
        since: when it began, ISO with a zone.
        salt: of the hashes.
        pins: digest of an owner → name of the version that answers.
    """

    challenger: str = ""
    mode: Mode = "split"
    share: int = 0
    since: str = ""
    salt: str = field(default_factory=lambda: secrets.token_hex(8))
    pins: Mapping[str, str] = field(default_factory=dict)

    def answers(self, owner: str) -> str:
        """Return the version that answers an owner; empty for the champion."""
        pinned = self.pins.get(self.digest(owner)) if self.pins else None
        if pinned is not None:
            return pinned
        return self.challenger if self.mode == "split" and self._drawn(owner) else ""

    def shadows(self, owner: str) -> bool:
        """Tell whether the challenger computes an answer in the background."""
        return self.mode == "shadow" and self._drawn(owner)

    def _drawn(self, owner: str) -> bool:
        return bool(self.challenger) and int(self.digest(owner)[:8], 16) % BUCKETS < self.share

    def digest(self, owner: str) -> str:
        """Return the salted digest of an owner."""
        return hashlib.sha256(f"{self.salt}{owner}".encode()).hexdigest()

    @property
    def names(self) -> set[str]:
        """Versions that are needed."""
        return {name for name in (self.challenger, *self.pins.values()) if name}

    def pinned(self, owner: str, name: str) -> "Beside":
        """Return the same with an owner pinned to a version; an empty name takes the pin away."""
        pins = {key: value for key, value in self.pins.items() if key != self.digest(owner)}
        return replace(self, pins={**pins, **({self.digest(owner): name} if name else {})})

    def renamed(self, before: str, after: str) -> "Beside":
        """Return the same with another version in the place of one."""
        pins = {key: after if name == before else name for key, name in self.pins.items()}
        return replace(self, challenger=after if self.challenger == before else self.challenger, pins=pins)

    def stopped(self) -> "Beside":
        """Return the same without a challenger; pins to it are taken away, too."""
        pins = {key: name for key, name in self.pins.items() if name != self.challenger}
        return replace(self, challenger="", share=0, since="", pins=pins)


def read_beside(directory: Path) -> Beside:
    """Read who is answered by another version; nobody without the file.

    Raises:
        BundleError: it cannot be read.
    """
    file = directory / FILE
    if not file.is_file():
        return Beside()
    try:
        found = Beside(**read_json(file))
        if found.mode not in ("split", "shadow") or not 0 <= int(found.share) <= BUCKETS:
            raise ValueError(f"mode {found.mode!r}, share {found.share!r}")
    except (OSError, ValueError, TypeError) as error:
        what = f"{file} cannot be read ({type(error).__name__})"
        raise BundleError(
            f"{what}: the champion answers everybody; `hallmark challenge --stop` writes a new one"
        ) from None
    return found


def write_beside(directory: Path, beside: Beside) -> None:
    """Write it in one step; whoever reads it finds the old or the new one."""
    write_json(directory / FILE, asdict(beside))
