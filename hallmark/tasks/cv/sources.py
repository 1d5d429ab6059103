"""Sources of the CV task: a seeded generator, or public sets of ESCO skills, job sentences, CVs and names.

One table of all: `kind` says what a row is, see `KINDS`.
"""

import csv
import json
from collections.abc import Iterable
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
from hallmark.read.validation import require_columns
from hallmark.tasks.cv import names, phrases

COLUMNS = ("subject_id", "kind", "text", "label", "of", "part")
"""`label` is a skill, an occupation or a group; `of` the sentence that a span is from; `part` learn or test."""

SENTENCE, SPAN, SKILL, JOB, CV, WHOLE_NAME, GIVEN, FAMILY = (
    "sentence", "span", "skill", "job", "cv", "name", "given", "family",
)  # fmt: skip
KINDS = (SENTENCE, SPAN, SKILL, JOB, CV, WHOLE_NAME, GIVEN, FAMILY)
LEARN, TEST = "learn", "test"
SLOT = "{name}"
NO_SKILL = ("UNDERSPECIFIED", "LABEL NOT PRESENT")


def _raw(rows: Iterable[tuple[str, ...]], origin: dict[str, Any]) -> Raw:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return Raw(frame, pd.DataFrame({"subject_id": sorted(frame["subject_id"].unique())}), origin)


def _gazetteer(source: str) -> list[tuple[str, ...]]:
    listed = ((GIVEN, names.given_names()), (FAMILY, names.surnames()))
    return [(source, kind, name, "", "", "") for kind, all_of_them in listed for name in all_of_them]


@dataclass(frozen=True)
class EscoSkills:
    """Job-advertisement sentences labelled with ESCO skills, and made-up CVs of an audit, as published.

    Attributes:
        directory: of the files.
        sets: names of the annotated sets: `NAME_validation_annotations.csv` is learned from, `NAME_test_…` tested on. A
            set may have the second alone, but not all of them.
    """

    directory: str
    sets: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sets", tuple(self.sets))

    def load(self, progress: Progress = silent) -> Raw:
        """Read all of it."""
        digests: dict[str, str] = {}

        def file(name: str) -> Path:
            path = Path(self.directory) / name
            if not path.is_file():
                raise SourceError(f"{path} is not there: `dvc pull {self.directory}` (data.directory)")
            check_pointer(path)
            digests[name] = sha256(path)
            return path

        skills = [line.strip() for line in _text(file("skills_en_label.txt")).splitlines() if line.strip()]
        rows: list[tuple[str, ...]] = [("esco", SKILL, skill, skill, "", "") for skill in dict.fromkeys(skills)]
        learned = [name for name in self.sets if (Path(self.directory) / _learned(name)).is_file()]
        for name in self.sets:
            if name in (learned or self.sets[:1]):
                rows += _annotated(name, file(_learned(name)), LEARN)
            rows += _annotated(name, file(f"{name}_test_annotations.csv"), TEST)
        rows += _audit_cvs(_json(file("resumes_to_rank.json")))
        for sex, published in (("M", "top_mens_names.json"), ("W", "top_womens_names.json")):
            found: dict[str, list[str]] = _json(file(published))
            rows += [
                ("audit", WHOLE_NAME, name.title(), f"{group}_{sex}", "", TEST)
                for group, listed in found.items()
                for name in listed
            ]
        census = csv.reader(_text(file("Names_2010Census_Top1000.csv")).splitlines())
        rows += [
            ("census", FAMILY, row[0].title(), "", "", "")
            for row in census
            if len(row) > 2 and row[0].isalpha() and row[1].isdigit()
        ]
        return _raw([*rows, *_gazetteer("gazetteer")], {"sha256": digests})


def _learned(name: str) -> str:
    return f"{name}_validation_annotations.csv"


def _annotated(name: str, path: Path, part: str) -> list[tuple[str, ...]]:
    frame = read_table(path, ("sentence", "label"), "data.directory", text=str)
    require_columns(frame, ("sentence", "label"), str(path))
    frame = frame.reindex(columns=["sentence", "span", "sub_span", "label"])  # a set may mark no spans
    rows: list[tuple[str, ...]] = []
    for sentence, span, sub_span, label in frame.itertuples(index=False):
        skill = str(label).strip()
        if skill in NO_SKILL or not isinstance(sentence, str):
            continue  # the annotators found no skill that fits
        rows.append((name, SENTENCE, sentence, skill, sentence, part))
        if part == LEARN:
            pieces = (span, sub_span)
            rows += [(name, SPAN, piece, skill, sentence, part) for piece in pieces if isinstance(piece, str)]
    return rows


def _audit_cvs(found: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for occupation, given in found.items():
        rows.append(("audit", JOB, given["jd"], occupation, "", TEST))
        rows += [("audit", CV, text, occupation, "", TEST) for text in given["resumes"] if SLOT in text]
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text at byte {error.start}: save it as UTF-8") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise SourceError(f"{path} is not JSON ({error.msg} at line {error.lineno}): fetch it again") from error


@dataclass(frozen=True)
class MadeUpLabourMarket:
    """Seeded job sentences, jobs and CVs from wordings: enough to learn from, and about nobody.

    Attributes:
        sentences: a wording of a skill is used in.
        cvs: of every occupation.
        seed: of everything.
    """

    sentences: int
    cvs: int
    seed: int

    def load(self, progress: Progress = silent) -> Raw:
        """Make them."""
        rng = np.random.default_rng(self.seed)
        rows: list[tuple[str, ...]] = []
        pools = {**phrases.SKILLS, "everywhere": phrases.GENERAL}
        for skill in [*(skill for pool in pools.values() for skill in pool), *phrases.OTHERS]:
            rows.append(("made_up", SKILL, skill, skill, "", ""))
        for occupation, pool in pools.items():
            for skill, wordings in pool.items():
                for i, wording in enumerate((skill, *wordings)):
                    part = TEST if i == len(wordings) else LEARN
                    if part == LEARN:
                        rows.append((occupation, SPAN, wording, skill, wording, part))
                    for _ in range(self.sentences):
                        rows += _demand(rng, occupation, pool, skill, i, part)
        for occupation, pool in phrases.SKILLS.items():
            rows.append((occupation, JOB, _job(rng, occupation, pool), occupation, "", TEST))
            rows += [(occupation, CV, _cv(rng, occupation, pool), occupation, "", TEST) for _ in range(self.cvs)]
        for group, listed in names.audited().items():
            rows += [("audit", WHOLE_NAME, name, group, "", TEST) for name in listed]
        return _raw([*rows, *_gazetteer("gazetteer")], {"made_up": self.seed})


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _demand(
    rng: np.random.Generator, occupation: str, pool: dict[str, tuple[str, ...]], skill: str, wording: int, part: str
) -> list[tuple[str, ...]]:
    """Ask for one skill, now and then for two: one row a skill of the sentence."""
    said = (skill, *pool[skill])[wording]
    if rng.random() < 0.3:
        other = _pick(rng, [name for name in pool if name != skill])
        text = _pick(rng, phrases.PAIRED).format(said, (other, *pool[other])[wording])
        return [(occupation, SENTENCE, text, name, text, part) for name in (skill, other)]
    text = _pick(rng, phrases.DEMANDS).format(said)
    return [(occupation, SENTENCE, text, skill, text, part)]


def _job(rng: np.random.Generator, occupation: str, pool: dict[str, tuple[str, ...]]) -> str:
    wanted = [*rng.permutation([*pool])[:5].tolist(), _pick(rng, [*phrases.GENERAL])]
    lines = [f"We are hiring a {occupation}", _pick(rng, phrases.IDLE), "", "Your profile"]
    for skill in wanted:
        wordings = {**pool, **phrases.GENERAL}[skill]
        lines.append("- " + _pick(rng, phrases.DEMANDS[:4]).format(_pick(rng, (skill, *wordings))))
    return "\n".join([*lines, "", _pick(rng, phrases.IDLE)])


def _cv(rng: np.random.Generator, occupation: str, pool: dict[str, tuple[str, ...]]) -> str:
    """Write a CV with a slot for the name, contact data, two employments and skills."""
    number = int(rng.integers(1, 200))
    lines = [
        SLOT,
        f"{number} {_pick(rng, phrases.STREETS)} Street, {_pick(rng, phrases.PLACES)} | (555) {rng.integers(100, 999)}-"
        f"{rng.integers(1000, 9999)} | applicant{number}@example.org",
        f"Date of birth: {rng.integers(1, 28)} March {rng.integers(1965, 2000)}",
        f"www.example.org/applicant{number}",
        "",
        "PROFESSIONAL EXPERIENCE",
    ]
    year = int(rng.integers(2019, 2024))
    own = rng.permutation([*pool]).tolist()
    for skills in (own[:3], own[3:5]):
        since = year - int(rng.integers(2, 6))
        lines += ["", f"{occupation.title()}, {_pick(rng, phrases.EMPLOYERS)}, {since} - {year}"]
        for skill in skills:
            said = _pick(rng, pool[skill])
            line = _pick(rng, phrases.DONE).format(said, n=int(rng.integers(2, 60)))
            lines.append(line[:2] + line[2].upper() + line[3:])
        year = since
    lines += ["", "EDUCATION", f"Diploma, {_pick(rng, phrases.PLACES)} College, {year}", "", "SKILLS"]
    for skill in rng.permutation([*phrases.GENERAL])[:2].tolist():
        lines.append("- " + _pick(rng, phrases.GENERAL[skill]).capitalize())
    return "\n".join(lines)
