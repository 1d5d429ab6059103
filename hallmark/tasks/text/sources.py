"""Sources of two corpora: the source corpus that a model knows, and the target corpus that it adapts to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.contracts import Progress, Raw, silent
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer

COLUMNS = ("subject_id", "text", "domain")
OLD, NEW = "old", "new"
DOMAINS = (OLD, NEW)


def _raw(rows: list[tuple[str, str, str]], origin: dict[str, Any]) -> Raw:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Raw(frame, pd.DataFrame({"subject_id": sorted(frame["subject_id"].unique())}), origin)


@dataclass(frozen=True)
class TextFiles:
    """Plain texts, one file a domain, cut at empty lines; or advertisements in SkillSpan's JSON lines.

    Attributes:
        old: file of what the model knows, or learns first.
        new: files of what it adapts to.
        paragraphs: of a plain text that make one text together.
    """

    old: str
    new: tuple[str, ...]
    paragraphs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "new", tuple(self.new))
        if self.paragraphs < 1:
            raise ValueError(f"paragraphs={self.paragraphs} must be at least 1")

    def load(self, progress: Progress = silent) -> Raw:
        """Read every file."""
        rows: list[tuple[str, str, str]] = []
        digests = {}
        for domain, names in ((OLD, (self.old,)), (NEW, self.new)):
            for name in names:
                path = Path(name)
                if not path.is_file():
                    raise SourceError(f"{path} is not there: `dvc pull {path}`, or set data.{domain}")
                check_pointer(path)
                digests[path.name] = sha256(path)
                rows += [(path.stem, text, domain) for text in self._texts(path)]
        return _raw(rows, {"sha256": digests})

    def _texts(self, path: Path) -> list[str]:
        try:
            whole = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not UTF-8 text at byte {error.start}: save it as UTF-8") from error
        if path.suffix == ".json":
            return _advertisements(whole, path)
        parts = [part.strip("\n") for part in whole.split("\n\n") if part.strip()]
        return ["\n\n".join(parts[i : i + self.paragraphs]) for i in range(0, len(parts), self.paragraphs)]


def _advertisements(lines: str, path: Path) -> list[str]:
    found: dict[tuple[str, int], list[str]] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            row = json.loads(line)
            found.setdefault((row["source"], row["idx"]), []).append(" ".join(row["tokens"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{path} line {number} is no sentence with source, idx and tokens: fetch it again"
            ) from error
    return ["\n".join(sentences) for sentences in found.values()]


@dataclass(frozen=True)
class MadeUpTexts:
    """Seeded weather reports, which are known, and recipes, which are new: grammars with something to remember.

    A report speaks of its town to the end, a recipe uses what it has listed: what counts single words cannot know.

    Attributes:
        reports: how many.
        recipes: how many.
        seed: of everything.
    """

    reports: int
    recipes: int
    seed: int

    def load(self, progress: Progress = silent) -> Raw:
        """Make them."""
        rng = np.random.default_rng(self.seed)
        rows = [("weather", _report(rng), OLD) for _ in range(self.reports)]
        rows += [("kitchen", _recipe(rng), NEW) for _ in range(self.recipes)]
        return _raw(rows, {"made_up": self.seed})


def _pick(rng: np.random.Generator, options: Any, count: int = 1) -> Any:
    chosen = [options[int(i)] for i in rng.permutation(len(options))[:count]]
    return chosen if count > 1 else chosen[0]


_TOWNS = ("Ashford", "Riverton", "Lakeside", "Milton", "Fairview", "Oldbridge", "Westhaven", "Norwood", "Kingsport",
          "Elmstead", "Harlow", "Brookfield")  # fmt: skip
_SKIES = ("clear", "cloudy", "overcast", "foggy", "bright", "grey")
_WINDS = ("north", "east", "south", "west")
_FORCES = ("light", "moderate", "fresh", "strong")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _report(rng: np.random.Generator) -> str:
    town, day, wind = _pick(rng, _TOWNS), int(rng.integers(7)), _pick(rng, _WINDS)
    morning, force = _pick(rng, _SKIES), _pick(rng, _FORCES)
    low = int(rng.integers(-5, 20))
    high = low + int(rng.integers(3, 12))
    rain = rng.random() < 0.5
    lines = [
        f"Weather for {town} on {_DAYS[day]}.",
        f"The morning in {town} begins {morning} with {low} degrees and a {force} {wind} wind.",
        f"By noon it is {_pick(rng, _SKIES)}, and the thermometer rises to {high} degrees.",
        "Rain comes in the evening, so take an umbrella." if rain else "It stays dry in the evening.",
        f"The wind from the {wind} goes on through the night.",
        f"On {_DAYS[(day + 1) % 7]} {town} will be {'wet' if rain else 'dry'} again.",
    ]
    return "\n".join(lines)


_FOODS = ("carrots", "onions", "potatoes", "lentils", "tomatoes", "mushrooms", "leeks", "beans", "peppers", "apples",
          "pears", "plums", "cabbage", "spinach", "rice", "barley")  # fmt: skip
_DISHES = ("soup", "stew", "pie", "salad", "casserole", "curry")
_SPICES = ("salt", "pepper", "thyme", "cumin", "parsley", "nutmeg", "ginger")
_CUTS = ("Chop", "Slice", "Dice", "Peel", "Wash")


def _recipe(rng: np.random.Generator) -> str:
    foods = _pick(rng, _FOODS, 3)
    dish, spice = _pick(rng, _DISHES), _pick(rng, _SPICES)
    grams = [50 * int(rng.integers(2, 12)) for _ in foods]
    minutes = 5 * int(rng.integers(2, 12))
    people = int(rng.integers(2, 9))
    lines = [
        f"{foods[0].capitalize()} {dish} for {people}",
        *(f"- {amount} g of {food}" for amount, food in zip(grams, foods, strict=True)),
        f"- a pinch of {spice}",
        f"{_pick(rng, _CUTS)} the {foods[0]} and the {foods[1]}.",
        f"Add the {foods[2]} and simmer for {minutes} minutes.",
        f"Season the {dish} with {spice}.",
        f"Serves {people}.",
    ]
    return "\n".join(lines)
