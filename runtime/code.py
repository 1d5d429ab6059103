"""python -m runtime.code: write, for every stage, which code and which versions it computes with.

DVC runs this first (stage `code` of dvc.yaml, always) and decides by the files that it leaves whether the other stages
run: a stage depends on the syntax trees of the files that its pipeline and its composed `_target_`s import, and on the
versions of the distributions that these load. See docs/adr/0013-code-lists.md.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import read_params, targets
from hallmark.errors import HallmarkError
from hallmark.files import write_text
from hallmark.prove.code import CACHE, ROOT, SourceTree
from pipelines import LOCK, code_of
from runtime import versions
from runtime.facts import STAGES, sections_of

PACKAGES = ("hallmark", "steps", "pipelines", "bentos")


def code_lists(params: Mapping[str, Any], root: Path = ROOT) -> dict[str, dict[str, str]]:
    """List what every stage computes with: Python, distributions with their versions, files with their digests.

    ZenML and BentoML carry results and compute none: what only steps, pipelines and the service import counts as a
    file, not as a version.

    Args:
        params: of the run.
        root: the repository.

    Raises:
        HallmarkError: a library cannot be imported.
        SyntaxError: a file is no Python.
    """
    source = SourceTree(root, PACKAGES, root / CACHE, others_from=("hallmark",))
    code = {}
    for stage in STAGES:
        named = targets([params[section] for section in sections_of(stage)])
        code[stage] = source.imported_by([f"pipelines.{stage}", *sorted(named)])
    imports = {stage: found.others for stage, found in code.items()}
    loaded = versions.versions_of(imports, versions.pinned_by(root / LOCK), versions.cache_of(root))
    python = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    return {stage: {**python, **loaded[stage], **found.files} for stage, found in code.items()}


def text_of(listed: Mapping[str, str]) -> str:
    """Write a list: one line an entry."""
    return "".join(f"{name} {value}\n" for name, value in listed.items())


def main() -> None:
    """Write the lists that changed."""
    for stage, listed in code_lists(read_params()).items():
        path, text = Path(code_of(stage)), text_of(listed)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


if __name__ == "__main__":
    try:
        main()
    except (HallmarkError, SyntaxError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
