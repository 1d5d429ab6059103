"""Who is answered by which version: drawn by a salted hash, the same everywhere; pins; what cannot be read."""

from pathlib import Path

import pytest

from hallmark.errors import BundleError
from hallmark.files import read_json
from hallmark.prove.beside import Beside, read_beside, write_beside
from hallmark.prove.serving import ServedVersions
from tests.toys import another_version

PEOPLE = [f"person-{place}" for place in range(20_000)]


def test_the_share_is_drawn_sticks_and_grows_by_the_same_people() -> None:
    tenth = Beside(challenger="c", share=10, salt="salt")
    drawn = {who for who in PEOPLE if tenth.answers(who) == "c"}
    assert abs(len(drawn) / len(PEOPLE) - 0.1) < 0.01
    assert drawn == {who for who in PEOPLE if Beside(challenger="c", share=10, salt="salt").answers(who) == "c"}
    half = {who for who in PEOPLE if Beside(challenger="c", share=50, salt="salt").answers(who) == "c"}
    assert drawn < half
    other = {who for who in PEOPLE if Beside(challenger="c", share=10, salt="pepper").answers(who) == "c"}
    assert abs(len(drawn & other) / len(PEOPLE) - 0.01) < 0.005, "another salt draws others"


def test_the_rule_of_assignment_is_the_documented_one() -> None:
    import hashlib

    beside = Beside(challenger="c", share=37, salt="s")
    for who in PEOPLE[:500]:
        bucket = int(hashlib.sha256(f"s{who}".encode()).hexdigest()[:8], 16) % 100
        assert (beside.answers(who) == "c") == (bucket < 37)


def test_a_shadow_answers_nobody() -> None:
    shadow = Beside(challenger="c", mode="shadow", share=100, salt="s")
    assert {shadow.answers(who) for who in PEOPLE[:100]} == {""}
    assert all(shadow.shadows(who) for who in PEOPLE[:100])


def test_a_pin_goes_before_the_draw_and_names_nobody(tmp_path: Path) -> None:
    beside = Beside(challenger="c", share=100, salt="s").pinned("ada", "old")
    assert (beside.answers("ada"), beside.answers("ben")) == ("old", "c")
    write_beside(tmp_path, beside)
    assert "ada" not in (tmp_path / "beside.json").read_text()
    assert read_beside(tmp_path) == beside
    assert beside.pinned("ada", "").answers("ada") == "c"
    assert beside.renamed("old", "new").answers("ada") == "new"
    assert beside.pinned("ben", "c").stopped().names == {"old"}, "pins to a stopped challenger are gone"


@pytest.mark.parametrize("text", ["{", "[]", '{"share": 1000}', '{"mode": "loud"}', '{"what": 1}'])
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "beside.json").write_text(text)
    with pytest.raises(BundleError, match=r"beside\.json cannot be read .*: the champion answers everybody"):
        read_beside(tmp_path)
    assert ServedVersions(tmp_path.name, tmp_path.parent).beside().names == set()


def test_a_challenger_needs_a_champion_and_another_bundle(bundle: Path, tmp_path: Path) -> None:
    versions = ServedVersions("glucose", tmp_path / "served")
    with pytest.raises(BundleError, match="promote one first"):
        versions.challenge(bundle, 10, "split")
    versions.promote(bundle)
    with pytest.raises(BundleError, match="nothing can be compared with itself"):
        versions.challenge(bundle, 10, "split")
    other = another_version(bundle, tmp_path / "other", "other")
    name = versions.challenge(other, 10, "split")
    assert versions.digest() != name
    assert versions.beside().challenger == name
    with pytest.raises(BundleError, match=r"--to 9\.9\.9: no version of glucose is called so"):
        versions.pin("ada", "9.9.9")
    assert versions.pin("ada", name[:6]) == name
    assert versions.stop_challenger("0" * 16) == "", "another one is meant"
    assert versions.beside().challenger == name
    versions.promote(other)
    assert (versions.digest(), versions.beside().challenger) == (name, "")
    assert read_json(versions.directory / f"{name}.json")["promoted_over"] != ""
