"""Notebooks: stripped of outputs, and their code compiles."""

import json

import pytest

from tests.toys import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_stripped_and_code_compiles(path: object) -> None:
    for cell in json.loads(path.read_text())["cells"]:  # type: ignore[attr-defined]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            compile("".join(cell["source"]), str(path), "exec")
