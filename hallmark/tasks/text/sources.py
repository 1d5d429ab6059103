"""Load two corpora: the source corpus of pretraining, and the target corpus of adaptation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import Count, Tuple, configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer

COLUMNS = ("subject_id", "text", "domain")
SOURCE, TARGET = "source", "target"
DOMAINS = (SOURCE, TARGET)


def _raw(rows: list[tuple[str, str, str]], origin: dict[str, Any]) -> Raw:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Raw(frame, pd.DataFrame({"subject_id": sorted(frame["subject_id"].unique())}), origin)


@configuration
class TextFiles:
    """Plain-text files, cut at empty lines, or job advertisements in SkillSpan's JSON lines.

    Attributes:
        source: file of the source corpus, which the model is pretrained on.
        target: files of the target corpus, which the model is adapted to.
        paragraphs: number of paragraphs of a plain text that form one text.
    """

    source: str
    target: Tuple[str]
    paragraphs: Count

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read every file."""
        rows: list[tuple[str, str, str]] = []
        digests = {}
        for domain, names in ((SOURCE, (self.source,)), (TARGET, self.target)):
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
            content = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not UTF-8 text at byte {error.start}: save it as UTF-8") from error
        if path.suffix == ".json":
            return _advertisements(content, path)
        paragraphs = [paragraph.strip("\n") for paragraph in content.split("\n\n") if paragraph.strip()]
        return ["\n\n".join(paragraphs[i : i + self.paragraphs]) for i in range(0, len(paragraphs), self.paragraphs)]


def _advertisements(lines: str, path: Path) -> list[str]:
    sentences_by_advertisement: dict[tuple[str, int], list[str]] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            row = json.loads(line)
            sentences_by_advertisement.setdefault((row["source"], row["idx"]), []).append(" ".join(row["tokens"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{path} line {number} is no sentence with source, idx and tokens: fetch it again"
            ) from error
    return ["\n".join(sentences) for sentences in sentences_by_advertisement.values()]


@configuration
class SimulatedTexts:
    """Simulated weather reports (source corpus) and recipes (target corpus), from seeded grammars.

    A report repeats its town to the end and a recipe uses the foods that it has listed: counts of single words cannot
    predict them.

    Attributes:
        reports: number of weather reports.
        recipes: number of recipes.
        seed: seed of the generator.
    """

    reports: int
    recipes: int
    seed: int

    def load(self, progress: Progress = no_progress) -> Raw:
        """Generate the texts."""
        rng = np.random.default_rng(self.seed)
        rows = [("weather", _report(rng), SOURCE) for _ in range(self.reports)]
        rows += [("kitchen", _recipe(rng), TARGET) for _ in range(self.recipes)]
        return _raw(rows, {"simulated": self.seed})


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
