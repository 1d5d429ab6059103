"""Jobs: many rows that are answered in the background, from a file, and go on after a restart.

A job is a directory: `job.json` (who, what, state), `input.<format>`, and `result.ndjson` to which answers are added.
A row's prediction has an id made of the job's id and its number, so that a row which is answered again after a kill is
recorded once.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bentos.boundary import log_failure
from bentos.identity import Principal
from bentos.problems import ProblemError
from hallmark.errors import ConfigError, RequestError
from hallmark.files import read_json, write_json
from hallmark.formats import FORMATS, MEDIA_TYPES
from hallmark.tables import count_rows, read_rows

Status = Literal["queued", "running", "done", "cancelled", "failed"]
ENDED: tuple[Status, ...] = ("done", "cancelled", "failed")
CHUNK = 64  # rows that are answered, and written, together
SUFFIXES = {media_type: f".{name}" for name, media_type in MEDIA_TYPES.items()}
RESULT = "result.ndjson"
LOOK_AGAIN_S = 5.0  # jobs that a process left behind, which has died, are found after so many seconds


@dataclass(frozen=True)
class Job:
    """State of a job.

    Attributes:
        id: of the job.
        client_id: who sent it.
        role: of the client.
        subjects: whose data the client may use; None for no limit.
        status: see `Status`.
        created_at: ISO 8601, UTC.
        total: rows; 0 if it is not known before they are read.
        done: rows that are answered.
        problems: rows among them that have a problem.
        detail: why it failed.
    """

    id: str
    client_id: str
    role: str
    subjects: list[str] | None
    status: Status
    created_at: str
    total: int = 0
    done: int = 0
    problems: int = 0
    detail: str = ""

    def principal(self) -> Principal:
        """Return who sent it, with the rights of that time."""
        subjects = None if self.subjects is None else frozenset(self.subjects)
        return Principal(self.client_id, self.role, subjects, frozenset({"predict"}))  # type: ignore[arg-type]

    def shown(self) -> dict[str, Any]:
        """Return what its client may know."""
        hidden = {"client_id", "role", "subjects"}
        return {name: value for name, value in asdict(self).items() if name not in hidden}


def check_directory(directory: Path) -> None:
    """Check that jobs can be kept in a directory.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        what = f"{directory} cannot be written ({error.strerror})"
        raise ConfigError(f"{what}: set HALLMARK_JOBS__DIRECTORY") from None


class JobStore:
    """Jobs in a directory.

    Args:
        directory: one directory per job.
        max_waiting: jobs that may wait or run; more are refused.
        max_bytes: size of an input.
        read_timeout_s: seconds within which the next piece of an input must arrive.
    """

    def __init__(self, directory: Path, max_waiting: int, max_bytes: int, read_timeout_s: float) -> None:
        self.directory, self.max_waiting, self.max_bytes = directory, max_waiting, max_bytes
        self.read_timeout_s = read_timeout_s
        self.changed = asyncio.Event()

    async def create(self, principal: Principal, kind: str, body: AsyncIterator[bytes]) -> Job:
        """Keep an input, piece by piece, and queue the job.

        Raises:
            ProblemError: 415 for another type, 413 for a larger file, 503 if too many jobs wait.
        """
        suffix = SUFFIXES.get(kind)
        if suffix is None:
            raise ProblemError(415, "unsupported_media_type", f"Send a file of type {', '.join(SUFFIXES)}, as it is.")
        if sum(job.status not in ENDED for job in self.all()) >= self.max_waiting:
            detail = f"{self.max_waiting} jobs wait already: try again later."
            raise ProblemError(503, "too_many_jobs", detail, headers={"retry-after": "60"})
        name = secrets.token_hex(16)
        subjects = None if principal.subjects is None else sorted(principal.subjects)
        created = datetime.now(UTC).isoformat()
        job = Job(name, principal.client_id, principal.role, subjects, "queued", created)
        path = self.path(job)
        path.mkdir(parents=True, mode=0o700)
        try:
            await self._receive(path / f"input{suffix}", body)
            self.save(replace(job, total=await asyncio.to_thread(count_rows, path / f"input{suffix}")))
        except BaseException:
            shutil.rmtree(path)
            raise
        self.changed.set()
        return self.load(name)

    def all(self) -> list[Job]:
        """Return every job, the oldest first."""
        jobs = []
        for path in self.directory.glob("*/job.json"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                jobs.append(self.load(path.parent.name))
        return sorted(jobs, key=lambda job: job.created_at)

    def find(self, principal: Principal, name: str) -> Job:
        """Return a job of a client.

        Raises:
            ProblemError: 404; there is none, or it is another client's.
        """
        with suppress(FileNotFoundError):
            if name.isalnum():
                job = self.load(name)
                if principal.role == "admin" or job.client_id == principal.client_id:
                    return job
        raise ProblemError(404, "not_found", "No job of this caller has this id.")

    def load(self, name: str) -> Job:
        """Read a job's state."""
        return Job(**read_json(self.directory / name / "job.json"))

    def save(self, job: Job) -> None:
        """Write a job's state, atomically; the input of a job that has ended is deleted."""
        if not self.path(job).is_dir():
            return  # its client has deleted it
        write_json(self.path(job) / "job.json", asdict(job))
        if job.status in ENDED:
            for source in self.path(job).glob("input.*"):
                source.unlink(missing_ok=True)

    def is_wanted(self, job: Job) -> bool:
        """Tell whether a job was neither cancelled nor deleted."""
        try:
            return self.load(job.id).status not in ENDED
        except FileNotFoundError:
            return False

    def remove_before(self, time: datetime) -> None:
        """Delete jobs that have ended and were created before some time."""
        for job in self.all():
            if job.status in ENDED and datetime.fromisoformat(job.created_at) < time:
                self.remove(job)

    def cancel(self, job: Job) -> Job:
        """Cancel a job that has not ended; a running one stops after its present rows."""
        job = self.load(job.id)
        if job.status not in ENDED:
            job = replace(job, status="cancelled")
            self.save(job)
        return job

    def remove(self, job: Job) -> None:
        """Delete a job that has ended, with its input and its result."""
        shutil.rmtree(self.path(job), ignore_errors=True)

    def path(self, job: Job) -> Path:
        """Return a job's directory."""
        return self.directory / job.id

    def source(self, job: Job) -> Path:
        """Return a job's input."""
        return next(path for path in self.path(job).glob("input.*") if path.suffix in FORMATS)

    def result(self, job: Job) -> Path:
        """Return a job's result."""
        return self.path(job) / RESULT

    async def _receive(self, target: Path, body: AsyncIterator[bytes]) -> None:
        size = 0
        with target.open("wb") as file:
            while (piece := await self._next(body)) is not None:
                size += len(piece)
                if size > self.max_bytes:
                    raise ProblemError(413, "too_large", f"The file is over {self.max_bytes} bytes.")
                await asyncio.to_thread(file.write, piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())

    async def _next(self, body: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece of a body; None at its end."""
        try:
            async with asyncio.timeout(self.read_timeout_s):
                return await anext(body, None)
        except TimeoutError:
            slow = f"Nothing arrived within {self.read_timeout_s:g} s."
            raise ProblemError(408, "too_slow", slow, headers={"connection": "close"}) from None


def whole_lines(result: Path) -> int:
    """Cut a last line that a kill left unfinished, and return the number of lines: the rows that are done."""
    if not result.is_file():
        return 0
    lines, end = 0, 0
    with result.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, end = lines + 1, end + len(line)
        file.truncate(end)
    return lines


def append(result: Path, lines: Sequence[str]) -> None:
    """Append lines, so that they survive a kill of the machine."""
    with result.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def chunks(source: Path, skip: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the rows of an input with the number of the first, without those that are done."""
    start = 0
    for rows in read_rows(source, CHUNK):
        fresh = rows[max(0, skip - start) :]
        if fresh:
            yield start + len(rows) - len(fresh), fresh
        start += len(rows)


async def run_jobs(store: JobStore, answer: Any) -> None:
    """Run jobs one after the other, the oldest first, for ever.

    Args:
        store: of the jobs; other processes may run jobs of the same directory.
        answer: coroutine `(job, first, rows) → (lines, problems)` that answers some rows of a job.
    """
    while True:
        store.changed.clear()
        for job in await asyncio.to_thread(store.all):
            if job.status not in ENDED:
                with held(store.path(job)) as mine:
                    if mine:
                        await run_job(store, job, answer)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await store.changed.wait()


@contextmanager
def held(directory: Path) -> Iterator[bool]:
    """Lock a job for this process while the block runs; yields whether this process has the lock."""
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # deleted
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


async def run_job(store: JobStore, job: Job, answer: Any) -> None:
    """Run a job to its end, from where an earlier run of it stopped; whatever goes wrong fails this job alone."""
    result = store.result(job)
    try:
        done = await asyncio.to_thread(whole_lines, result)
        job = replace(job, status="running", done=done)
        if not store.is_wanted(job):
            return
        store.save(job)
        source = iter(chunks(store.source(job), done))
        while (chunk := await asyncio.to_thread(next, source, None)) is not None:
            lines, problems = await _until_it_fits(answer, job, *chunk)
            if not store.is_wanted(job):
                return
            await asyncio.to_thread(append, result, lines)
            job = replace(job, done=job.done + len(lines), problems=job.problems + problems)
            store.save(job)
        if store.is_wanted(job):
            result.touch()
            store.save(replace(job, status="done", total=job.done))
    except Exception as error:
        if store.is_wanted(job):
            if not isinstance(error, RequestError | ProblemError):
                log_failure(error)
            detail = error.problem.detail if isinstance(error, ProblemError) else _reason(error)
            store.save(replace(job, status="failed", detail=detail))


async def _until_it_fits(answer: Any, job: Job, first: int, rows: list[dict[str, Any]]) -> Any:
    """Answer a chunk; while the queue is full or records find no room, wait."""
    while True:
        try:
            return await answer(job, first, rows)
        except ProblemError as error:
            if error.problem.status != 503:
                raise
            await asyncio.sleep(0.2)


def _reason(error: Exception) -> str:
    """Return why an input cannot be read, without the path on this machine."""
    text = str(error)
    return text[text.index("cannot be read") :] if "cannot be read" in text else type(error).__name__
