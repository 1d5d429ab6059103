"""The house: floors hold, the library is lean, tasks stay in their folders, dvc.yaml misses nothing."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import yaml

import pipelines as paths
from runtime.code import code_lists, text_of
from runtime.facts import STAGES as PIPELINES
from tests.toys import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
HEAVY = ("zenml", "dvc", "bentoml", "hydra", "omegaconf", "evidently", "pandera", "fastapi", "typer", "rich",
         "matplotlib", "optuna", "jinja2", "lightgbm", "sqlalchemy", "alembic")  # fmt: skip
READ_RECORDS = (
    "adapters",
    "breakdown",
    "comparison",
    "intake",
    "monitor",
    "observed",
    "page",
    "pairs",
    "standing",
    "succession",
)


def test_the_library_imports_with_the_lean_set_alone() -> None:
    """On a machine that has only torch, transformers, peft, pandas, pyarrow and scikit-learn.

    Such a machine trains. Records, and the parts of the monitor that read them, belong to machines with a database.
    """
    with_database = (
        "hallmark.cli",
        "hallmark.forget",
        "hallmark.records",
        "hallmark.retrain",
        "hallmark.succeeding",
        *(f"hallmark.watch.{name}" for name in READ_RECORDS),
    )
    code = f"""
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is not on this machine", name=name)
sys.meta_path.insert(0, Absent())
import hallmark
names = [m.name for m in pkgutil.walk_packages(hallmark.__path__, "hallmark.", onerror=lambda name: None)]
for name in names:
    if not name.startswith({with_database!r}):
        importlib.import_module(name)
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    assert int(done.stdout) > 30


def test_no_module_names_a_task_outside_its_folder() -> None:
    tasks = [p.name for p in (ROOT / "hallmark" / "tasks").iterdir() if (p / "__init__.py").is_file()]
    assert len(tasks) > 1
    # "text" is also a column: it may be written, but nothing may depend on a task of that name, nor name its module.
    strings = "|".join(set(tasks) - {"text"})
    pattern = re.compile(
        rf"""['"]({strings})['"]|(==|!=|\bin)\s*\(?['"]text['"]|tasks\.({"|".join(tasks)})\b|glucose""", re.IGNORECASE
    )
    for folder in ("hallmark", "steps", "pipelines", "runtime", "bentos"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.relative_to(ROOT).parts[:2] != ("hallmark", "tasks"):
                assert not pattern.search(file.read_text()), file


def test_tasks_do_not_import_each_other() -> None:
    for file in (ROOT / "hallmark" / "tasks").rglob("*.py"):
        own = file.relative_to(ROOT / "hallmark" / "tasks").parts[0]
        named = set(re.findall(r"hallmark\.tasks\.(\w+)", file.read_text()))
        assert named <= {own}, file


def test_pipelines_write_where_dvc_looks() -> None:
    outs = {
        o if isinstance(o, str) else next(iter(o))
        for s in STAGES.values()
        for k in ("outs", "metrics", "plots")
        for o in s.get(k, [])
    }
    assert {paths.PREPARED, paths.MODEL, paths.VALIDATION, paths.BUNDLE} <= outs
    assert {paths.code_of(stage) for stage in PIPELINES} <= outs
    assert all(o.startswith(f"{paths.EVALUATION}/") for o in outs if o.startswith("reports/evaluation"))


def test_the_command_line_starts_in_about_a_second() -> None:
    import resource

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(3):  # CPU seconds, the least of three: other work on the machine is not its own
        before = spent()
        done = subprocess.run(
            [sys.executable, "-m", "hallmark.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        took.append(spent() - before)
    assert min(took) < 1.2
    assert "verify" in done.stdout


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    names = re.findall(r"(?m)^[a-z0-9-]+==", text)
    assert len(names) > 200
    assert text.count("--hash=sha256:") >= len(names)


def test_importing_anything_writes_nothing(tmp_path: object) -> None:
    code = "import pipelines.prepare, pipelines.train, pipelines.evaluate, pipelines.package"
    before = set(ROOT.iterdir())
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert set(ROOT.iterdir()) == before


def test_the_committed_lock_was_made_from_this_code_and_these_params() -> None:
    """The outputs' hashes belong to a kind of machine; the code's and the parameters' must be today's everywhere."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    lock, listed = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"], code_lists(params)
    assert set(lock) == set(STAGES) == {"code", *PIPELINES}
    for name in PIPELINES:
        digests = {dep["path"]: dep["md5"] for dep in lock[name]["deps"]}
        ours = hashlib.md5(text_of(listed[name]).encode()).hexdigest()
        assert digests[paths.code_of(name)] == ours, f"run `make repro` and commit dvc.lock ({name})"
        assert lock[name]["params"]["params.yaml"] == {key: params[key] for key in STAGES[name]["params"]}, name


def test_dvc_sees_every_pointer() -> None:
    """A pattern of .gitignore that could mean a folder hides the pointers in it: nothing could be pulled."""
    from dvc.repo import Repo

    pointers = {file.with_suffix("").resolve() for file in (ROOT / "data" / "sources").rglob("*.dvc")}
    with Repo(str(ROOT)) as repo:
        seen = {Path(out.fs_path).resolve() for out in repo.index.outs}
        assert not repo.scm.is_ignored(str(ROOT / "champions") + "/")
    assert len(pointers) >= 10
    assert pointers <= seen
