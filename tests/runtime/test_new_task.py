"""The guide to a new task, followed to the letter: its own code blocks become a task that runs end to end."""

import json
import re
from pathlib import Path

import pytest

from hallmark.prove.bundle import open_bundle
from tests.toys import ROOT
from tests.workspace import copy_repository, run

GUIDE = (ROOT / "docs" / "new-task.md").read_text()
BLOCKS = re.findall(r"```\w+\n(?:#|//) (\S+)\n(.*?)```", GUIDE, re.DOTALL)


def test_a_new_task_takes_under_a_hundred_lines() -> None:
    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(BLOCKS) == 8
    assert 50 < len(lines) < 100


@pytest.mark.slow
def test_the_guides_own_blocks_become_a_task_that_answers(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    for name, text in BLOCKS:
        assert not (where / name).exists()
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    done = run(where, "python", "-m", "runtime.repro", "-S", "experiment=flowers", "-S", "package.bento=false")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    hallmark, digest = open_bundle(where / "bundle")
    assert (hallmark.task, hallmark.version) == ("flowers", "1.0.0")
    assert hallmark.metrics["accuracy"]["test"] > 0.8
    assert [v["status"] for v in hallmark.verdicts] == ["passed"]
    said = run(where, "python", "-m", "hallmark.cli", "predict", "--json", "examples/flowers.json")
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert (answer["kind"], answer["hallmark_sha256"]) == ("setosa", digest)
    assert answer["probability"] > 0.8
    refused = run(where, "python", "-m", "hallmark.cli", "predict", "examples/sentiment.json")
    assert refused.returncode == 1
    assert "is no request for flowers" in refused.stderr
