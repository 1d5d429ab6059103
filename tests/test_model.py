"""`hallmark.open`: a bundle in five lines of Python."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hallmark
from hallmark.errors import BundleError, RequestError
from tests.tasks.glucose.requests import request_of


@pytest.fixture(scope="module")
def model(bundle: Path) -> Any:
    """The toy's bundle, opened."""
    return hallmark.open(bundle)


@pytest.fixture(scope="module")
def question(toy: Any) -> dict[str, Any]:
    """A request at the end of the first subject's record, as JSON."""
    panel = toy.task.split_panel(toy.prepared).panel
    origin = int(panel.origins[panel.subject[panel.origins] == 0][-1])
    found: dict[str, Any] = json.loads(request_of(panel, origin).model_dump_json())
    return found


def test_mappings_requests_and_tables_are_answered_alike(model: Any, question: dict[str, Any]) -> None:
    request = model.task.request_type().model_validate_json(json.dumps(question))
    table = pd.DataFrame([question, {**question, "subject_id": None}])
    [expected] = model.predict([request])
    assert (expected.status, expected.hallmark_sha256, expected.model_version) == ("forecast", model.digest, "1.0.0")
    assert model.predict([question]) == [expected]
    assert model.predict(table)[0] == expected
    assert model.predict(table)[1].served_by == "base"
    assert model.predict([]) == []


def test_a_request_of_another_kind_is_named_by_place_and_field_without_its_value(
    model: Any, question: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match="request 1 is none for glucose: asked_at") as error:
        model.predict([question, {**question, "asked_at": "secret"}])
    assert "secret" not in str(error.value)


def test_it_shows_its_card_and_verifies_its_files(model: Any, bundle: Path, tmp_path: Path) -> None:
    assert model.card == (bundle / "card.md").read_text()
    assert model.verify().version == model.version == "1.0.0"
    assert repr(model).startswith("<hallmark glucose 1.0.0, sha256 ")
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    opened = hallmark.open(copy)
    (copy / "card.md").write_text("changed")
    with pytest.raises(BundleError, match=r"card\.md has sha256"):
        opened.verify()


def test_what_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle: it has no hallmark"):
        hallmark.open(tmp_path)


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import hallmark, sys; print([n for n in sys.modules if n.startswith(('hallmark.', 'torch', 'pandas'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
