"""python -m runtime.repro [-S KEY=VALUE …]: `dvc repro`, or with -S `dvc exp run`; every failure prints one line.

DVC runs in this process and prints only what a user can act on. The configuration is composed and built before DVC
changes any file, so that a misspelt key has no effect. Stages run in forks of this process: Python, torch and ZenML
are loaded once instead of four times.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hallmark import kernels
from hallmark.errors import INTERRUPTED, HallmarkError
from runtime import experiment, forked, store
from runtime.interrupt import raise_on_sigint

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run the stages; return the exit status: 0, 1, or 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m runtime.repro", description=__doc__)
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="override of conf/")
    parser.add_argument("-n", "--name", help="name of the experiment")
    parser.add_argument("-f", "--force", action="store_true", help="run stages that did not change, too")
    parser.add_argument("targets", nargs="*", help="stages; all if none is named")
    options = parser.parse_args(arguments)
    raise_on_sigint()
    try:
        kernels.pin()
        return _run(options)
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"error: {INTERRUPTED}", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    _refuse_second()
    from hallmark.build import check_sections, read_params

    if options.set:
        from runtime.compose import compose, without_null_groups

        options.set = without_null_groups(options.set)

        with tempfile.TemporaryDirectory() as scratch:
            compose(Path(scratch) / "params.yaml", options.set)
    else:
        check_sections(read_params())  # the stages build the objects
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    messages = _listen()
    try:
        with Repo(str(ROOT)) as repo, _stages_in_forks():
            shared: dict[str, Any] = {"targets": options.targets or None, "force": options.force}
            if options.set:
                repo.experiments.run(params=options.set, name=options.name, **shared)
            else:
                repo.reproduce(**shared)
    except DvcException as error:
        code, line = explain(error)
        if line:
            print(f"error: {line}", file=sys.stderr)
        if options.set:
            with Repo(str(ROOT)) as repo, suppress(DvcException):
                if not messages.ran:  # a stage that fails does both itself
                    experiment.restore()
                    repo.checkout(
                        allow_missing=True
                    )  # DVC had removed the outputs of the stage that it could not start
                repo.reproduce(targets=["code"])  # dvc.lock then has the code lists of the restored parameters
        return code
    if not options.targets:
        _finish(messages.ran)
    if options.set:
        print("params   those of this experiment: `make params`, then `make repro`, restore the default", flush=True)
    return 0


def explain(error: BaseException) -> tuple[int, str]:
    """Convert an error of DVC to an exit status and one line, which is empty if the stage has printed its own."""
    from dvc.exceptions import ReproductionError
    from dvc.stage.exceptions import StageCmdFailedError

    chain = list(_chain(error))
    stage = next((str(e).split("'")[1] for e in chain if isinstance(e, ReproductionError)), "the stage")
    for cause in chain:
        if isinstance(cause, StageCmdFailedError):
            status = int(str(cause).rpartition(" ")[2])
            if status in (1, 130):
                return status, ""
            signal = -status if status < 0 else status - 128 if status > 128 else 0
            if signal == 2:  # Ctrl-C before the stage could answer
                return 130, INTERRUPTED
            if signal:
                return 1, (
                    f"{stage} was killed by signal {signal}"
                    f"{' (out of memory?)' if signal == 9 else ''}: the earlier results are in DVC's cache "
                    f"(`dvc checkout {stage}`), `make repro` resumes from the last checkpoint"
                )
            return 1, f"{stage} ended with exit status {status}: see above"
    words = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
    if isinstance(gone := chain[-1], FileNotFoundError) and gone.filename:
        path = Path(os.path.relpath(gone.filename))
        return 1, (
            f"{path} is not there: correct the path in the configuration, or, where a pointer {path.name}.dvc belongs "
            f"to it, bring that back (`git checkout {path}.dvc`) and run `dvc pull {path}`"
        )
    kind = type(chain[-1]).__name__
    remedy = {
        "LockError": "another run works in this folder: wait until it has ended",
        "MissingDataSource": "run `dvc pull`, or see data/sources/README.md",
        "DependencyDoesNotExistError": "run `dvc pull` for it, or correct the path in the configuration",
    }.get(kind, "")
    return 1, f"{words[:500]}{f': {remedy}' if remedy else ''}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class _DvcMessages(logging.Handler):
    """Messages of DVC: collects which stages run, and prints which results come from the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one message."""
        words = record.getMessage()
        if words.startswith("Running stage"):
            self.ran |= {words.split("'")[1]} - {"code"}  # it always runs
        elif "is cached" in words:
            print(f"{words.split(' is cached')[0]}: known result, taken from the cache", file=sys.stderr, flush=True)


def _listen() -> _DvcMessages:
    """Send the messages of DVC to a new handler only, and return it."""
    messages, logger = _DvcMessages(), logging.getLogger("dvc")
    logger.handlers = [messages]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return messages


@contextmanager
def _stages_in_forks() -> Iterator[None]:
    """Make DVC run our stages in forks of this process, not in a shell (tested in tests/runtime/test_runs.py)."""
    from dvc.stage import run as dvc_run
    from dvc.stage.exceptions import StageCmdFailedError

    run_in_shell, loaded = dvc_run._run, False

    def run(executable: str | None, command: str, **options: Any) -> None:
        nonlocal loaded
        words = shlex.split(command)
        if words[:3] != ["python", "-m", "pipelines"]:
            run_in_shell(executable, command, **options)
            return
        if not loaded:
            loaded = True
            _load()
        process = forked.start("pipelines", words[3:], str(options["cwd"]), options["env"])
        earlier_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage handles Ctrl-C
        try:
            forked.load_later()  # while the first stage computes on one core
            _, status = os.waitpid(process, 0)
        finally:
            signal.signal(signal.SIGINT, earlier_handler)
        if code := os.waitstatus_to_exitcode(status):
            raise StageCmdFailedError(command, code)

    dvc_run._run = run
    try:
        yield
    finally:
        dvc_run._run = run_in_shell


def _load() -> None:
    """Import the libraries of the composition that will run; its first stage reports the composition's errors."""
    from hallmark.build import read_params

    for name, value in store.environment(ROOT).items():
        os.environ.setdefault(name, value)
    with suppress(HallmarkError):
        forked.load_libraries(read_params())


def _refuse_second() -> None:
    """Refuse to write params.yaml while another run works in this folder.

    Raises:
        HallmarkError: there is another run; names its process.
    """
    import json

    file = ROOT / ".dvc" / "tmp" / "rwlock"
    try:
        locks = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        return
    infos = [*locks.get("write", {}).values(), *(info for held in locks.get("read", {}).values() for info in held)]
    for info in infos:
        try:
            os.kill(int(info["pid"]), 0)
        except (ProcessLookupError, PermissionError, KeyError, ValueError):
            continue
        raise HallmarkError(
            f"another run (process {info['pid']}) works in this folder: wait until it has ended, nothing was changed"
        )


def _finish(ran: set[str]) -> None:
    """Print the results that no stage has printed, and rebuild the Bento of a bundle that came from the cache.

    Args:
        ran: stages that were run, not restored from the cache.
    """
    from hallmark.build import build_experiment, read_params
    from hallmark.judge import terminal
    from pipelines import BUNDLE, EVALUATION
    from runtime.keep import keep_bundle, rebuild_bento

    built = build_experiment(read_params())
    evaluator = built["evaluate"]["evaluator"]
    if "evaluate" not in ran:
        terminal.show_figures(Path(EVALUATION), evaluator.layout, evaluator.metrics(built["task"], built["learner"]))
    keep_bundle()
    if "package" not in ran:
        rebuild_bento()
        terminal.show_outputs(Path(BUNDLE), Path(EVALUATION))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
