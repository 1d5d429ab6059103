"""Semantic versions: derived, never chosen."""

import pytest

from hallmark.errors import BundleError
from hallmark.prove.versions import next_version

WAS = {"schema": "a", "weights": "b", "bundle": "c"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "3.4.5"),
        ({"bundle": "x"}, "3.4.6"),
        ({"weights": "x", "bundle": "x"}, "3.5.0"),
        ({"schema": "x", "weights": "x", "bundle": "x"}, "4.0.0"),
    ],
)
def test_the_largest_change_decides(change: dict[str, str], expected: str) -> None:
    assert next_version({**WAS, **change}, {"version": "3.4.5", "digests": WAS})[0] == expected


def test_the_first_version_is_one() -> None:
    assert next_version(WAS, None) == ("1.0.0", "first version")


def test_a_release_with_a_strange_version_is_refused() -> None:
    with pytest.raises(BundleError, match=r"'v1' is not of the form 1\.2\.3"):
        next_version({**WAS, "weights": "x"}, {"version": "v1", "digests": WAS})
