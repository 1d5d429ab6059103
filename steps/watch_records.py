"""Read what the service has recorded since the last run, and decide what is an alarm."""

import os
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from zenml import log_metadata, step

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.prove.bundle import read_hallmark
from hallmark.records.database import configured_url, open_database
from hallmark.succeeding import judge_challenger_beside, judge_version
from hallmark.watch.comparison import write_comparison
from hallmark.watch.monitor import watch
from hallmark.watch.page import summary, write_page
from hallmark.watch.pairs import open_serving
from steps import references  # noqa: F401, registers FileRef


@step
def watch_records(monitor: dict[str, Any], bundle: str, out: str) -> Annotated[FileRef, "monitor"]:
    """Write the page and return its directory; alarms are kept in the database, and told by the next step."""
    task = build(read_hallmark(Path(bundle))[0].spec["task"], "task")
    database, built = open_database(configured_url()), build(monitor, "monitor")
    found = watch(database, task, built, datetime.now(UTC), partial(open_serving, Path(bundle)))
    key = os.environ.get("HALLMARK_PUBLIC_KEY")
    rule = (built.succession, found.at, Path(key) if key else None)
    challenged = judge_challenger_beside(database, Path(bundle), *rule)
    judged = judge_version(database, Path(bundle), *rule)
    shutil.rmtree(out, ignore_errors=True)  # nothing of an earlier run stays
    write_page(found, Path(out), judged, challenged)
    write_comparison(database, found, Path(out) / "data.html")
    log_metadata(summary(found))
    return FileRef.to(Path(out))
