"""python -m benchmarks.drill (make drill): a year of operation in minutes against the real service.

Simulated people ask the service twice a day over HTTP; what happened is told late, and sometimes never. A monitor runs
every day, a refit every week. Meanwhile the truth changes: seasons, another sensor, a person who becomes another one,
new people, versions that are broken or worse, a database that hangs for a day, an erasure. The clock of this process is
turned on day by day; everything else is what serves people: the application, its queue, records, guard, monitor, refit.

It prints a timeline of what happened and what was decided, with the delay of each decision, and draws it.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.errors import HallmarkError
from hallmark.prove.bundle import open_bundle, read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records.database import open_database
from hallmark.succeeding import judge_version
from hallmark.watch.monitor import watch
from hallmark.watch.pairs import open_serving
from runtime.compose import compose_operation, composed

HOURS = (8, 20)  # when everybody asks
TOLD = ("30", "60", "120")  # horizons whose outcomes become known
MISSING, LATEST_H = 0.2, 48
SEASON_MG_DL = 3.0
SENSOR_SD = 0.3
KEY = "drill"


@dataclass(frozen=True)
class Truth:
    """Something that happens.

    Attributes:
        day: on which it begins.
        what: in words.
        expects: kind of an entry of the timeline that should answer it, or `one or another`; empty if nothing should.
        within: days until then.
    """

    day: int
    what: str
    expects: str = ""
    within: int = 0


@dataclass
class Timeline:
    """What happened and what was decided."""

    entries: list[tuple[float, str, str]] = field(default_factory=list)
    """Day, kind, text."""
    errors: list[tuple[int, float, float]] = field(default_factory=list)
    """Day, mean error of the answers at 60 minutes, its estimate."""

    def add(self, day: float, kind: str, text: str) -> None:
        """Note it and print it."""
        self.entries.append((day, kind, text))
        print(f"day {day:6.1f}  {kind:11} {text}", flush=True)

    def after(self, truth: Truth) -> float | None:
        """Return how many days it took until something was decided about it; None if nothing was in time."""
        found = [day for day, kind, _ in self.entries if kind in truth.expects.split(" or ") and truth.day <= day]
        return min(found) - truth.day if found and min(found) - truth.day <= truth.within else None


class People:
    """Simulated people whose lives go on after the training."""

    def __init__(self, people: int, newcomers: int, first: datetime, days: int) -> None:
        self.first, data = first, composed()["data"]
        data["days"] = (first - datetime.fromisoformat(data["start"]).replace(tzinfo=UTC)).days + days + 3
        known = build({**data, "seed": 0}).load().rows
        others = build({**data, "seed": 1}).load().rows
        begin = np.datetime64(first.replace(tzinfo=None) - timedelta(days=3))
        end = np.datetime64(first.replace(tzinfo=None) + timedelta(days=days + 2))
        self.series: dict[str, pd.Series[float]] = {}
        for rows, names, prefix in ((known, people, ""), (others, newcomers, "new-")):
            rows = rows[(rows["timestamp"] >= begin) & (rows["timestamp"] <= end)]
            for name in sorted(rows["subject_id"].unique())[:names]:
                mine = rows[rows["subject_id"] == name]
                self.series[prefix + name] = pd.Series(mine["glucose"].to_numpy(np.float64), mine["timestamp"])
        self.known, self.newcomers = list(self.series)[:people], list(self.series)[people:]
        self.others = others
        self._season()

    def _season(self) -> None:
        for name, values in self.series.items():
            day = (values.index.to_numpy() - np.datetime64(self.first.replace(tzinfo=None))) / np.timedelta64(1, "D")
            self.series[name] = values + SEASON_MG_DL * np.sin(2 * np.pi * day / 365)

    def new_sensor(self, at: datetime) -> float:
        """Shift everybody's readings from a day on; returns by how much."""
        means = pd.concat([values.resample("D").mean() for values in self.series.values()])
        shift = float(SENSOR_SD * means.std())
        for name, values in self.series.items():
            self.series[name] = values + shift * (values.index >= np.datetime64(at.replace(tzinfo=None)))
        return shift

    def becomes_another(self, name: str, at: datetime) -> None:
        """Let somebody live the life of somebody else, whose readings swing twice as much, from a day on."""
        mine, split = self.series[name], np.datetime64(at.replace(tzinfo=None))
        swings = 140 + 2 * (mine[::-1].to_numpy() - 140)  # in the reverse order: no hour is as it was
        other = pd.Series(np.clip(swings, 40, 400), mine.index)
        self.series[name] = pd.concat([mine[mine.index < split], other[other.index >= split]])

    def request(self, name: str, at: datetime) -> dict[str, Any] | None:
        """Return what somebody asks at a time; None if the sensor has left a gap in the last hours."""
        local = at.replace(tzinfo=None)
        values = self.series[name].loc[local - timedelta(hours=48) : local].clip(40, 400)
        times = values.index.to_numpy()
        begin, end = (np.datetime64(local - timedelta(hours=hours)) for hours in (12, 0))
        recent = np.concatenate([[begin], times[times > begin], [end]])
        if len(values) < 400 or np.diff(recent).max() > np.timedelta64(15, "m"):
            return None
        readings = [{"timestamp": t.isoformat(), "glucose_mg_dl": float(v)} for t, v in values.items()]
        return {"subject_id": name, "asked_at": local.isoformat(), "readings": readings}

    def actual(self, name: str, at: datetime) -> float | None:
        """Return the reading nearest to a time; None if there is none within five minutes."""
        local = at.replace(tzinfo=None)
        near = self.series[name].loc[local - timedelta(minutes=5) : local + timedelta(minutes=5)]
        return None if near.empty else float(np.clip(near.iloc[len(near) // 2], 40, 400))


@contextmanager
def serving(pointer: Path, home: Path) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Run the application in this process behind HTTP; yields address, headers and its state."""
    import uvicorn

    from bentos.app import create_app
    from bentos.keys import make_key, write_keys
    from bentos.settings import Settings

    key, entry = make_key(KEY, "admin")
    write_keys(home / "keys.json", [entry])
    known: dict[str, Any] = {
        "bundle": pointer,
        "auth": {"keys_file": home / "keys.json"},
        "records": {"url": os.environ["HALLMARK_RECORDS__URL"], "spool": home / ".records" / "spool"},
        "jobs": {"directory": home / ".records" / "jobs"},
        "witness": {"per_hour": 0},
        "reload_s": 0.1,
    }
    app = create_app(Settings(**known))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise HallmarkError("the service did not start")
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", {"authorization": f"Bearer {key}"}, app.state.service
    finally:
        server.should_exit = True
        thread.join(60)


class Drill:
    """The year."""

    def __init__(self, home: Path, people: People, days: int, clock: Any) -> None:
        self.home, self.people, self.days, self.clock = home, people, days, clock
        self.first = people.first
        self.timeline, self.rng = Timeline(), np.random.default_rng(0)
        self.operation = build(compose_operation([]))
        self.database = open_database(os.environ["HALLMARK_RECORDS__URL"])
        self.versions = ServedVersions("glucose", home / "served")
        self.asking = list(people.known)
        self.waiting: list[tuple[datetime, dict[str, Any]]] = []
        self.asked = self.failed = 0
        self.reasons: dict[str, int] = {}
        self.events: dict[int, list[Callable[[], None]]] = {}
        self.truths: list[Truth] = []

    def at(self, day: int, what: str, do: Callable[[], None] | None, expects: str = "", within: int = 0) -> None:
        """Let something happen on a day."""
        if day < self.days:
            self.truths.append(Truth(day, what, expects, within))
            if do is not None:
                self.events.setdefault(day, []).append(do)

    def run(self) -> None:
        """Live through all days."""
        with serving(self.versions.current, self.home) as (self.address, self.headers, self.state):
            for day in range(self.days):
                self.today = day
                self.clock.move_to(self.first + timedelta(days=day))
                for truth in self.truths:
                    if truth.day == day:
                        self.timeline.add(day, "truth", truth.what)
                for do in self.events.get(day, ()):
                    do()
                for hour in HOURS:
                    self.ask(self.first + timedelta(days=day, hours=hour))
                self.clock.move_to(self.first + timedelta(days=day, hours=23))
                self.tell()
                self.after_hours(day)

    def ask(self, at: datetime) -> None:
        """Let everybody ask, and keep what will become known."""
        self.clock.move_to(at)
        asked = {name: body for name in self.asking if (body := self.people.request(name, at)) is not None}
        before = self.versions.digest()
        try:
            response = httpx.post(
                f"{self.address}/v1/predict", json={"rows": list(asked.values())}, headers=self.headers, timeout=120
            )
            rows = response.json()["rows"] if response.status_code == 200 else []
        except httpx.HTTPError:
            rows = []
        self.asked += len(asked)
        self.failed += len(asked) - sum(row["status"] == "answered" for row in rows)
        self._why(rows)
        for (name, body), row in zip(asked.items(), rows, strict=False):
            if row["status"] == "answered":
                self._await(name, body, row)
        if self._settled(before):
            self.timeline.add(self.today + at.hour / 24, "guard", self.state.guard.told)

    def _settled(self, before: str) -> bool:
        """Give the guard the time that it has between two requests; tells whether it has acted."""
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            if self.versions.digest() != before:
                return True
            time.sleep(0.05)
        return False

    def _why(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["status"] == "answered" and row["reason"]:
                self.reasons[row["reason"]] = self.reasons.get(row["reason"], 0) + 1

    def _await(self, name: str, body: dict[str, Any], row: dict[str, Any]) -> None:
        last = datetime.fromisoformat(body["readings"][-1]["timestamp"]).replace(tzinfo=UTC)
        late = timedelta(hours=float(self.rng.uniform(1, LATEST_H)))
        if self.rng.random() < MISSING or row["answer"]["status"] != "forecast":
            return
        for horizon in TOLD:
            then = last + timedelta(minutes=int(horizon))
            if (value := self.people.actual(name, then)) is not None:
                told = {"prediction_id": row["prediction_id"], "horizon": horizon, "value": value}
                self.waiting.append((then + late, {**told, "observed_at": then.isoformat()}))

    def tell(self) -> None:
        """Tell what has become known."""
        now = datetime.now(UTC)
        due = [body for at, body in self.waiting if at <= now]
        self.waiting = [(at, body) for at, body in self.waiting if at > now]
        for start in range(0, len(due), 500):
            part = due[start : start + 500]
            with suppress(httpx.HTTPError):
                httpx.post(f"{self.address}/v1/outcomes", json={"outcomes": part}, headers=self.headers, timeout=60)

    def after_hours(self, day: int) -> None:
        """Run the monitor, and once a week the refit."""
        now = datetime.now(UTC)
        self.state.records.flush(10)
        task, pointer, rules = self.state.engine.served.model.task, self.versions.current, self.operation["monitor"]
        try:
            found = watch(self.database, task, rules, now, partial(open_serving, pointer.resolve()))
            judged = judge_version(self.database, pointer, rules.succession, now)
        except HallmarkError as error:
            self.timeline.add(day, "monitor", f"did not run: {error}")
            return
        for alarm in found.new:
            self.timeline.add(day, alarm.kind, f"{alarm.severity}: {alarm.message[:150]}")
        for change in found.changes:
            self.timeline.add(day, "adapter", f"{change.subject_id} {change.state}: {change.reason}")
        if judged is not None and judged.told:
            self.timeline.add(day, "rollback", judged.told)
        if len(found.days):
            last = found.days.iloc[-4] if len(found.days) > 3 else found.days.iloc[-1]  # most outcomes have come
            score, guess = (last.get(f"{kind}.absolute_error@60", np.nan) for kind in ("score", "estimate"))
            self.timeline.errors.append((day, float(score), float(guess)))
        if day % 7 == 6:
            self.refit(day, now)

    def refit(self, day: int, now: datetime) -> None:
        """Do what `make retrain` does, without the run in ZenML."""
        from hallmark.retrain.challenge import challenge, fit_trial
        from hallmark.retrain.decide import decide_now, keep_decisions
        from hallmark.retrain.deploy import deploy
        from hallmark.retrain.start import open_champion

        rule, never_worse = self.operation["retrain"], self.operation["monitor"].adapters.rule
        try:
            champion = open_champion(self.versions.current)
            decided = decide_now(self.database, champion, rule, now)
            keep_decisions(self.database, decided, champion.directory)
            if decided.chosen and fit_trial(champion, champion.directory):
                found = challenge(self.database, champion, champion.directory, rule)
                told = deploy(self.database, champion, champion.directory, found, never_worse, now)
                self.timeline.add(day, "refit" if found.deploys else "no refit", told)
            else:
                reasons = sorted({decision.why for decision in decided.decisions})
                self.timeline.add(day, "no refit", f"nobody is due: {', '.join(reasons)}")
        except HallmarkError as error:
            self.timeline.add(day, "no refit", f"failed: {error}")

    def promote(self, bundle: Path) -> None:
        """Let another version serve, and wait until the service has taken it."""
        self.versions.promote(bundle)
        self._taken()

    def _taken(self) -> None:
        until = time.monotonic() + 30
        while self.state.engine.served.digest[:16] != self.versions.digest() and time.monotonic() < until:
            time.sleep(0.05)

    def hang(self) -> None:
        """Let the database hang for this day: another process holds its lock."""
        import sqlite3

        lock = sqlite3.connect(self.database.url.database or "", check_same_thread=False, isolation_level=None)
        lock.execute("begin exclusive")
        ask, asked = self.ask, [0]

        def asking(at: datetime) -> None:
            ask(at)
            asked[0] += 1
            if asked[0] == len(HOURS):
                pending = self.state.records.pending
                lock.execute("rollback")
                lock.close()
                self.ask = ask  # type: ignore[method-assign]
                whole = self.state.records.flush(60)
                told = f"{pending} rows waited in the spool, {'all' if whole else 'NOT all'} are in the database now"
                self.timeline.add(self.today + 0.9, "spool", told)

        self.ask = asking  # type: ignore[method-assign]

    def erase(self, name: str) -> None:
        """Erase somebody, who asks no more."""
        from hallmark.forget.erase import erase
        from hallmark.forget.stores import here

        self.asking.remove(name)
        self.waiting = []  # what would be told of this person and, for simplicity, of this day
        done = erase(self.database, here(self.home / "served"), name, "asked by letter", replays=50)
        equal, replayed = done.replayed[1], done.replayed[0]
        self._taken()
        told = f"{sum(done.deleted.rows.values())} rows, {len(done.versions)} bundles; {done.hits} traces left"
        self.timeline.add(self.today, "erased", f"{told}; {equal} of {replayed} answers to others are the same bytes")


def main() -> None:
    """Play the year."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/glucose"), help="of the default experiment")
    parser.add_argument("--state", type=Path, default=Path("models/current/refresh_state"), help="written with it")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("reports/drill"))
    options = parser.parse_args()
    import logging

    import time_machine

    logging.getLogger("bentoml").setLevel(logging.CRITICAL)
    start, cpu = time.monotonic(), cpu_seconds()
    out = options.out.absolute()
    with tempfile.TemporaryDirectory(prefix="drill-") as scratch:
        home = Path(scratch)
        bad = broken(options.bundle, home)
        worse = impersonal(options.bundle, home)
        shutil.copytree(options.bundle, home / "bundle")
        shutil.copytree(options.state, home / "models" / "current" / "refresh_state")
        os.chdir(home)
        os.environ["HALLMARK_RECORDS__URL"] = f"sqlite:///{home}/.records/records.sqlite"
        first = begin_of(home)
        with time_machine.travel(first, tick=True) as clock:
            people = People(options.people, 3, first, options.days)
            drill = Drill(home, people, options.days, clock)
            drill.versions.promote(home / "bundle")
            script(drill, bad, worse)
            drill.run()
        minutes = (time.monotonic() - start) / 60
        report(drill, out, f"{minutes:.1f} min, {(cpu_seconds() - cpu) / 60:.1f} CPU min, {peak_gb():.1f} GB")


def begin_of(home: Path) -> datetime:
    """Return the day after the last reading that the model was trained on."""
    from hallmark.families.forecasting.refresh import known_until

    newest = max(known_until(home / "models" / "current" / "refresh_state").values())
    return datetime(newest.year, newest.month, newest.day, tzinfo=UTC) + timedelta(days=1)


def script(drill: Drill, bad: Path, worse: Path) -> None:
    """Write down what happens when."""
    people, changed, gone = drill.people, drill.people.known[1], drill.people.known[2]
    drill.at(0, f"seasons: readings rise and fall by {SEASON_MG_DL:g} mg/dL over the year", None)
    people.becomes_another(changed, people.first + timedelta(days=80))
    drill.at(80, f"{changed} lives another life: swings twice as large, at other hours", None, "bound", 14)
    shift = people.new_sensor(people.first + timedelta(days=120))
    sensor = f"another sensor: everybody's readings are {shift:.1f} mg/dL ({SENSOR_SD} SD) higher"
    drill.at(120, sensor, None, "drift", 7)  # a request's mean covers two days, and a day is judged the day after

    def join() -> None:
        drill.asking.extend(people.newcomers)

    drill.at(160, f"{len(people.newcomers)} new people begin to ask", join, "refit", 14)
    drill.at(200, "a version is promoted that cannot use anybody's past", partial(drill.promote, bad), "guard", 1)
    drill.at(
        230,
        "a version is promoted that has forgotten everybody",
        partial(drill.promote, worse),
        "guard or rollback",
        28,
    )
    drill.at(290, "the database hangs for a day", drill.hang, "spool", 1)
    drill.at(320, f"{gone} asks to be erased", partial(drill.erase, gone), "erased", 0)


def broken(bundle: Path, scratch: Path) -> Path:
    """Make a version whose numbers of every person cannot be used."""
    from safetensors.numpy import load_file, save_file

    from hallmark.files import directory_of, read_json, sha256, write_json

    model = Path(shutil.copytree(bundle, scratch / "broken-model"))
    table = model / "subjects" / "subjects.json"
    entries = read_json(table)
    for entry in entries:
        file = model / "subjects" / directory_of(entry["subject_id"]) / "history.safetensors"
        arrays = {n: np.full_like(a, np.inf) if a.dtype.kind == "f" else a for n, a in load_file(str(file)).items()}
        save_file(arrays, str(file))
        entry["history_sha256"] = sha256(file)
    write_json(table, entries)
    return remade(bundle, model, scratch / "broken")


def impersonal(bundle: Path, scratch: Path) -> Path:
    """Make a version that knows nobody."""
    from hallmark.stages.forget import forget

    source, out = bundle, scratch / "impersonal"
    learner = open_bundle(bundle)[0]
    for name in sorted({file.split("/")[1] for file in learner.files if file.startswith("subjects/sim-")}):
        if forget(source, out, name) is not None:
            source = out
    return out


def remade(bundle: Path, model: Path, out: Path) -> Path:
    """Make a bundle of a changed model with the manifest of another one."""
    from hallmark.prove.bundle import make_bundle
    from hallmark.stages.refresh import successor

    make_bundle(model, successor(bundle, read_hallmark(bundle)[0], {"drill": "broken"}), out)
    return out


def report(drill: Drill, out: Path, spent: str) -> None:
    """Print truth against decisions, and draw both."""
    timeline = drill.timeline
    print()
    for reason, count in sorted(drill.reasons.items(), key=lambda item: -item[1])[:6]:
        print(f"{count:6,} × {reason[:130]}")
    print(f"\n{drill.asked:,} answers were asked for, {drill.failed} failed; {spent}\n")
    print(f"{'what happened':74} {'answered by':17} {'after':>10} {'asked':>9}")
    missed = 0
    for truth in drill.truths:
        if truth.expects:
            delay = timeline.after(truth)
            missed += delay is None
            took = "NOT" if delay is None else f"{delay:.1f} days"
            print(f"{truth.what[:74]:74} {truth.expects:17} {took:>10} {f'≤ {truth.within}':>9}")
    expected = [truth for truth in drill.truths if truth.expects]
    alarms = [(day, kind, text) for day, kind, text in timeline.entries if kind in ("drift", "bound")]
    unexplained = [a for a in alarms if not any(t.day <= a[0] <= t.day + 28 for t in drill.truths if t.expects)]
    print(f"{len(alarms)} alarms of drift and bounds, {len(unexplained)} of them with nothing behind in four weeks")
    print(f"{missed} of {len(expected)} expected decisions are missing" if missed else "every expected decision came")
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{day:.1f}\t{kind}\t{text}" for day, kind, text in timeline.entries]
    (out / "timeline.tsv").write_text("day\tkind\ttext\n" + "\n".join(lines) + "\n", encoding="utf-8")
    draw(drill, out / "timeline.png")
    print(f"picture  {out / 'timeline.png'}")


def draw(drill: Drill, file: Path) -> None:
    """Draw the error over the year, what happened, and what was decided."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(13, 7), sharex=True, height_ratios=(2, 3))
    days, known, guessed = np.asarray(drill.timeline.errors).T
    above.plot(days, known, color="#1f5fa8", linewidth=1, label="known from outcomes")
    above.plot(days, guessed, color="#c77d1a", linewidth=1, label="estimated before")
    above.set_ylabel("mean error at 60 minutes, mg/dL")
    above.legend(frameon=False, ncols=2, loc="upper left")
    kinds = ("truth", "drift", "bound", "adapter", "guard", "rollback", "refit", "no refit", "spool", "erased")
    for day, kind, _ in drill.timeline.entries:
        if kind in kinds:
            mark, colour = ("D", "#b3261e") if kind == "truth" else ("o", "#1f5fa8")
            below.plot(day, kinds.index(kind), mark, color=colour)
    for truth in drill.truths:
        for axis in (above, below):
            axis.axvline(truth.day, color="#b3261e", linewidth=0.7, alpha=0.5)
    below.set_yticks(range(len(kinds)), kinds)
    below.invert_yaxis()
    below.set_xlabel("day")
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
