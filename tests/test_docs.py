"""README and docs/ claim nothing that is not there: commands, options, files, and the Python that they show."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hallmark.build import build, build_experiment
from runtime.compose import compose_operation
from tests.toys import ROOT, compose

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.name: page.read_text() for page in PAGES}
HERE = [page for page in TEXT if page != "log.md"]  # the log tells of what was, too


@pytest.mark.parametrize("page", HERE)
def test_every_target_of_make_is_one(page: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"(?m)(?:^ {4}|`)make ([a-z]+)", TEXT[page])) <= targets


@pytest.mark.parametrize("page", HERE)
def test_every_command_of_hallmark_is_one(page: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "hallmark.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"(?m)(?:^ {4}|`)hallmark ([a-z]+)", TEXT[page])):
        assert re.search(rf"\b{command}\b", shown), command


@pytest.mark.parametrize("page", HERE)
def test_every_module_that_is_run_is_one(page: str) -> None:
    for module in set(re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)*)", TEXT[page])):
        path = ROOT / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("page", HERE)
def test_every_link_leads_to_a_file(page: str) -> None:
    base = ROOT if page == "README.md" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        assert (base / link).exists(), link


def overrides() -> list[tuple[str, ...]]:
    """The settings of every experiment that a page shows, but for those that the guides to new tasks add."""
    found = set()
    for page in HERE:
        for line in TEXT[page].splitlines():
            settings = re.findall(r"-S '?([a-z][^\s'`]*=[^\s'`]*)", line)
            settings += re.findall(r'S="([^"…]+)"', line)[:1]
            named = tuple(part for setting in settings for part in setting.split())
            if named and not {"experiment=flowers", "experiment=load", "data=mine"} & set(named):
                found.add(named)
    return sorted(found)


@pytest.mark.parametrize("settings", overrides(), ids=" ".join)
def test_every_setting_that_is_shown_composes(settings: tuple[str, ...]) -> None:
    if settings[0].startswith(("monitor.", "retrain.", "base=")):
        assert build(compose_operation(list(settings)))
    else:
        assert build_experiment(compose(*settings))["task"].name


def test_the_python_of_the_readme_runs(bundle: Path, toy: Any, tmp_path: Path) -> None:
    from tests.tasks.glucose.requests import request_of

    panel = toy.task.split_panel(toy.prepared).panel
    origin = int(panel.origins[panel.subject[panel.origins] == 0][-1])
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "glucose.json").write_text(request_of(panel, origin).model_dump_json())
    (tmp_path / "bundle").symlink_to(bundle)
    [code] = re.findall(r"```python\n(import json.*?)```", TEXT["README.md"], re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"forecast [\d.]+ 1\.0\.0\n", done.stdout)


def test_the_answer_of_the_readme_has_the_fields_of_an_answer(toy: Any) -> None:
    [shown] = re.findall(r"```json\n(.*?)```", TEXT["README.md"], re.DOTALL)
    fields = set(toy.task.response_type().model_fields)
    assert set(json.loads(shown)) <= fields
    assert {"forecast", "served_by", "provenance", "hallmark_sha256"} <= set(json.loads(shown))


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(TEXT["README.md"].splitlines()) <= 140


def test_no_merge_was_left_half_done() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [ROOT / name for name in listed if name.endswith((".md", ".py", ".yaml", ".toml"))]
    marks = tuple(sign * 7 + " " for sign in "<>")
    assert not [p for p in texts if p.is_file() and any(line.startswith(marks) for line in p.read_text().splitlines())]
