"""python -m pipelines.deps: write every stage's code dependencies into dvc.yaml.

DVC reruns a stage only when something it lists has changed, so it must list every file of ours that the stage's
code imports: the import closure of its pipeline and of every class that its part of the configuration names, of
whatever task. A task's own folder is one dependency, named by `task.name`: editing one task runs no other anew.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from hallmark.build import targets
from hallmark.prove.provenance import ROOT, closure_files

PACKAGES = ("hallmark", "steps", "pipelines", "bentos")
# The entry point and the store are shared by all stages; what a run records about itself changes no output.
SHARED = ("hallmark.build",)
TASK = "hallmark/tasks/${task.name}"


def code_deps(stage: str, sections: list[str], conf: Path = ROOT / "conf") -> list[str]:
    """List the files that a stage's code rests on.

    Args:
        stage: name of the stage and its pipeline.
        sections: groups of conf/ whose classes it builds, any option of them.
        conf: the configuration.
    """
    named: set[str] = set()
    for section in sections:
        for file in sorted((conf / section).glob("*.yaml")):
            named |= targets(yaml.safe_load(file.read_text(encoding="utf-8")))
    found = closure_files([f"pipelines.{stage}", *SHARED, *sorted(named)], PACKAGES)
    return [file for file in found if not file.startswith("hallmark/tasks/") or file == "hallmark/tasks/__init__.py"]


def sections_of(stage: dict[str, Any]) -> list[str]:
    """List the configuration groups that a stage of dvc.yaml reads."""
    return sorted({str(param).split(".")[0] for param in stage.get("params", [])})


def main() -> None:
    """Rewrite the deps of every stage, keeping its other lines and its data."""
    path = ROOT / "dvc.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, stage in document["stages"].items():
        data = [dep for dep in stage["deps"] if not str(dep).endswith(".py") and dep != TASK]
        stage["deps"] = [*data, TASK, *code_deps(name, sections_of(stage))]
    header = "# Few, coarse stages; each runs one ZenML pipeline. `make deps` writes the code dependencies.\n"
    path.write_text(header + yaml.safe_dump(document, sort_keys=False, width=120), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
