"""python -m benchmarks.cache: which stages an edit would run, against what a process that imports everything says.

Seeded edits of a copy of the repository, each under one of five compositions. A stage would run when its list of code
(runtime/code.py) or its parameters differ, or a stage before it runs. The truth comes from elsewhere: files and
distributions in `sys.modules` after importing the stage's code in a process of its own (tests/oracle.py), parameters by
the keys that the pipeline's own source reads. Stale: a stage that must run and would not. Needless: the reverse.
"""

import argparse
import ast
import importlib.metadata
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hallmark.build import targets
from hallmark.prove.code import ROOT
from runtime.code import code_lists
from runtime.facts import STAGES, sections_of
from runtime.versions import normal
from tests.workspace import copy_repository

EXPERIMENTS = ("default", "cv", "sentiment", "text", "trades")
CODE = ("hallmark", "steps", "pipelines", "bentos", "runtime")


def main() -> None:
    """Edit, decide, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cache-") as scratch:
        repository = Repository(Path(scratch) / "copy")
        files, distributions = repository.oracle()
        counts: dict[str, Counter[str]] = {}
        for number in range(arguments.edits):
            kind, make = list(KINDS.items())[number % len(KINDS)]
            generator = random.Random(f"{arguments.seed}-{number}")
            experiment = generator.choice(EXPERIMENTS)
            before = repository.decisions(experiment)
            with make(repository, generator, experiment) as (changed, pinned):
                after = repository.decisions(experiment)
            decided = {stage for stage in STAGES if before[stage] != after[stage]}
            case = [f"{stage} of {experiment}" for stage in STAGES]
            must = {
                stage
                for stage, name in zip(STAGES, case, strict=True)
                if changed & files[name] or pinned & distributions[name] or changed & reads(stage)
            }
            decided, must = with_later(decided), with_later(must)
            count = counts.setdefault(kind, Counter())
            count.update(edits=1, must=len(must), ran=len(decided))
            count.update(stale=len(must - decided), needless=len(decided - must))
            if must != decided:
                what = ", ".join(sorted(changed | pinned))
                print(f"  {kind} ({what}), {experiment}: must {sorted(must)}, would {sorted(decided)}", flush=True)
    show(counts)


def show(counts: dict[str, Counter[str]]) -> None:
    """Print a line a kind, and the sum."""
    total: Counter[str] = sum(counts.values(), Counter())
    columns = ("edits", "must", "ran", "stale", "needless")
    print(f"{'':28s}" + "".join(f"{name:>10s}" for name in columns))
    for kind, count in [*counts.items(), ("all", total)]:
        print(f"{kind:28s}" + "".join(f"{count[name]:10d}" for name in columns))
    share = total["needless"] / max(total["ran"], 1)
    print(f"stages that must run and would not: {total['stale']} of {total['must']} (at most 0)")
    print(f"stages that run needlessly: {total['needless']} of {total['ran']}, {share:.1%} (at most 5%)")


def with_later(stages: set[str]) -> set[str]:
    """Add every stage after the first one: it reads what that one writes."""
    first = min((STAGES.index(stage) for stage in stages), default=len(STAGES))
    return set(STAGES[first:])


def reads(stage: str) -> set[str]:
    """Sections of the parameters that a stage's own source reads, as `section NAME`."""
    source = (ROOT / "pipelines" / f"{stage}.py").read_text(encoding="utf-8")
    if "make_bundle(params," in source:
        source += (ROOT / "steps" / "make_bundle.py").read_text(encoding="utf-8")
        package = (ROOT / "hallmark" / "stages" / "package.py").read_text(encoding="utf-8")
        made_by = re.search(r"MADE_BY = \(([^)]*)\)", package)
        assert made_by is not None
        source += "".join(f"params[{name}]" for name in made_by[1].split(","))
    return {f"section {name}" for name in re.findall(r'params\[\s*"(\w+)"\]', source)}


class Repository:
    """A copy of the repository, its compositions, and what its stages would be decided by."""

    def __init__(self, root: Path) -> None:
        self.root = root
        copy_repository(root)
        self.params = {experiment: self.composed(experiment) for experiment in EXPERIMENTS}

    def composed(self, experiment: str) -> dict[str, Any]:
        """Compose the copy's own conf/."""
        overrides = [] if experiment == "default" else [f"experiment={experiment}"]
        with initialize_config_dir(str(self.root / "conf"), version_base=None):
            found: Any = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
        return {str(name): value for name, value in found.items()}

    def decisions(self, experiment: str) -> dict[str, str]:
        """What DVC would compare of each stage: its list of code, and its parameters."""
        params = self.params[experiment]
        return {
            stage: json.dumps([listed, {section: params[section] for section in sections_of(stage)}])
            for stage, listed in code_lists(params, root=self.root).items()
        }

    def oracle(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Files of ours, and distributions, that each `stage of experiment` loads."""
        named = {
            f"{stage} of {experiment}": sorted(targets([params[section] for section in sections_of(stage)]))
            for experiment, params in self.params.items()
            for stage in STAGES
        }
        whole = {case: [f"pipelines.{case.split()[0]}", *names] for case, names in named.items()}
        # ZenML and what it needs carry results; what computes them is the library's own code.
        library = {case: [f"hallmark.stages.{case.split()[0]}", *names] for case, names in named.items()}
        owners = importlib.metadata.packages_distributions()
        files = {case: set(found) for case, (found, _) in self._look(whole).items()}
        distributions = {
            case: {normal(owner) for name in others for owner in owners.get(name, [])}
            for case, (_, others) in self._look(library, "--others").items()
        }
        return files, distributions

    def _look(self, cases: dict[str, list[str]], *options: str) -> dict[str, tuple[list[str], list[str]]]:
        done = subprocess.run(
            [sys.executable, "tests/oracle.py", *options],
            input=json.dumps(cases),
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
        assert len(lines) == len(cases), done.stderr[-2000:]
        return {case: (files, others) for case, files, others in lines}

    def sources(self, *packages: str) -> list[Path]:
        """Every source file of some packages."""
        return sorted(file for package in packages for file in (self.root / package).rglob("*.py"))

    @contextmanager
    def changed(self, file: Path, text: str, counts: bool) -> Iterator[tuple[set[str], set[str]]]:
        """Write a file for as long as the block runs; yields what the truth must look for."""
        before = file.read_text(encoding="utf-8") if file.is_file() else None
        file.write_text(text, encoding="utf-8")
        try:
            yield ({file.relative_to(self.root).as_posix()} if counts else set()), set()
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_text(before, encoding="utf-8")


def body(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A statement more in a function."""
    while True:
        file = generator.choice(repository.sources(*CODE))
        text = file.read_text(encoding="utf-8")
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and len(n.body) > 1]
        if functions:
            last = generator.choice(functions).body[-1]
            lines = text.splitlines(keepends=True)
            lines.insert(last.lineno - 1, " " * last.col_offset + "edited = 1\n")
            with_it = "".join(lines)
            try:
                ast.parse(with_it)
            except SyntaxError:  # the statement stood behind another on its line
                continue
            return repository.changed(file, with_it, True)


def constant(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """Another number somewhere in a file."""
    while True:
        file = generator.choice(repository.sources(*CODE))
        text = file.read_text(encoding="utf-8")
        numbers = [
            n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and type(n.value) in (int, float)
        ]
        if numbers:
            node = generator.choice(numbers)
            lines = text.splitlines(keepends=True)
            line = lines[node.lineno - 1].encode()
            assert node.end_col_offset is not None
            other = line[: node.col_offset] + f"{node.value + 1}".encode() + line[node.end_col_offset :]
            lines[node.lineno - 1] = other.decode()
            return repository.changed(file, "".join(lines), True)


def docstring(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """Another first line of a module: schemas may show docstrings, so they count."""
    file = generator.choice(repository.sources(*CODE))
    return repository.changed(file, file.read_text(encoding="utf-8").replace('"""', '"""Edited. ', 1), True)


def own_folder(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A statement more in the folder of the composition's task."""
    file = generator.choice(repository.sources(f"hallmark/tasks/{repository.params[experiment]['task']['name']}"))
    return repository.changed(file, file.read_text(encoding="utf-8") + "\nEDITED = 1\n", True)


def other_task(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A statement more in another task's file."""
    own = repository.root / "hallmark" / "tasks" / repository.params[experiment]["task"]["name"]
    others = [
        file for file in repository.sources("hallmark/tasks") if own not in file.parents and file.parent != own.parent
    ]
    file = generator.choice(others)
    return repository.changed(file, file.read_text(encoding="utf-8") + "\nEDITED = 1\n", True)


def comment(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A comment more."""
    file = generator.choice(repository.sources(*CODE))
    return repository.changed(file, file.read_text(encoding="utf-8") + "\n# edited\n", False)


def formatting(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """The same program in another layout."""
    file = generator.choice(repository.sources(*CODE))
    return repository.changed(file, ast.unparse(ast.parse(file.read_text(encoding="utf-8"))), False)


def test_file(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A test or a measurement edited."""
    file = generator.choice(repository.sources("tests", "benchmarks"))
    return repository.changed(file, file.read_text(encoding="utf-8") + "\nEDITED = 1\n", False)


def new_file(repository: Repository, generator: random.Random, experiment: str) -> Any:
    """A file that no module imports yet."""
    folder = generator.choice(sorted({file.parent for file in repository.sources("hallmark")}))
    return repository.changed(folder / "brand_new.py", '"""New."""\n\nX = 1\n', False)


@contextmanager
def setting(repository: Repository, generator: random.Random, experiment: str) -> Iterator[tuple[set[str], set[str]]]:
    """Another number in conf/."""
    before, wanted = repository.params[experiment], generator.random() < 0.7  # most are to change the composition
    files = sorted((repository.root / "conf").rglob("*.yaml"))
    while True:
        file = generator.choice(files)
        text = file.read_text(encoding="utf-8")
        numbers = list(re.finditer(r"(?<=: )\d+(?=[\s,}])", text))
        if not numbers:
            continue
        place = generator.choice(numbers)
        text = text[: place.start()] + str(int(place[0]) + 1) + text[place.end() :]
        try:
            yaml.safe_load(text)
        except yaml.YAMLError:
            continue
        with repository.changed(file, text, False):
            after = repository.composed(experiment)
            if wanted and after == before:
                continue
            repository.params[experiment] = after
            try:
                yield {f"section {name}" for name in after if after[name] != before.get(name)}, set()
            finally:
                repository.params[experiment] = before
        return


@contextmanager
def pin(repository: Repository, generator: random.Random, experiment: str) -> Iterator[tuple[set[str], set[str]]]:
    """Another version of a distribution of the lock, or of torch, is installed."""
    lock = (repository.root / "requirements.lock").read_text(encoding="utf-8")
    name = generator.choice([*re.findall(r"(?m)^([a-z0-9-]+)==", lock), "torch"])
    site = Path(tempfile.mkdtemp(dir=repository.root))
    metadata = site / f"{name.replace('-', '_')}-999.dist-info"  # as installers write a distribution's name
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 999\n")
    sys.path.insert(0, str(site))
    try:
        yield set(), {name}
    finally:
        sys.path.remove(str(site))
        shutil.rmtree(site)


KINDS: dict[str, Callable[[Repository, random.Random, str], Any]] = {
    "body": body,
    "constant": constant,
    "docstring": docstring,
    "the task's own folder": own_folder,
    "another task's file": other_task,
    "setting": setting,
    "installed version": pin,
    "comment": comment,
    "formatting": formatting,
    "test or benchmark": test_file,
    "new file": new_file,
}


if __name__ == "__main__":
    main()
