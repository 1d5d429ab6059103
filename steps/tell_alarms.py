"""Tell alarms to the sinks."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml import step

from hallmark.build import build
from hallmark.files import FileRef, read_json
from hallmark.records.database import configured_url, open_database
from hallmark.watch.monitor import tell
from steps import references  # noqa: F401, registers FileRef


@step
def tell_alarms(monitor: dict[str, Any], page: FileRef) -> int:
    """Return how many alarms were told; those that a sink has not taken fail the step, and are told by the next run."""
    tasks = {alarm["task"] for alarm in read_json(Path(page.path) / "alarms.json")}
    sinks = build(monitor["sinks"], "monitor.sinks")
    return sum(tell(open_database(configured_url()), task, sinks, datetime.now(UTC)) for task in sorted(tasks))
