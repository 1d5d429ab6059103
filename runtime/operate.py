"""Run a pipeline of operation, as `python -m pipelines monitor [OVERRIDE…]`.

It belongs to no experiment and to no DVC stage.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("monitor", "retrain")


def run(name: str, overrides: list[str]) -> int:
    """Compose conf/operation.yaml, run the pipeline and print what it has found; returns the exit status.

    Raises:
        ConfigError: an override or a key does not exist, or a value is refused.
        BundleError: there is no bundle whose answers could be watched.
    """
    from hallmark.build import build
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import champion_or_last
    from runtime import registry
    from runtime.compose import compose_operation

    operation = compose_operation(overrides)
    build(operation)
    bundle = os.environ.get("HALLMARK_BUNDLE") or str(champion_or_last())
    read_hallmark(Path(bundle))
    if name == "monitor":
        _monitor(operation, bundle)
    else:
        _retrain(operation, bundle)
    registry.follow(Path(bundle))
    return 0


def _monitor(operation: dict[str, Any], bundle: str) -> None:
    """Run the pipeline; print what was read, how many alarms there are, and where the page lies."""
    from hallmark.files import read_json
    from pipelines.monitor import MONITOR, monitor
    from runtime import facts, store

    store.start()
    store.run(monitor, operation, bundle, facts=facts.collect(operation, {}))
    found, alarms = read_json(Path(MONITOR) / "summary.json"), read_json(Path(MONITOR) / "alarms.json")
    read = f"{found['predictions read']:,} answers and {found['outcomes read']:,} outcomes of {found['task']}"
    print(f"read     {read}, {found['days']} days are judged", file=sys.stderr)
    print(f"alarms   {found['new alarms']} new, {len(alarms)} in all", file=sys.stderr)
    print(f"page     {MONITOR}/report.html", file=sys.stderr)


def _retrain(operation: dict[str, Any], bundle: str) -> None:
    """Run the pipeline, alone; print what was decided and what came of it. A failure becomes an alarm."""
    from hallmark.retrain.deploy import report_failure
    from hallmark.retrain.start import open_champion
    from pipelines.retrain import retrain
    from runtime import facts, store

    champion = open_champion(Path(bundle))
    with _alone(champion.directory):
        store.start()
        try:
            response = store.run(retrain, operation, bundle, facts=facts.collect(operation, {}))
        except (Exception, KeyboardInterrupt) as error:
            _report(report_failure, champion, operation, error)
            raise
        decided, told = (_output(response, step) for step in ("decide_retraining", "deploy_challenger"))
        counts = ", ".join(f"{count:,} {why}" for why, count in decided["decisions"].items()) or "none is personal"
        base = decided["base"]
        print(f"adapters {counts}", file=sys.stderr)
        print(f"result   {told}", file=sys.stderr)
        print(f"base     {'due: ' if base['due'] else ''}{base['text']}", file=sys.stderr)
        if base["due"] and operation.get("base"):
            _train_base(operation, Path(bundle))


def _train_base(operation: dict[str, Any], bundle: Path) -> None:
    """Train the base model of the version that serves now, and print what came of it. A failure becomes an alarm."""
    from datetime import UTC, datetime

    from hallmark.records.database import configured_url, open_database
    from hallmark.retrain.base_model import report_failed_training
    from hallmark.retrain.start import open_champion
    from runtime import base_training

    database, champion = open_database(configured_url()), open_champion(bundle)
    try:
        told = base_training.train(database, champion, operation, datetime.now(UTC))
    except (Exception, KeyboardInterrupt) as error:
        _report(report_failed_training, champion, operation, error)
        raise
    print(f"base     {told}", file=sys.stderr)


def _report(report: Callable[..., None], champion: Any, operation: dict[str, Any], error: BaseException) -> None:
    """Write a failure to records and alarms, and tell the alarm."""
    from datetime import UTC, datetime

    from hallmark.build import build
    from hallmark.errors import HallmarkError
    from hallmark.records.database import configured_url, open_database
    from hallmark.watch.monitor import tell

    with suppress(HallmarkError):  # the error itself is what is told
        database, now = open_database(configured_url()), datetime.now(UTC)
        report(database, champion, error, now)
        tell(database, champion.hallmark.task, build(operation["monitor"]["sinks"], "monitor.sinks"), now)


def _output(response: Any, step: str) -> Any:
    return response.steps[step].output.load()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Refuse to run while another process works with the same challenger.

    Raises:
        HallmarkError: one does.
    """
    from hallmark.errors import HallmarkError

    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HallmarkError(f"another `make retrain` works in {directory}: wait until it has ended") from None
        yield
    finally:
        os.close(handle)
