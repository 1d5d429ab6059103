"""The Bento: built without a network, the same bytes twice, and it serves what it holds."""

from pathlib import Path

import pytest
import yaml

from bentos.build import NEEDS, build_bento, pins
from hallmark.errors import BundleError
from hallmark.prove.bundle import open_bundle
from tests.toys import ROOT

LOCK = ROOT / "requirements.lock"


def test_two_builds_are_identical_and_hold_the_bundle(bundle: Path, tmp_path: Path) -> None:
    tag, digest = build_bento(bundle, LOCK, tmp_path / "home")
    assert (tag, digest) == build_bento(bundle, LOCK, tmp_path / "home")
    assert tag == "hallmark-glucose:1.0.0"
    [inside] = (tmp_path / "home" / "bentos").glob("*/*/src/hallmark-bundle")
    assert open_bundle(inside)[1] == open_bundle(bundle)[1]
    manifest = yaml.safe_load((inside.parents[1] / "bento.yaml").read_text())
    assert manifest["labels"]["hallmark_sha256"] == open_bundle(bundle)[1]


def test_every_requirement_is_pinned_by_the_lock() -> None:
    assert [p.split("==")[0] for p in pins(LOCK)] == list(NEEDS)


def test_an_unpinned_requirement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("numpy==2.0.0 \\\n")
    with pytest.raises(BundleError, match=r"does not pin transformers: run `make lock`"):
        pins(tmp_path / "lock")
