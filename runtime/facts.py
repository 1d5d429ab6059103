"""Collect what identifies a run: git commit, digest of the parameters, digests of its DVC stage's dependencies."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from hallmark.prove.provenance import digest_of

STAGES = ("prepare", "train", "evaluate", "package")
"""Stages of dvc.yaml that run a pipeline, in order."""


def collect(params: Mapping[str, Any], deps: Mapping[str, str]) -> dict[str, Any]:
    """Collect the facts of this process's run.

    Args:
        params: parameters of the run.
        deps: digests of its dependencies, see `dependencies`.
    """
    return {
        "git_commit": _git("rev-parse", "--verify", "-q", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "params_sha256": digest_of(dict(params)),
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_deps": dict(deps),
    }


def dependencies(stage: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return path → DVC's digest for every dependency of a stage in dvc.yaml."""
    listed = [_filled(str(path), params) for path in stage_of(stage).get("deps", [])]
    return {path: digest(Path(path)) for path in listed if Path(path).exists()}


def stage_of(name: str) -> dict[str, Any]:
    """Read the entry of a stage in dvc.yaml; empty for any other name, such as that of a study."""
    entry: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].get(name, {})
    return entry


def sections_of(stage: str) -> list[str]:
    """List the sections of the parameters that a stage of dvc.yaml reads."""
    return sorted({str(param).partition(".")[0] for param in stage_of(stage).get("params", [])})


def _filled(path: str, params: Mapping[str, Any]) -> str:
    """Fill the parameters into a path of dvc.yaml, as DVC does."""
    return re.sub(r"\$\{([\w.]+)\}", lambda m: str(reduce(lambda node, key: node[key], m[1].split("."), params)), path)


def digest(path: Path) -> str:
    """Return DVC's md5 of a file or a directory; byte code is ignored, as in .dvcignore."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted(
        (f.relative_to(path).as_posix(), f) for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts
    )
    entries = [{"md5": digest(f), "relpath": name} for name, f in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], capture_output=True, text=True, check=False).stdout.strip()
