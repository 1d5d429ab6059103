"""Semantic versions: derived, never chosen."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from hallmark.contracts import Verdict
from hallmark.errors import BundleError
from hallmark.prove.bundle import Contents, make_bundle
from hallmark.prove.versions import next_version, released
from hallmark.stages.evaluate import find_champion
from hallmark.stages.package import promote

WAS = {"schema": "a", "weights": "b", "bundle": "c"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "3.4.5"),
        ({"bundle": "x"}, "3.5.0"),
        ({"weights": "x", "bundle": "x"}, "3.5.0"),
        ({"schema": "x", "weights": "x", "bundle": "x"}, "4.0.0"),
    ],
)
def test_the_largest_change_decides(change: dict[str, str], expected: str) -> None:
    assert next_version({**WAS, **change}, {"version": "3.4.5", "digests": WAS})[0] == expected


def test_a_refresh_is_a_patch_so_that_no_training_shares_its_version() -> None:
    refreshed = {**WAS, "weights": "x", "bundle": "x"}
    release = {"version": "3.4.5", "digests": WAS}
    assert next_version(refreshed, release, refreshed=True) == ("3.4.6", "adapters changed, nothing trained")
    assert next_version(refreshed, release)[0] == "3.5.0"


def test_the_first_version_is_one() -> None:
    assert next_version(WAS, None) == ("1.0.0", "first version")


def test_a_release_with_a_strange_version_is_refused() -> None:
    with pytest.raises(BundleError, match=r"'v1' is not of the form 1\.2\.3"):
        next_version({**WAS, "weights": "x"}, {"version": "v1", "digests": WAS})


@pytest.mark.parametrize(
    ("status", "message"),
    [(None, "was judged by no gate"), ("skipped", "was judged by no gate"), ("failed", "was refused by gate 'g'")],
)
def test_only_what_gates_passed_is_promoted(
    status: Any, message: str, trained: Path, task: Any, tmp_path: Path
) -> None:
    verdicts = [] if status is None else [Verdict("g", status, 1.0, 2.0, "", "why")]
    made = tmp_path / "bundle"
    make_bundle(trained, contents(task.name, verdicts), made)
    (tmp_path / "champion").mkdir()
    with pytest.raises(BundleError, match=message):
        promote(made, tmp_path / "releases.json", tmp_path / "champions")
    assert not list((tmp_path / "champion").iterdir())
    assert not (tmp_path / "releases.json").exists()


def contents(task: str, verdicts: list[Verdict]) -> Contents:
    """Contents of a bundle that differ in task and verdicts alone."""
    return Contents(task, {}, [], {}, {"data": "toy"}, {}, verdicts, "# toy\n", None)


def test_every_task_has_its_own_champion(trained: Path, tmp_path: Path) -> None:
    releases, champions = tmp_path / "releases.json", tmp_path / "champions"
    verdicts = [Verdict("g", "passed", 1.0, 1.0, "", "fine")]
    for name in ("one", "two"):
        made = tmp_path / name
        make_bundle(trained, contents(name, verdicts), made)
        promote(made, releases, champions)
    assert find_champion("one", releases, champions) == champions / "one"
    assert find_champion("three", releases, champions) is None
    assert released(releases, "two")["version"] == "1.0.0"
    (champions / "two" / "card.md").write_text("changed")
    with pytest.raises(BundleError, match=r"card\.md has sha256"):
        find_champion("two", releases, champions)
    shutil.rmtree(champions / "two")
    with pytest.raises(BundleError, match=r"or take 'two' out of .*releases\.json to compare with no champion"):
        find_champion("two", releases, champions)
    releases.write_text("[")
    with pytest.raises(BundleError, match="restore it with git"):
        find_champion("one", releases, champions)
