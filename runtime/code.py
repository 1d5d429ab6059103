"""python -m runtime.code: write, for every stage, the list of code files and library versions that it uses.

DVC always runs this first (stage `code` of dvc.yaml), and the other stages depend on the lists: on the syntax trees of
the files that a stage's pipeline and composed `_target_`s import, and on the versions of the distributions that these
load. See docs/adr/0013-code-lists.md.
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
    """List what every stage uses: Python, distributions with their versions, files with their digests.

    ZenML and BentoML compute no results: of steps, pipelines and the service, the files are listed, but not the
    versions of what they import.

    Args:
        params: parameters of the run.
        root: directory of the repository.

    Raises:
        HallmarkError: a library cannot be imported.
        SyntaxError: a file is not valid Python.
    """
    source = SourceTree(root, PACKAGES, root / CACHE, others_from=("hallmark",))
    code = {}
    for stage in STAGES:
        built = targets([params[section] for section in sections_of(stage)])
        code[stage] = source.imported_by([f"pipelines.{stage}", *sorted(built)])
    imports = {stage: imported.others for stage, imported in code.items()}
    loaded = versions.versions_of(imports, versions.pinned_by(root / LOCK), versions.cache_of(root))
    python = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    return {stage: {**python, **loaded[stage], **imported.files} for stage, imported in code.items()}


def text_of(listed: Mapping[str, str]) -> str:
    """Format a list, one line per entry."""
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
