"""Run one pipeline from params.yaml, as `python -m pipelines NAME`.

Exit status: 0, 1 (an error that the user can act on) or 130 (interrupted).
"""

import gc
import os
import sys
from typing import Any

from hallmark import kernels
from hallmark.errors import INTERRUPTED, GateError, HallmarkError, ProvenanceError
from runtime import operate
from runtime.interrupt import raise_on_sigint

NAMES = ("prepare", "train", "evaluate", "package")


def main(arguments: list[str]) -> int:
    """Run the named pipeline and return the exit status; a failure prints one line and keeps the earlier results."""
    operation = arguments[:1] and arguments[0] in operate.NAMES
    if not operation and (len(arguments) != 1 or arguments[0] not in NAMES):
        usage = f"usage: python -m pipelines {{{','.join(NAMES)}}}, or {{{','.join(operate.NAMES)}}} [KEY=VALUE …]"
        print(usage, file=sys.stderr)
        return 2
    gc.disable()  # imports allocate much and free nothing
    received = raise_on_sigint()
    try:
        kernels.pin()
        return operate.run(arguments[0], arguments[1:]) if operation else run(arguments[0])
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, ProvenanceError):
            _leave_experiment()
        if received or isinstance(error, KeyboardInterrupt):
            print(f"error: {INTERRUPTED}", file=sys.stderr)
            return 130
        print(f"error: {error if isinstance(error, HallmarkError) else _unexpected(error)}", file=sys.stderr)
        return 1


def run(name: str) -> int:
    """Build the whole configuration, then run the pipeline on a snapshot of what it depends on."""
    from importlib import import_module
    from pathlib import Path

    from hallmark.build import build_experiment, read_params
    from runtime import experiment, facts, snapshot, store
    from runtime.keep import OUTS, earlier_kept, keep_bundle

    written = Path("params.yaml").read_bytes() if Path("params.yaml").is_file() else b""
    params = read_params()
    built = build_experiment(params)
    start = snapshot.take(name, params)
    start.check_inputs()
    print(f"[{NAMES.index(name) + 1}/{len(NAMES)}] {name}", file=sys.stderr, flush=True)
    keep_bundle()
    store.start()
    pipeline = getattr(import_module(f"pipelines.{name}"), name)
    run_facts = facts.collect(params, start.deps)
    gc.freeze()
    gc.enable()
    try:
        with earlier_kept(name):
            start.write_made_from()
            response = store.run(pipeline, params, facts=run_facts, files=[*start.deps, *OUTS[name]])
            start.check_unchanged()
            start.record_output(response)
    except GateError:
        _show(built, "figures")
        raise
    experiment.remember(written)
    if name == "train":
        from hallmark.stages.train import forget_checkpoints

        forget_checkpoints()
    if name == "prepare":
        _show(built, "account")
    if name == "evaluate":
        _show(built, "figures")
    if name == "package":
        from runtime.registry import register

        register(response, run_facts)
        keep_bundle()
        _show(built, "places")
    return 0


def _show(built: dict[str, Any], what: str) -> None:
    """Print results of a stage; `dvc exp run` and `make repro` print the same."""
    from pathlib import Path

    from hallmark.files import read_json
    from hallmark.judge import terminal
    from pipelines import BUNDLE, EVALUATION, VALIDATION

    evaluator = built["evaluate"]["evaluator"]
    if what == "account":
        terminal.show_cleaning(read_json(Path(VALIDATION) / "validation.json"))
    elif what == "figures":
        terminal.show_figures(Path(EVALUATION), evaluator.layout, evaluator.metrics(built["task"], built["learner"]))
    else:
        terminal.show_outputs(Path(BUNDLE), Path(EVALUATION))


def _leave_experiment() -> None:
    """Restore the parameters that `dvc exp run` has replaced, after a stage failed."""
    from runtime import experiment

    if "DVC_EXP_BASELINE_REV" in os.environ:
        experiment.restore()


def _unexpected(error: Exception) -> str:
    """Describe an unexpected error in one line; write its traceback to a file, except when the disk is full."""
    import errno
    import traceback
    from contextlib import suppress
    from pathlib import Path

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    full = ("No space left", "disk is full")  # messages of the operating system and of SQLite
    if any(getattr(e, "errno", None) == errno.ENOSPC or any(message in str(e) for message in full) for e in causes):
        return "the disk is full: free some space and run again; the earlier results are as they were"
    if "HALLMARK_DEBUG" in os.environ:
        traceback.print_exception(error)
    log = Path(".work/traceback.txt")
    with suppress(OSError):
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"{message}; the earlier results are as they were, the traceback is in {log}"
