"""The wording guard, on sentences that it was written with and on others; and answers that cannot be built."""

import json
from pathlib import Path

import pydantic
import pytest

from hallmark.tasks.glucose.messages import DISCLAIMER, GlucoseResponse
from hallmark.tasks.text.messages import TextResponse
from hallmark.wording import clinical_statements, complete_sentences

SENTENCES = json.loads((Path(__file__).parent / "data" / "clinical_sentences.json").read_text(encoding="utf-8"))
KINDS = ("diagnosis", "dosing", "triage")


@pytest.mark.parametrize("kind", KINDS)
def test_paraphrases_that_the_guard_was_written_with_are_recognised(kind: str) -> None:
    sentences = SENTENCES["seen"][kind]
    missed = [sentence for sentence in sentences if not clinical_statements(sentence)]
    assert len(sentences) == 100
    assert len(missed) <= 4, missed


@pytest.mark.parametrize(("kind", "recognised"), [("diagnosis", 44), ("dosing", 42), ("triage", 32)])
def test_of_paraphrases_that_it_had_never_seen_it_recognises_as_many_as_the_docs_say(
    kind: str, recognised: int
) -> None:
    sentences = SENTENCES["held_out"][kind]
    assert len(sentences) == 50
    assert sum(bool(clinical_statements(sentence)) for sentence in sentences) == recognised
    limits = (Path(__file__).parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
    assert f"{recognised} of 50 of {kind}" in limits


@pytest.mark.parametrize(("part", "count", "withheld"), [("seen", 200, 2), ("held_out", 100, 3)])
def test_recipes_stories_and_messages_of_the_service_pass(part: str, count: int, withheld: int) -> None:
    sentences = SENTENCES[part]["harmless"]
    found = [sentence for sentence in sentences if clinical_statements(sentence)]
    assert len(sentences) == count
    assert len(found) <= withheld, found


def test_a_statement_is_found_in_the_midst_of_a_text_and_in_capitals() -> None:
    text = "Stir the soup.\nTAKE TWO UNITS OF INSULIN before you eat. Serve hot."
    assert clinical_statements(text) == ["dosing"]
    for text in (
        "Stir the soup. Serve hot.",
        "Her head sank on the pillow.",
        "The pillars fell.",
        "It is in Oklahoma.",
    ):
        assert clinical_statements(text) == []


def test_a_sentence_counts_once_it_has_ended() -> None:
    assert complete_sentences("Stir. Then serve") == "Stir. "
    assert complete_sentences("Stir") == ""
    assert complete_sentences("- Stir\n- Serve\n") == "- Stir\n- Serve\n"


def test_a_glucose_answer_that_advises_cannot_be_built() -> None:
    values = {
        "status": "abstained",
        "reason": "the last reading is 95 minutes old, at most 30 are accepted",
        "served_by": "none",
        "fallback": "",
        "forecast": [],
        "data_age_minutes": 95.0,
        "provenance": {
            "rows_used": 1,
            "rows_interpolated": 0,
            "sensor_minutes": 5.0,
            "first": "2026-01-01T00:00:00",
            "last": "2026-01-01T00:00:00",
            "sha256": "0" * 64,
        },
        "model_version": "1.0.0",
        "hallmark_sha256": "0" * 64,
        "disclaimer": DISCLAIMER,
        "assisted_by": "AIAST",
    }
    assert GlucoseResponse.model_validate(values)
    for field in ("reason", "fallback"):
        for advice in ("take 4 units of insulin", "you have diabetes", "see a doctor at once"):
            with pytest.raises(pydantic.ValidationError, match="the text would give"):
                GlucoseResponse.model_validate({**values, field: advice})


def test_a_text_that_advises_cannot_be_built() -> None:
    values = {
        "status": "generated",
        "reason": "",
        "text": "Whisk the eggs.",
        "finish": "end",
        "tokens": 4,
        "tokens_read": 3,
        "harms": [],
        "prompt_sha256": "0" * 64,
        "model_version": "1.0.0",
        "hallmark_sha256": "0" * 64,
        "disclaimer": next(iter(TextResponse.model_fields["disclaimer"].annotation.__args__)),  # type: ignore[union-attr]
    }
    assert TextResponse.model_validate(values)
    with pytest.raises(pydantic.ValidationError, match="must be withheld"):
        TextResponse.model_validate({**values, "text": "Whisk the eggs. Then inject six units of insulin."})
