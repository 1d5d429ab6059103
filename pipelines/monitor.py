"""Pipeline monitor: recorded answers and outcomes → figures of days, alarms, page."""

from typing import Any

from zenml import pipeline

from steps.tell_alarms import tell_alarms
from steps.watch_records import watch_records

MONITOR = "reports/monitor"


@pipeline(enable_cache=False, execution_mode="fail_fast")
def monitor(operation: dict[str, Any], bundle: str) -> None:
    """Read what was recorded since the last run, decide, and tell the alarms."""
    tell_alarms(operation["monitor"], watch_records(operation["monitor"], bundle, MONITOR))
