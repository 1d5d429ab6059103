"""python -m runtime.code: write, for every stage, which code and which versions it computes with.

DVC runs this first (stage `code` of dvc.yaml, always) and decides by the files that it leaves whether the other stages
run: a stage depends on the syntax trees of the files that its pipeline and its composed `_target_`s import, and on the
versions of the distributions that these import. See docs/adr/0013-code-lists.md.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import read_params, targets
from hallmark.errors import HallmarkError
from hallmark.files import write_text
from hallmark.prove.code import CACHE, ROOT, CodeList, SourceTree
from pipelines import code_of
from runtime.facts import STAGES, sections_of

PACKAGES = ("hallmark", "steps", "pipelines", "bentos")


def source_tree(root: Path = ROOT) -> SourceTree:
    """Return the repository's source; ZenML and BentoML carry results and compute none: their versions do not count."""
    return SourceTree(root, PACKAGES, root / CACHE, versions_from=("hallmark",))


def code_list(stage: str, params: Mapping[str, Any], source: SourceTree) -> CodeList:
    """List what a stage computes with under these parameters."""
    named = targets([params[section] for section in sections_of(stage)])
    return source.imported_by([f"pipelines.{stage}", *sorted(named)])


def main() -> None:
    """Write the lists that changed."""
    params, source = read_params(), source_tree()
    for stage in STAGES:
        path, text = Path(code_of(stage)), str(code_list(stage, params, source))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


if __name__ == "__main__":
    try:
        main()
    except (HallmarkError, SyntaxError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
