"""Load public sets of ESCO skills, job sentences, CVs and names, or simulate them.

All rows form one table; the column `kind` is the type of a row, see `KINDS`.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.build import Count, Tuple, configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import require_columns
from hallmark.tasks.cv import names, phrases

COLUMNS = ("subject_id", "kind", "text", "label", "of", "split")
"""`label` is a skill, an occupation or a group; `of` is the sentence that a span is from; `split` is learn or test."""

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
    name_lists = ((GIVEN, names.given_names()), (FAMILY, names.surnames()))
    return [(source, kind, name, "", "", "") for kind, listed_names in name_lists for name in listed_names]


@configuration
class EscoSkills:
    """Published job-advertisement sentences labelled with ESCO skills, and generated CVs of a published audit.

    Attributes:
        directory: directory of the files.
        sets: names of the annotated sets: `NAME_validation_annotations.csv` is split into train and valid,
            `NAME_test_…` is test. The first file may be missing, but not for all sets.
    """

    directory: str
    sets: Tuple[str]

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read all files."""
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
        sets_to_learn = [name for name in self.sets if (Path(self.directory) / _learned(name)).is_file()]
        for name in self.sets:
            if name in (sets_to_learn or self.sets[:1]):
                rows += _annotated(name, file(_learned(name)), LEARN)
            rows += _annotated(name, file(f"{name}_test_annotations.csv"), TEST)
        rows += _audit_cvs(_json(file("resumes_to_rank.json")))
        for sex, published in (("M", "top_mens_names.json"), ("W", "top_womens_names.json")):
            names_by_group: dict[str, list[str]] = _json(file(published))
            rows += [
                ("audit", WHOLE_NAME, name.title(), f"{group}_{sex}", "", TEST)
                for group, group_names in names_by_group.items()
                for name in group_names
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


def _annotated(name: str, path: Path, split: str) -> list[tuple[str, ...]]:
    frame = read_table(path, ("sentence", "label"), "data.directory", text=str)
    require_columns(frame, ("sentence", "label"), str(path))
    frame = frame.reindex(columns=["sentence", "span", "sub_span", "label"])  # a set may have no spans
    rows: list[tuple[str, ...]] = []
    for sentence, span, sub_span, label in frame.itertuples(index=False):
        skill = str(label).strip()
        if skill in NO_SKILL or not isinstance(sentence, str):
            continue  # the annotators found no skill that fits
        rows.append((name, SENTENCE, sentence, skill, sentence, split))
        if split == LEARN:
            pieces = (span, sub_span)
            rows += [(name, SPAN, piece, skill, sentence, split) for piece in pieces if isinstance(piece, str)]
    return rows


def _audit_cvs(occupations: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for occupation, documents in occupations.items():
        rows.append(("audit", JOB, documents["jd"], occupation, "", TEST))
        rows += [("audit", CV, text, occupation, "", TEST) for text in documents["resumes"] if SLOT in text]
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


@configuration
class SimulatedJobs:
    """Job sentences, jobs and CVs from seeded wordings: enough to fit on, without real people.

    Attributes:
        sentences: number of sentences per wording of a skill.
        cvs: number of CVs per occupation.
        seed: seed of the generator.
    """

    sentences: Count
    cvs: Count
    seed: int

    def load(self, progress: Progress = no_progress) -> Raw:
        """Generate the rows."""
        rng = np.random.default_rng(self.seed)
        rows: list[tuple[str, ...]] = []
        pools = {**phrases.SKILLS, "everywhere": phrases.GENERAL}
        for skill in [*(skill for pool in pools.values() for skill in pool), *phrases.OTHERS]:
            rows.append(("simulated", SKILL, skill, skill, "", ""))
        for occupation, pool in pools.items():
            for skill, wordings in pool.items():
                for i, wording in enumerate((skill, *wordings)):
                    split = TEST if i == len(wordings) else LEARN
                    if split == LEARN:
                        rows.append((occupation, SPAN, wording, skill, wording, split))
                    for _ in range(self.sentences):
                        rows += _demand(rng, occupation, pool, skill, i, split)
        for occupation, pool in phrases.SKILLS.items():
            rows.append((occupation, JOB, _job(rng, occupation, pool), occupation, "", TEST))
            rows += [(occupation, CV, _cv(rng, occupation, pool), occupation, "", TEST) for _ in range(self.cvs)]
        for group, group_names in names.audited().items():
            rows += [("audit", WHOLE_NAME, name, group, "", TEST) for name in group_names]
        return _raw([*rows, *_gazetteer("gazetteer")], {"simulated": self.seed})


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _demand(
    rng: np.random.Generator, occupation: str, pool: dict[str, tuple[str, ...]], skill: str, wording: int, split: str
) -> list[tuple[str, ...]]:
    """Generate a sentence that asks for one skill or, in 30% of cases, for two; one row per skill."""
    phrase = (skill, *pool[skill])[wording]
    if rng.random() < 0.3:
        other = _pick(rng, [name for name in pool if name != skill])
        text = _pick(rng, phrases.PAIRED).format(phrase, (other, *pool[other])[wording])
        return [(occupation, SENTENCE, text, name, text, split) for name in (skill, other)]
    text = _pick(rng, phrases.DEMANDS).format(phrase)
    return [(occupation, SENTENCE, text, skill, text, split)]


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
    cv_skills = rng.permutation([*pool]).tolist()
    for skills in (cv_skills[:3], cv_skills[3:5]):
        since = year - int(rng.integers(2, 6))
        lines += ["", f"{occupation.title()}, {_pick(rng, phrases.EMPLOYERS)}, {since} - {year}"]
        for skill in skills:
            phrase = _pick(rng, pool[skill])
            line = _pick(rng, phrases.DONE).format(phrase, n=int(rng.integers(2, 60)))
            lines.append(line[:2] + line[2].upper() + line[3:])
        year = since
    lines += ["", "EDUCATION", f"Diploma, {_pick(rng, phrases.PLACES)} College, {year}", "", "SKILLS"]
    for skill in rng.permutation([*phrases.GENERAL])[:2].tolist():
        lines.append("- " + _pick(rng, phrases.GENERAL[skill]).capitalize())
    return "\n".join(lines)
