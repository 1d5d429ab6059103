"""python -m benchmarks.operate_erase --bundle bundles/glucose: erase one of 1,000 people, prove it, replay the others.

The bundle is served and lies beside; the records hold answers to everybody. Afterwards every answer to the others is
computed again from the bundle without the person, and compared byte for byte.
"""

import argparse
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.crowd import crowded, name_of, read_example, requests
from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.evidence import answers_with_evidence
from hallmark.forget.certificate import check_certificate, write_certificate
from hallmark.forget.erase import erase
from hallmark.forget.stores import Stores
from hallmark.model import Model
from hallmark.prove.provenance import describe_machine
from hallmark.prove.serving import ServedVersions
from hallmark.records.database import Database, open_database
from hallmark.records.rows import Asked, machine_entry, prediction_row
from hallmark.records.tables import machines, predictions
from hallmark.replaying import replay_answers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"), help="of a forecasting task")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=20, help="recorded ones of each person")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="erase-") as scratch:
        home, erased_person = Path(scratch), name_of(options.people // 2)
        bundle = crowded(options.bundle, options.people, home)
        served = ServedVersions(Model(bundle).task.name, home / "served")
        served.promote(bundle)
        (home / "records").mkdir()
        url = f"sqlite:///{home}/records/records.sqlite"
        database = open_database(url)
        write_answers(database, Model(bundle), options.people, [datetime.now(UTC)] * options.answers)
        stores = Stores(
            spool=home / "spool",
            jobs=home / "jobs",
            served=home / "served",
            bundles=[bundle],
            models=[],
            derived=[],
            searched=[home / "records"],
            splits=home / "splits.parquet",
        )
        start, cpu = time.perf_counter(), cpu_seconds()
        erased = erase(database, stores, erased_person)
        certified = write_certificate(erased, erased_person, home / "erasures", None)
        seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
        searched = sum(store.files for store in erased.searched), sum(store.bytes for store in erased.searched)
        print(
            f"1 of {options.people:,} erased in {seconds:.1f} s ({spent:.1f} CPU seconds, {peak_gb():.2f} GB):", end=""
        )
        print(f" {sum(erased.deleted.rows.values())} rows, {len(erased.versions)} bundles")
        print(f"{erased.hits} hits in {searched[0]:,} files of {searched[1] / 1e6:,.0f} MB, and in the rows")
        for sentence in check_certificate(certified.directory, [bundle], None, (erased_person, certified.salt)):
            print(f"  {sentence}")
        rest = (options.people - 1) * options.answers
        start = time.perf_counter()
        replayed = list(replay_answers(url, None, rest, [bundle, served.current]))
        equal = sum(result.equal for result in replayed)
        took = time.perf_counter() - start
        print(f"{equal:,} of {len(replayed):,} answers to the others are equal byte for byte ({took:.0f} s)")


def write_answers(database: Database, model: Model, people: int, times: Sequence[datetime]) -> None:
    """Record an answer to everybody at each of some times."""
    asked = requests(read_example(model.task.name), [name_of(i) for i in range(people)])
    machine, (_, described) = machine_entry(describe_machine("cpu"))
    with database.writing() as connection:
        database.insert(connection, machines, [described])
    parsed = [model.task.request_type().model_validate(body) for body in asked]
    answered = answers_with_evidence(model.predictor, parsed, str(model.hallmark.digests["weights"]))
    for at in times:
        rows = []
        for request, (response, evidence) in zip(parsed, answered, strict=True):
            subject = str(request.subject_id)  # type: ignore[attr-defined]
            who = Asked(str(uuid.uuid4()), "key:app", subject, at, request)
            rows.append(prediction_row(who, response, evidence, model.hallmark, model.digest, machine, 5.0, 1, True))
        with database.writing() as connection:
            database.insert(connection, predictions, rows)


if __name__ == "__main__":
    main()
