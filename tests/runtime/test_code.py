"""Lists of code: what DVC decides by. The oracle imports everything in a fresh process and reads `sys.modules`."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hallmark.build import targets
from hallmark.prove.code import SourceTree
from hallmark.stages.package import MADE_BY
from runtime.code import code_lists
from runtime.facts import STAGES, sections_of
from runtime.versions import pinned_by, versions_of
from tests.toys import ROOT, compose
from tests.workspace import run

EXPERIMENTS = ("default", "cv", "sentiment", "text", "trades")


@pytest.fixture(scope="module")
def oracle() -> dict[str, set[str]]:
    """Case → files of ours in `sys.modules` after its modules, and all that their functions import, were imported."""
    cases = {
        f"{stage} of {experiment}": modules_of(stage, experiment) for experiment in EXPERIMENTS for stage in STAGES
    }
    done = subprocess.run(
        [sys.executable, "tests/oracle.py"],
        input=json.dumps(cases),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('["')]
    return {case: set(files) for case, files, _ in map(json.loads, lines)}


@functools.cache
def composition(experiment: str) -> dict[str, Any]:
    """Parameters of the default composition, or of an experiment."""
    return compose(*([] if experiment == "default" else [f"experiment={experiment}"]))


def modules_of(stage: str, experiment: str) -> list[str]:
    """What a stage imports by name: its pipeline, and what the sections of its parameters name."""
    params = composition(experiment)
    return [f"pipelines.{stage}", *sorted(targets([params[section] for section in sections_of(stage)]))]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_list_names_exactly_the_files_that_a_fresh_process_loads(
    stage: str, experiment: str, oracle: dict[str, set[str]]
) -> None:
    listed = {name for name in lists(experiment)[stage] if name.endswith(".py")}
    assert listed == oracle[f"{stage} of {experiment}"]


@functools.cache
def lists(experiment: str) -> dict[str, dict[str, str]]:
    """Every stage's list."""
    return code_lists(composition(experiment))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_dvc_packages_again_when_code_changes_whose_digest_a_bundle_holds(experiment: str) -> None:
    made_by = {section: composition(experiment)[section] for section in MADE_BY}
    digested = SourceTree().imported_by(targets(made_by)).files
    assert digested.items() <= lists(experiment)["package"].items()


def test_versions_are_those_of_the_distributions_that_compute_and_no_others() -> None:
    import numpy
    import torch

    found = lists("default")
    assert found["train"]["torch"] == torch.__version__.partition("+")[0]
    assert found["train"]["numpy"] == numpy.__version__
    assert {"pyarrow", "pandas"} <= set(found["prepare"])  # pandas reads Parquet with what it does not require
    assert "torch" not in found["prepare"]
    assert "scipy" in found["evaluate"]
    for listed in found.values():
        assert not {"zenml", "bentoml", "dvc", "hydra-core", "pytest", "triton", "ruff"} & set(listed)


def test_another_version_is_another_list_and_a_build_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    def found(pinned: frozenset[str] = frozenset({"pyyaml"})) -> dict[str, str]:
        return versions_of({"group": ["yaml"]}, pinned, tmp_path / "kept.json")["group"]

    assert found() == {"pyyaml": yaml.__version__}
    assert found(frozenset({"numpy"})) == {}
    for version, expected in (("99.1+cpu", "99.1"), ("99.1", "99.1"), ("99.2", "99.2")):
        site = tmp_path / version / f"pyyaml-{version}.dist-info"
        site.mkdir(parents=True)
        (site / "METADATA").write_text(f"Metadata-Version: 2.1\nName: PyYAML\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(site.parent))
        assert found() == {"pyyaml": expected}


def test_what_is_loaded_is_kept_until_the_imports_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, pinned = tmp_path / "kept.json", frozenset({"numpy", "pyyaml"})
    first = versions_of({"a": ["yaml"], "b": ["yaml", "numpy.linalg.norm"]}, pinned, kept)
    assert (set(first["a"]), set(first["b"])) == ({"pyyaml"}, {"pyyaml", "numpy"})

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", started)
    assert versions_of({"a": ["yaml"]}, pinned, kept)["a"] == first["a"]
    with pytest.raises(AssertionError, match="was started"):
        versions_of({"a": ["numpy"]}, pinned, kept)


def test_the_lock_and_torch_are_what_counts() -> None:
    pinned = pinned_by(ROOT / "requirements.lock")
    assert {"torch", "numpy", "dvc"} <= pinned
    assert not {"triton", "nvidia-cublas"} & pinned


@pytest.fixture
def source(tmp_path: Path) -> SourceTree:
    """A small repository of one package."""
    files = {
        "box/__init__.py": "",
        "box/a.py": "import os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from box import types_only\n"
        "def f() -> int:\n    from box import lazy\n    return 1\n",
        "box/lazy.py": "from box.deep.leaf import X\n",
        "box/deep/__init__.py": "",
        "box/deep/leaf.py": "X = 1\n",
        "box/types_only.py": "",
        "box/other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return SourceTree(tmp_path, ["box"], tmp_path / "kept.json")


def again(source: SourceTree) -> SourceTree:
    """The same repository, read anew."""
    return SourceTree(source.root, source.packages, source.root / "kept.json")


def test_imports_inside_functions_and_packages_above_count_and_imports_for_types_do_not(source: SourceTree) -> None:
    assert list(source.imported_by(["box.a.f"]).files) == [
        "box/__init__.py", "box/a.py", "box/deep/__init__.py", "box/deep/leaf.py", "box/lazy.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "counts"),
    [
        ("# a comment\nX = 1\n", False),
        ("X = (\n    1\n)\n", False),
        ("X = 2\n", True),
        ('"""A docstring."""\n\nX = 1\n', True),
        ("X: int = 1\n", True),
    ],
)
def test_only_the_syntax_tree_counts(source: SourceTree, edit: str, counts: bool) -> None:
    before = source.imported_by(["box.a"])
    (source.root / "box/deep/leaf.py").write_text(edit)
    assert (again(source).imported_by(["box.a"]) != before) == counts


def test_a_damaged_cache_is_as_good_as_none(source: SourceTree) -> None:
    before = source.imported_by(["box.a"])
    (source.root / "kept.json").write_text('{"maker": "')
    assert again(source).imported_by(["box.a"]) == before


@pytest.mark.slow
def test_dvc_runs_the_list_first_and_decides_the_rest_by_it(tmp_path: Path) -> None:
    """On a pipeline of three lines: a stage without dependencies always runs, its output decides."""
    (tmp_path / "source.py").write_text("X = 1\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  code:\n    always_changed: true\n"
        "    cmd: mkdir -p code && grep -v '^#' source.py > code/train.txt\n    outs: [code/train.txt]\n"
        "  train:\n    cmd: cp code/train.txt model.txt\n    deps: [code/train.txt]\n    outs: [model.txt]\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert run(tmp_path, "dvc", "init", "-q").returncode == 0

    def ran() -> list[str]:
        done = run(tmp_path, "dvc", "repro")
        assert done.returncode == 0, done.stderr
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]

    assert ran() == ["code", "train"]
    assert ran() == ["code"]
    (tmp_path / "source.py").write_text("# a comment\nX = 1\n")
    assert ran() == ["code"]
    (tmp_path / "source.py").write_text("X = 2\n")
    assert ran() == ["code", "train"]
