"""python -m benchmarks.operate_adapters --bundle bundles/glucose: the cost of comparing adapters with the base model.

Everybody has so many answers of a day, of each of which one outcome is known. The monitor computes what the base model
would have answered, and adds the day to the ledgers.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from benchmarks.crowd import crowded
from benchmarks.operate_erase import write_answers
from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.model import Model
from hallmark.records.database import open_database
from hallmark.records.reader import EVERYTHING
from hallmark.records.rows import outcome_row
from hallmark.records.tables import outcomes, predictions
from hallmark.watch.adapters import judge, read_ledgers
from hallmark.watch.intake import Reading, take
from hallmark.watch.pairs import open_serving
from runtime.compose import compose_operation

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
HORIZON, ACTUAL = "60", 140.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=24, help="of each person and day")
    options = parser.parse_args()
    settings = build(compose_operation([]))["monitor"].adapters
    with tempfile.TemporaryDirectory(prefix="adapters-") as scratch:
        bundle = crowded(options.bundle, options.people, Path(scratch))
        database = open_database(f"sqlite:///{scratch}/records.sqlite")
        times = [FIRST + timedelta(minutes=1440 * i / options.answers) for i in range(options.answers)]
        write_answers(database, Model(bundle), options.people, times)
        with database.reading(EVERYTHING) as connection:
            rows = [
                dict(row) for row in connection.execute(sa.select(predictions.c.id, predictions.c.owner_id)).mappings()
            ]
        with database.writing() as connection:
            happened = [outcome_row(row, "key:app", HORIZON, ACTUAL, FIRST + timedelta(hours=1)) for row in rows]
            database.insert(connection, outcomes, happened)
        serving = open_serving(bundle)
        take(database, Reading(serving.task, 1, (), 2000.0))
        start, cpu = time.perf_counter(), cpu_seconds()
        judge(database, serving, settings, FIRST + timedelta(days=3))
        seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
        judged = len(read_ledgers(database, serving.task.name))
        print(f"{len(rows):,} answers of one day compared in {seconds:.1f} s ({spent:.1f} CPU seconds, ", end="")
        print(f"{len(rows) / seconds:,.0f} a second); {judged:,} ledgers, {peak_gb():.2f} GB")


if __name__ == "__main__":
    main()
