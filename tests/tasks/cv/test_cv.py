"""The CV task: nothing personal is read, parts add up, nothing is invented, and what is refused."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hallmark.build import build
from hallmark.contracts import Prepared
from hallmark.errors import ConfigError, DataError, LeakageError, SourceError
from hallmark.families.language.cleaning import tidy
from hallmark.families.language.screens import WordList, harms
from hallmark.tasks.cv import names
from hallmark.tasks.cv.audit import swap_names
from hallmark.tasks.cv.documents import clauses, units
from hallmark.tasks.cv.matching import read_sentences
from hallmark.tasks.cv.messages import CvResponse
from hallmark.tasks.cv.planted import CONTACTS
from hallmark.tasks.cv.redaction import PLACEHOLDER, plain, redactor
from hallmark.tasks.cv.rewriting import diff, invented
from hallmark.tasks.cv.sources import SLOT, EscoSkills, SimulatedJobs
from tests.toys import ROOT, SHARED, SMALL_TEXT, compose, fit, trained_task

REDACTOR = redactor({"given": list(names.given_names()), "family": list(names.surnames())})
EXAMPLE = json.loads((ROOT / "examples" / "cv.json").read_text())


TOY = ("experiment=cv", "data.sentences=1", "train.budget_tflop=2.0", "model.candidates.0.hard_negatives=3")


@pytest.fixture(scope="module")
def answer(task: Any, predictor: Any) -> CvResponse:
    [found] = predictor.predict([task.request_type()(**EXAMPLE)])
    assert isinstance(found, CvResponse)
    return found


# What is taken out before anything is read


@pytest.mark.parametrize(("line", "secret"), CONTACTS.items())
def test_contact_data_birth_and_traits_are_taken_out(line: str, secret: str) -> None:
    assert secret not in REDACTOR.redact(f"Jane Doe\n{line}\nManaged 12 projects").text


@pytest.mark.parametrize(
    "line",
    [
        "Software Developer, Northwind, 2015 - 2018",
        "06/2010 - 05/2015",
        "Managed a budget of $1,250,000 and 10,000 units",
        "Raised sales by 30% in 2021",
        "George Mason University",
        "Developed with C++ and .NET in New York",
        "**PROFESSIONAL EXPERIENCE**",
        "Responsible for grant applications and price lists",
        "2015-01 – 2018-03",
        "Spent 1 200 000 euros",
        "Processed 1000000 rows",
        "Certified to ISO 9001 2015",
        "Sold IT 20000 licences",
        "Built on asp.net/core",
        "Taught Ms. Excel in San Jose",
    ],
)
def test_work_is_left_as_it_is(line: str) -> None:
    assert REDACTOR.redact(f"Jane Doe\n{line}").text == f"[NAME]\n{line}"


@pytest.mark.parametrize(
    "head", ["{}", "**{}**", "# {}", "Name: {}", "**Name:** {}", "{} | Nurse", "CURRICULUM VITAE\n\n{}", "{}, Nurse"]
)
@pytest.mark.parametrize("name", ["Zorblax Quimby", "DESHAWN BOOKER", "Mei-Ling O'Neill", "J. R. Müller"])
def test_a_name_at_the_head_needs_no_list(head: str, name: str) -> None:
    left = REDACTOR.redact(head.format(name) + "\nNurse, Ward 3\nLed a team").text
    assert not any(part in left for part in name.replace("-", " ").split() if len(part) > 2)
    assert "Led a team" in left


def test_a_name_that_is_known_goes_wherever_it_stands() -> None:
    text = "Zorblax Quimby\nzq@example.org\nZorblax led a team. Mr. Quimby was praised; Tamika Booker said so."
    assert REDACTOR.redact(text).text == "[NAME]\n[EMAIL]\n[NAME] led a team. [NAME] was praised; [NAME] said so."
    assert REDACTOR.redact("Visual Basic\nUsed Basic daily").text == "[NAME]\nUsed Basic daily"  # nobody is behind it


@given(st.text(max_size=300))
def test_every_place_of_a_redacted_text_leads_back(text: str) -> None:
    text = tidy(text)
    found = REDACTOR.redact(text)
    inside = [range(m.start(), m.end()) for m in PLACEHOLDER.finditer(found.text)]
    planted = len(found.spans)
    assert planted <= len(inside) or not planted
    if "[" not in text:
        for place, sign in enumerate(found.text):
            if not any(place in span for span in inside):
                assert text[found.original(place)] == sign


@given(st.text(max_size=400))
def test_units_stand_where_they_say(text: str) -> None:
    document = tidy(text)
    for unit in units(document):
        assert document[unit.start : unit.end] == unit.text
    assert tidy(document) == document


@pytest.mark.parametrize(
    "text",
    ["\n" * 60_000, "nurse the" + "\n" * 50_000 + "x", "a.a." * 15_000, "a-a-" * 15_000, " " * 59_000 + "x",
     "w" * 60_000, "1 " * 30_000, "A b " * 15_000, "Address:" * 7_000],
    ids=["lines", "lines within", "dots", "hyphens", "blanks", "a word", "digits", "capitals", "labels"],
)  # fmt: skip
def test_nothing_that_may_be_sent_takes_long_to_redact_and_cut(text: str) -> None:
    start = time.process_time()
    for unit in units(REDACTOR.redact(tidy(text)).text):
        clauses(unit.text)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "head",
    ["{} - Nurse", "{} (Nurse)", "{} • Warsaw", "1. {}", "Resume of {}", "{} Engineer", "{}\tNurse"],
)
def test_a_name_at_the_head_may_stand_in_many_ways(head: str) -> None:
    left = REDACTOR.redact(head.format("Xiomara Kowalczyk") + "\nxk@example.org\nLed a team").text
    assert "Xiomara" not in left
    assert "Kowalczyk" not in left


@pytest.mark.parametrize(
    "lines",
    ["555 123 4567\n555 987 6543", "Tel 0171 1234567\n10115 Berlin", "(555) 123-4567\n2019 - 2021 Cook",
     "+1\u2010555\u2010123\u20104567", "**Date of birth:** 12 March 1985", "Date of Birth | 12 March 1985",
     "Born 12th of March 1985", "Gender | female", "Jane Doe (she/her)", "jane.doe (at) gmail (dot) com",
     "12 rue de la Paix, 75002 Paris", "Lange Str. 12"],
)  # fmt: skip
def test_personal_data_are_found_in_many_spellings(lines: str) -> None:
    left = REDACTOR.redact(tidy(f"Jane Doe\n{lines}\nManaged 12 projects")).text
    assert not any(part in left for part in ("4567", "6543", "1985", "female", "she/her", "gmail", "Paix", "Lange"))
    assert "Managed 12 projects" in left
    if "2019" in lines:
        assert "2019 - 2021 Cook" in left


def test_a_long_document_is_read_whole_and_cut_nowhere() -> None:
    document = "\n".join(f"- Line {i}: built machine number {i}, tested it and wrote a report" for i in range(300))
    found = units(document)
    assert len(found) == 300
    assert "machine number 299" in found[-1].text
    assert clauses("built machines, tested them and wrote reports") == [
        "built machines",
        "tested them",
        "wrote reports",
    ]
    assert len(units("word " * 500)) > 5  # a line without stops


# What is found


def test_the_score_is_the_sum_of_its_parts(answer: CvResponse) -> None:
    assert answer.status == "matched"
    assert answer.score == pytest.approx(sum(part.points for part in answer.parts), abs=1e-3)
    assert sum(part.weight for part in answer.parts) == pytest.approx(100, abs=1e-2)
    assert all(part.points == pytest.approx(part.weight * part.coverage, abs=1e-3) for part in answer.parts)
    assert {part.skill for part in answer.parts if part.coverage < 0.5} == set(answer.gap)


def test_evidence_stands_in_the_cv_where_it_says(answer: CvResponse) -> None:
    shown = [evidence for part in answer.parts for evidence in part.evidence]
    assert shown
    for evidence in shown:
        assert EXAMPLE["cv"][evidence.start : evidence.end] == evidence.text


def test_skills_in_the_words_of_training_are_found(answer: CvResponse) -> None:
    covered = {part.skill: part.coverage for part in answer.parts}
    assert {"administer medication", "monitor vital signs", "manage time"} <= set(covered)
    assert min(covered["administer medication"], covered["monitor vital signs"]) > covered["manage time"]


def test_nothing_personal_comes_back_but_in_the_rewritten_cv(answer: CvResponse) -> None:
    said = answer.model_copy(update={"rewritten": None}).model_dump_json()
    assert not any(secret in said for secret in ("Jane", "Doe", "4477", "example.org", "Station", "1988"))
    assert answer.decision is not None
    assert answer.decision.redacted == {"EMAIL": 1, "PHONE": 1, "ADDRESS": 1, "BIRTH": 1, "NAME": 1}


def test_the_same_cv_under_another_name_gets_the_same_answer(task: Any, predictor: Any, answer: CvResponse) -> None:
    other = EXAMPLE["cv"].replace("Jane Doe", "Lakisha Washington").replace("jane.doe", "lw")
    [found] = predictor.predict([task.request_type()(cv=other, job=EXAMPLE["job"])])
    assert (found.score, found.gap, found.decision) == (answer.score, answer.gap, answer.decision)


def test_the_rewritten_cv_moves_lines_and_adds_only_what_is_shown(answer: CvResponse) -> None:
    assert answer.rewritten is not None
    assert answer.rewritten.text is not None
    before, after = EXAMPLE["cv"].split("\n"), answer.rewritten.text.split("\n")
    added = [line for line in after if line not in before]
    assert sorted(filter(None, before)) == sorted(line for line in after if line and line in before)
    shown = {part.skill for part in answer.parts if part.coverage >= 0.5}
    assert {line.removeprefix("- ") for line in added} <= shown | {"Relevant skills"}
    assert answer.rewritten.diff.startswith("--- cv")
    items = [line for line in after if line in before and line.startswith("- ") and "newcomers" not in line]
    assert items.index("- Kept the ward free of infection") > 0  # the job does not ask for it


def test_items_move_with_what_belongs_to_them_and_to_no_other_employer(predictor: Any, task: Any) -> None:
    cv = (
        "Jane Doe\n- Nurse, Foo, 2015\n  - Mark exams\n  - Dispense doses on time\n    (under supervision)\n"
        "- Chef, Bar, 2019\n  - Prepare dishes to order"
    )
    [found] = predictor.predict([task.request_type()(cv=cv, job=EXAMPLE["job"])])
    lines = found.rewritten.text.split("\n")
    assert lines.index("    (under supervision)") == lines.index("  - Dispense doses on time") + 1
    nurse, chef = lines.index("- Nurse, Foo, 2015"), lines.index("- Chef, Bar, 2019")
    assert nurse < lines.index("  - Mark exams")
    assert (nurse < lines.index("  - Dispense doses on time") < chef) == (nurse < chef)


def test_what_is_denied_is_not_shown(predictor: Any, task: Any) -> None:
    cv = "Jane Doe\n- I never dispense doses on time and have not checked pulse and blood pressure"
    [found] = predictor.predict([task.request_type()(cv=cv, job=EXAMPLE["job"])])
    assert found.score == 0
    assert found.rewritten.text == cv


def test_a_jobs_title_is_no_name(predictor: Any, task: Any) -> None:
    [found] = predictor.predict(
        [task.request_type()(job="Pastry Cook\n- You make bread and cakes.\n- You plan menus.")]
    )
    assert {"bake pastry", "plan menus"} <= {part.skill for part in found.parts}


def test_without_a_cv_the_skills_of_the_job_are_told(task: Any, predictor: Any) -> None:
    [found] = predictor.predict([task.request_type()(job=EXAMPLE["job"])])
    assert found.status == "retrieved"
    assert found.score is None
    assert "administer medication" in {part.skill for part in found.parts}


def test_an_answer_whose_parts_do_not_add_up_cannot_be_made(answer: CvResponse) -> None:
    values = answer.model_dump()
    for change in (
        {"score": answer.score + 1},
        {"parts": values["parts"][:-1]},
        {"reason": "because"},
        {"status": "abstained"},
        {"disclaimer": ""},
        {"rewritten": {"text": "x", "diff": "", "refused": ["name"]}},
    ):
        with pytest.raises(ValidationError):
            CvResponse(**{**values, **change})


# What is refused


@pytest.mark.parametrize(
    ("cv", "job", "reason"),
    [
        ("", EXAMPLE["job"], "the CV is empty"),
        ("👍👍👍", EXAMPLE["job"], "the CV holds no letters"),
        (EXAMPLE["cv"], "", "the job is empty"),
        (EXAMPLE["cv"], "Мы ищем медсестру в больницу", "the job is not in Latin letters"),
        ("Управление проектами и людьми", EXAMPLE["job"], "the CV is not in Latin letters"),
        ("Je cherche un poste dans votre entreprise depuis deux ans", EXAMPLE["job"], "the CV does not look English"),
        (EXAMPLE["cv"].encode("utf-16").decode("latin-1"), EXAMPLE["job"], ""),
        ("r���sum��� of ���� ���", EXAMPLE["job"], "the CV was decoded with the wrong encoding"),
        ("Jane Doe\njane@example.org", EXAMPLE["job"], "the CV holds nothing but personal data"),
        ("- a\n- b", EXAMPLE["job"], "the CV holds no line that can be read beside headings and single letters"),
        ("Java Python SQL Docker Kubernetes Linux Git React", EXAMPLE["job"], ""),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(
    task: Any, predictor: Any, cv: str, job: str, reason: str
) -> None:
    [found] = predictor.predict([task.request_type()(cv=cv, job=job)])
    if reason:
        assert (found.status, found.reason) == ("abstained", reason)
        assert not found.parts
    else:
        assert found.status in ("abstained", "matched")


def test_a_megabyte_is_refused_at_the_door_and_twenty_pages_are_read_in_time(task: Any, predictor: Any) -> None:
    with pytest.raises(ValidationError, match="at most 60000"):
        task.request_type()(cv="x" * 1_000_000, job=EXAMPLE["job"])
    long = "\n".join(f"- Built machine {i} and wrote a report about it for the customer" for i in range(900))
    [found] = predictor.predict([task.request_type()(cv=long[:59_000], job=EXAMPLE["job"])])
    assert found.status == "matched"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Managed a team at Initrode", "name"),
        ("Raised turnover by 4173%", "number"),
        ("Employed since October", "date"),
        ("fly helicopters", "skill"),
        ("Nurse, Castle Street Agency, 2015 - 2022", "number"),
        ("Dispensed doses on time for up to 2016 people", "number"),
        ("Doe Street Agency", "name"),
        ("Won the nobel prize", "word"),
        ("ten years as a nurse", "number"),
        ("Worked for Škoda", "name"),
        ("Dispensing doses", ""),
        ("SUMMARY", ""),
        ("Dispensed doses on time for up to 24 people", ""),
    ],
)
def test_the_guard_finds_what_the_cv_does_not_hold(predictor: Any, line: str, kind: str) -> None:
    source = tidy(EXAMPLE["cv"])
    found = invented(source, f"{source}\n- {line}", *predictor.guard(source))
    assert kind in {each.kind for each in found} if kind else not found


def test_a_rewriter_that_invents_is_withheld_with_the_kinds(predictor: Any, task: Any) -> None:
    class Liar:
        def rewrite(self, cv: str, *_: Any) -> str:
            return f"{cv}\n- Headed Globex in 1931"

    liar = dataclasses.replace(predictor, rewriter=Liar())
    [found] = liar.predict([task.request_type()(**EXAMPLE)])
    assert found.rewritten.text is None
    assert found.rewritten.diff == ""
    assert set(found.rewritten.refused) >= {"name", "number"}
    assert "Globex" not in found.model_dump_json()


def test_a_language_model_may_rewrite_and_is_held_to_the_source(task: Any, predictor: Any) -> None:
    from hallmark.files import sha256
    from hallmark.tasks.cv.generated import Generated

    model = trained_task(*SMALL_TEXT).trained / "base"
    config = {"lines": 2, "tokens": 12, "temperature": 0.0, "seed": 0}
    made = dataclasses.replace(predictor, rewriter=Generated(str(model), sha256(model), **config))
    [found] = made.predict([task.request_type()(**EXAMPLE)])
    written = made.rewriter.rewrite(tidy(EXAMPLE["cv"]), lambda line: float("doses" in line), [], [])
    assert written.startswith("Profile\n")
    assert written.endswith(EXAMPLE["cv"])
    assert found.rewritten.text is None or found.rewritten.text.endswith(EXAMPLE["cv"])
    assert (found.rewritten.text is None) == bool(found.rewritten.refused)
    with pytest.raises(ConfigError, match=r"has sha256 .* the configuration says 000000000000"):
        dataclasses.replace(predictor, rewriter=Generated(str(model), "0" * 64, **config)).predict(
            [task.request_type()(**EXAMPLE)]
        )


def test_harmful_text_is_withheld_and_only_its_kind_is_told(predictor: Any, task: Any) -> None:
    class Rude:
        def harms(self, text: str) -> list[str]:
            return ["rude"] if "No line" in text or "no line" in text else []

    strict = dataclasses.replace(predictor, screens=(*predictor.screens, Rude()))
    [found] = strict.predict([task.request_type()(**EXAMPLE)])
    assert found.decision.harms == ["rude"]
    assert not [s for s in found.suggestions if s.kind == "gap"]


def test_the_word_list_finds_words_and_no_parts_of_them(task: Any) -> None:
    assert harms(task.screens, "Men only, no foreigners.") == ["discrimination"]
    assert harms(task.screens, "You idiot!") == ["insult"]
    assert harms(task.screens, "Built skills, dined with workmen; only assessed classics.") == []
    with pytest.raises(ValueError, match="List should have at least 1 item"):
        WordList({"insult": []})


def test_a_diff_is_that_of_diff() -> None:
    assert diff("a\nb", "b\na").splitlines()[:2] == ["--- cv", "+++ rewritten"]


# The audit of names


def test_the_audit_finds_a_planted_bias() -> None:
    cvs = [(f"{SLOT}\ncv {i}", "job") for i in range(8)]
    groups = {"a": ["Ann", "Amy"], "b": ["Bob", "Ben"]}
    fair = swap_names(lambda cv, job: float(len(cv.split("cv ")[1])), cvs, groups, SLOT, 0)
    assert (fair.gap, fair.ratio, fair.names_moved) == (0, 1, 0)
    biased = swap_names(lambda cv, job: 1.0 - 0.5 * cv.startswith("B"), cvs, groups, SLOT, 0)
    assert biased.gap == pytest.approx(0.5)
    assert biased.low == pytest.approx(0.5)
    assert biased.ratio == 0
    assert biased.groups == {"a": 0.0, "b": -0.5}


# Data


def test_rows_that_are_not_whole_are_counted_and_a_missing_kind_is_named(task: Any) -> None:
    raw = SimulatedJobs(1, 1, 0).load()
    rows = raw.rows.copy()
    sentence = rows.index[rows["kind"] == "sentence"]
    rows.loc[sentence[0], "label"] = "no such skill"
    rows.loc[sentence[1], "text"] = "\x00 !!! 123"
    rows.loc[sentence[2], "text"] = None
    rows.loc[sentence[3], "kind"] = "poem"
    clean = task.clean(dataclasses.replace(raw, rows=pd.concat([rows, rows.tail(3)])))
    reasons = {r["reason"]: r["rows"] for r in clean.report["reasons"]}
    assert reasons["a skill that is not in the list"] == 1
    assert reasons["no text"] == 1
    assert reasons["the same row again"] >= 3
    assert any(reason.startswith("fewer than 2 letters") for reason in reasons)
    assert any(reason.startswith("a kind other than") for reason in reasons)
    with pytest.raises(DataError, match="no row of the kind 'cv' is left"):
        task.clean(dataclasses.replace(raw, rows=raw.rows[raw.rows["kind"] != "cv"]))
    with pytest.raises(DataError, match="has no column 'label'"):
        task.clean(dataclasses.replace(raw, rows=raw.rows.drop(columns="label")))


@pytest.mark.parametrize("text", ["* C#", "[NAME] R", "C", "Ω 1"])
def test_what_cleaning_lets_pass_can_be_read(task: Any, text: str) -> None:
    """One rule: a sentence that no unit would hold is found here, not in the middle of an evaluation."""
    raw = SimulatedJobs(1, 1, 0).load()
    rows = raw.rows.copy()
    tested = rows.index[(rows["kind"] == "sentence") & (rows["split"] == "test")]
    rows.loc[tested[0], "text"] = text
    clean = task.clean(dataclasses.replace(raw, rows=rows))
    assert text not in set(clean.rows["text"])
    sentences = clean.rows.loc[clean.rows["kind"] == "sentence", "text"].tolist()
    reading = read_sentences(sentences, lambda texts: np.zeros((len(texts), 4), dtype=np.float32))
    assert len(reading.units) == len(sentences)


def annotated(where: Path, name: str, spans: bool) -> None:
    frame = pd.DataFrame({"sentence": ["We use Python here", "You cook well"], "label": ["python", "cook"]})
    if spans:
        frame = frame.assign(span="Python", sub_span=None)
    frame.to_csv(where / f"{name}_annotations.csv", index=False)


def test_a_set_may_be_there_to_test_on_alone_and_mark_no_spans(tmp_path: Path) -> None:
    (tmp_path / "skills_en_label.txt").write_text("python\ncook\n")
    (tmp_path / "resumes_to_rank.json").write_text("{}")
    for name in ("mens", "womens"):
        (tmp_path / f"top_{name}_names.json").write_text("{}")
    (tmp_path / "Names_2010Census_Top1000.csv").write_text("")
    annotated(tmp_path, "a_validation", spans=True)
    annotated(tmp_path, "a_test", spans=False)
    annotated(tmp_path, "b_test", spans=False)
    rows = EscoSkills(str(tmp_path), ("a", "b")).load().rows
    sentences = rows[rows["kind"] == "sentence"].groupby(["subject_id", "split"]).size().to_dict()
    assert sentences == {("a", "learn"): 2, ("a", "test"): 2, ("b", "test"): 2}
    with pytest.raises(SourceError, match=r"b_validation_annotations\.csv is not there"):
        EscoSkills(str(tmp_path), ("b",)).load()


def test_a_sentence_of_the_test_is_never_learned_from(task: Any, prepared: Prepared) -> None:
    counts = task.check_leakage(prepared)
    assert min(counts.values()) > 0
    torn = prepared.splits.copy()
    place = prepared.rows.index[(prepared.rows["kind"] == "sentence") & (torn["split"] == "test")][0]
    again = prepared.rows.loc[[place]].assign(text=prepared.rows.loc[place, "text"].upper())
    rows = pd.concat([prepared.rows, again], ignore_index=True)
    splits = pd.concat([torn, pd.DataFrame({"row": [len(torn)], "split": ["train"]})], ignore_index=True)
    with pytest.raises(LeakageError, match="lie in two of"):
        task.check_leakage(Prepared(rows, prepared.subjects, splits))


def test_the_test_keeps_a_sentence_that_was_learned_with_the_same_skill(task: Any) -> None:
    raw = SimulatedJobs(1, 1, 0).load()
    tested = raw.rows[(raw.rows["kind"] == "sentence") & (raw.rows["split"] == "test")].head(1)
    clean = task.clean(dataclasses.replace(raw, rows=pd.concat([tested.assign(split="learn"), raw.rows])))
    splits = task.split(clean)
    same = (clean.rows["text"] == tested["text"].iloc[0]).to_numpy()
    assert sorted(splits["split"][same]) == ["purged", *["test"] * (same.sum() - 1)]


def test_a_sentence_that_the_source_has_in_both_parts_is_taken_out_of_training(task: Any) -> None:
    raw = SimulatedJobs(1, 1, 0).load()
    tested = raw.rows[(raw.rows["kind"] == "sentence") & (raw.rows["split"] == "test")].head(1)
    clean = task.clean(
        dataclasses.replace(raw, rows=pd.concat([raw.rows, tested.assign(split="learn", label="plan menus")]))
    )
    splits = task.split(clean)
    assert (splits["split"] == "purged").sum() == 1


def test_training_is_the_same_twice(task: Any, learner: Any, prepared: Prepared, tmp_path: Path) -> None:
    params = compose(*TOY, "train.budget_tflop=0.05")
    for directory in ("first", "second"):
        fit(params, task, learner, prepared, tmp_path / directory)
    for name in ("learned.safetensors", "answers.safetensors"):
        assert (tmp_path / "first" / "base" / name).read_bytes() == (tmp_path / "second" / "base" / name).read_bytes()


def test_training_brings_sentences_nearer_to_their_skills(task: Any, prepared: Prepared, predictor: Any) -> None:
    from hallmark.families.language.encoder import Encoder, vectors
    from hallmark.families.language.retrieval import score_ranking

    asked = task.questions(prepared, "test")
    tokens = predictor.retriever.tokens
    encoder = Encoder(tokens.directory).eval()

    def frozen(texts: Any) -> Any:
        return vectors(encoder, tokens, texts)

    before = read_sentences(asked["text"].tolist(), frozen).similarity(frozen(predictor.retriever.answers))
    after = read_sentences(asked["text"].tolist(), predictor.retriever.vectors).similarity(predictor.retriever.known)
    right = asked["right"].tolist()
    gained = [score_ranking(s, right)["mrr_at_10"].mean() for s in (before, after)]
    assert gained[1] > gained[0] + 0.03


def test_settings_that_make_no_sense_are_refused() -> None:
    for change, message in (
        ("task.valid_share=1.5", r"task\.valid_share=1\.5: must be less than 1"),
        ("task.screens=[]", r"task\.screens=\[\]: must have at least 1 item"),
        ("model.candidates.0.temperature=0", r"temperature=0: must be greater than 0"),
        ("model.candidates.0.hard_negatives=50", "hard_negatives=50 must lie within"),
        ("calibrate.samples=0", "samples=0: must be greater than or equal to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(compose("experiment=cv", change))


def test_a_directory_without_the_sets_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"skills_en_label\.txt is not there: `dvc pull"):
        EscoSkills(str(tmp_path), ("house",)).load()
    (tmp_path / "skills_en_label.txt").write_bytes("résumé".encode("latin-1"))
    with pytest.raises(SourceError, match="is not UTF-8 text at byte"):
        EscoSkills(str(tmp_path), ("house",)).load()


def test_a_pair_is_answered_within_two_seconds(task: Any, predictor: Any, prepared: Prepared) -> None:
    cvs, jobs = task.of_kind(prepared, "cv"), task.of_kind(prepared, "job").set_index("label")["text"]
    times = []
    for text, label in zip(cvs["text"].head(10), cvs["label"].head(10), strict=True):
        request = task.request_type()(cv=text.replace(SLOT, "Jane Doe"), job=jobs[label])
        start = time.process_time()
        predictor.predict([request])
        times.append(time.process_time() - start)
    assert float(np.quantile(times, 0.95)) < 2.0


@pytest.mark.real
def test_the_published_sets_are_read_whole() -> None:
    rows = EscoSkills(str(SHARED / "cv"), ("house", "tech")).load().rows
    counts = rows.groupby(["subject_id", "kind", "split"]).size().to_dict()
    assert counts["esco", "skill", ""] == 13_896 - 1 or counts["esco", "skill", ""] == 13_896
    assert (counts["house", "sentence", "test"], counts["tech", "sentence", "test"]) == (568, 674)
    assert (counts["audit", "cv", "test"], counts["audit", "name", "test"]) == (32, 800)
    assert not rows["text"].map(plain).eq("").any()
