"""Bundles: every byte is marked, and anything else is refused before it is loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from hallmark.contracts import Verdict
from hallmark.errors import BundleError
from hallmark.files import read_json, write_json
from hallmark.prove.bundle import Contents, make_bundle, open_accepted, open_bundle

PASSED = Verdict("rmse", "passed", 20.0, 25.0, "mg/dL", "better")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_bundle_opens_and_names_its_digest(bundle: Path) -> None:
    hallmark, digest = open_bundle(bundle)
    assert hallmark.version == "1.0.0"
    assert len(digest) == 64
    assert set(hallmark.files) > {"base/model.safetensors", "subjects/subjects.json", "calibration/offsets.safetensors"}


def test_a_flipped_bit_is_refused_at_load(copy: Path) -> None:
    file = copy / "base" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model\.safetensors has sha256 .* the file is corrupt"):
        open_bundle(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "calibration" / "offsets.safetensors").unlink()
    with pytest.raises(BundleError, match=r"offsets\.safetensors is missing"):
        open_bundle(copy)


def test_a_stranger_is_refused(copy: Path) -> None:
    (copy / "base" / "extra.json").write_text("{}")
    with pytest.raises(BundleError, match=r"extra\.json is not in the hallmark"):
        open_bundle(copy)


def test_a_truncated_manifest_is_refused(copy: Path) -> None:
    text = (copy / "hallmark.json").read_text()
    (copy / "hallmark.json").write_text(text[: len(text) // 2])
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(copy)


def test_a_later_format_is_refused(copy: Path) -> None:
    manifest = read_json(copy / "hallmark.json")
    write_json(copy / "hallmark.json", {**manifest, "format": 99})
    with pytest.raises(BundleError, match="format 99"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda found: found["metrics"]["rmse"].update({"30": 10.0}), "metrics, verdicts or card"),
        (lambda found: found["verdicts"][0].update({"status": "skipped"}), "metrics, verdicts or card"),
        (lambda found: found["verdicts"].clear(), "metrics, verdicts or card"),
        (lambda found: found["provenance"].update({"data": "other"}), "files, configuration or provenance"),
        (lambda found: found["schema"].update({"request": {}}), "schemas"),
    ],
)
def test_a_manifest_that_was_edited_is_refused(edit: Any, what: str, trained: Path, tmp_path: Path) -> None:
    make(trained, tmp_path / "bundle", None)
    manifest = read_json(tmp_path / "bundle" / "hallmark.json")
    edit(manifest)
    write_json(tmp_path / "bundle" / "hallmark.json", manifest)
    with pytest.raises(BundleError, match=f"was edited: its {what} do not have the digest"):
        open_bundle(tmp_path / "bundle")


def test_a_bundle_that_a_gate_refused_opens_for_reading_but_does_not_answer(trained: Path, tmp_path: Path) -> None:
    refused = Verdict("rmse against ridge", "failed", 30.0, 25.0, "mg/dL", "20% worse")
    make(trained, tmp_path / "bundle", None, verdict=refused)
    assert open_bundle(tmp_path / "bundle")[0].verdicts[0]["status"] == "failed"
    with pytest.raises(BundleError, match=r"was refused by gate 'rmse against ridge' \(20% worse\): it may not answer"):
        open_accepted(tmp_path / "bundle")


def test_a_pickle_never_enters_a_bundle(trained: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained, tmp_path / "model"))
    (model / "base" / "weights.pt").write_bytes(b"")
    with pytest.raises(BundleError, match=r"weights\.pt may not be in a bundle"):
        make(model, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_the_same_model_makes_the_same_bundle(trained: Path, tmp_path: Path) -> None:
    make(trained, tmp_path / "one", None)
    make(trained, tmp_path / "two", None)
    assert open_bundle(tmp_path / "one")[1] == open_bundle(tmp_path / "two")[1]


def test_versions_follow_what_changed_in_a_real_bundle(trained: Path, tmp_path: Path) -> None:
    first = make(trained, tmp_path / "first", None)
    release = {"version": first.version, "digests": dict(first.digests)}
    assert make(trained, tmp_path / "same", release).version == "1.0.0"
    assert make(trained, tmp_path / "other", release, provenance={"data": "other"}).version == "1.1.0"
    assert make(trained, tmp_path / "patch", release, {"data": "other"}, refreshed=True).version == "1.0.1"
    assert make(trained, tmp_path / "major", release, schema={"request": {}}).version == "2.0.0"
    model = Path(shutil.copytree(trained, tmp_path / "model"))
    file = model / "base" / "ridge.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert make(model, tmp_path / "minor", release).version == "1.1.0"


def make(
    model: Path,
    out: Path,
    release: Any,
    provenance: dict[str, Any] | None = None,
    schema: dict[str, Any] | None = None,
    refreshed: bool = False,
    verdict: Verdict = PASSED,
) -> Any:
    """Make a bundle with little in its manifest."""
    contents = Contents(
        task="toy",
        spec={},
        requirements=[],
        schema=schema or {},
        provenance=provenance or {},
        metrics={"rmse": {"30": 20.0}},
        verdicts=[verdict],
        card="",
        release=release,
        refreshed=refreshed,
    )
    return make_bundle(model, contents, out)
