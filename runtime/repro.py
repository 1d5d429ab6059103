"""python -m runtime.repro [-S KEY=VALUE …]: `dvc repro`, or with -S `dvc exp run`; every failure ends in one line.

DVC runs in this process and says only what a user can act on. The configuration is composed and built before DVC
touches anything, so that a misspelt key changes nothing. Stages run in forks of this process: Python, torch and ZenML
are loaded once and not four times.
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

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run; see the module. Exit status: 0, 1, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m runtime.repro", description=__doc__)
    parser.add_argument("-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="of conf/")
    parser.add_argument("-n", "--name", help="of the experiment")
    parser.add_argument("-f", "--force", action="store_true", help="run stages that did not change, too")
    parser.add_argument("targets", nargs="*", help="stages; all if none is named")
    options = parser.parse_args(arguments)
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
        from runtime.compose import compose

        with tempfile.TemporaryDirectory() as scratch:
            compose(Path(scratch) / "params.yaml", options.set)
    else:
        check_sections(read_params())  # the stages build the rest
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    said = _listen()
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
                if not said.ran:  # a stage that fails does both itself
                    experiment.restore()
                    repo.checkout(
                        allow_missing=True
                    )  # DVC had removed the outputs of the stage that it could not start
                repo.reproduce(targets=["code"])  # dvc.lock names the lists of the parameters that are there now
        return code
    if not options.targets:
        _finish(said.ran)
    if options.set:
        print("params   those of this experiment: `make params` goes back to the default", flush=True)
    return 0


def explain(error: BaseException) -> tuple[int, str]:
    """Turn what DVC raised into an exit status and one line; no line where the stage has printed its own."""
    from dvc.exceptions import ReproductionError
    from dvc.stage.exceptions import StageCmdFailedError

    chain = list(_chain(error))
    stage = next((str(e).split("'")[1] for e in chain if isinstance(e, ReproductionError)), "the stage")
    for found in chain:
        if isinstance(found, StageCmdFailedError):
            status = int(str(found).rpartition(" ")[2])
            if status in (1, 130):
                return status, ""
            signal = -status if status < 0 else status - 128 if status > 128 else 0
            if signal == 2:  # Ctrl-C before the stage could answer
                return 130, INTERRUPTED
            if signal:
                return 1, (
                    f"{stage} was killed by signal {signal}"
                    f"{' (out of memory?)' if signal == 9 else ''}: the earlier results are in DVC's cache "
                    f"(`dvc checkout {stage}`), `make repro` goes on from the last checkpoint"
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


class _Said(logging.Handler):
    """What DVC says: which stages run, and which results it takes from its cache; only the latter is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Read one message."""
        words = record.getMessage()
        if words.startswith("Running stage"):
            self.ran |= {words.split("'")[1]} - {"code"}  # it always runs
        elif "is cached" in words:
            print(f"{words.split(' is cached')[0]}: known result, taken from the cache", file=sys.stderr, flush=True)


def _listen() -> _Said:
    """Let DVC log to us alone."""
    said, logger = _Said(), logging.getLogger("dvc")
    logger.handlers = [said]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return said


@contextmanager
def _stages_in_forks() -> Iterator[None]:
    """Have DVC run our stages in forks of this process, not in a shell (tests/runtime/test_runs.py holds DVC to it)."""
    from dvc.stage import run as of_dvc
    from dvc.stage.exceptions import StageCmdFailedError

    in_a_shell, loaded = of_dvc._run, False

    def run(executable: str | None, command: str, **how: Any) -> None:
        nonlocal loaded
        words = shlex.split(command)
        if words[:3] != ["python", "-m", "pipelines"]:
            in_a_shell(executable, command, **how)
            return
        if not loaded:
            loaded = True
            _load()
        process = forked.start("pipelines", words[3:], str(how["cwd"]), how["env"])
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the stage too: it decides
        try:
            forked.load_later()  # while the first stage computes on one core
            _, status = os.waitpid(process, 0)
        finally:
            signal.signal(signal.SIGINT, before)
        if code := os.waitstatus_to_exitcode(status):
            raise StageCmdFailedError(command, code)

    of_dvc._run = run
    try:
        yield
    finally:
        of_dvc._run = in_a_shell


def _load() -> None:
    """Load the libraries of the composition that is about to run; what is wrong with it, its first stage says."""
    from hallmark.build import read_params

    for name, value in store.environment(ROOT).items():
        os.environ.setdefault(name, value)
    with suppress(HallmarkError):
        forked.load_libraries(read_params())


def _refuse_second() -> None:
    """Refuse to write params.yaml under a run that is at work.

    Raises:
        HallmarkError: names its process.
    """
    import json

    file = ROOT / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        return
    infos = [*held.get("write", {}).values(), *(info for of_one in held.get("read", {}).values() for info in of_one)]
    for info in infos:
        try:
            os.kill(int(info["pid"]), 0)
        except (ProcessLookupError, PermissionError, KeyError, ValueError):
            continue
        raise HallmarkError(
            f"another run (process {info['pid']}) works in this folder: wait until it has ended, nothing was changed"
        )


def _finish(ran: set[str]) -> None:
    """Show what no stage has shown, and bring the Bento in line with a bundle that came from the cache.

    Args:
        ran: stages that really ran.
    """
    from bentos.build import build_bento, is_built
    from hallmark.build import build_experiment, read_params
    from hallmark.judge import terminal
    from pipelines import BUNDLE, EVALUATION, LOCK
    from runtime.keep import keep_bundle

    built = build_experiment(read_params())
    evaluator = built["evaluate"]["evaluator"]
    if "evaluate" not in ran:
        terminal.show_figures(Path(EVALUATION), evaluator.shown, evaluator.metrics(built["task"], built["learner"]))
    keep_bundle()
    if "package" not in ran:
        if built["package"]["bento"] and not is_built(Path(BUNDLE)):
            build_bento(Path(BUNDLE), Path(LOCK))
        terminal.show_places(Path(BUNDLE), Path(EVALUATION))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
