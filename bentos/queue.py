"""One bounded queue in front of the model: rows of many requests share a batch, one thread computes.

A batch takes whatever waits; nothing waits for a batch to fill. Rows whose time is up, or whose client has left, are
dropped before they occupy the thread. If a batch fails, its rows are answered one by one, so that only the row that
fails has an error.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from bentos.boundary import log_failure
from bentos.problems import ProblemError

BULK_BATCH = 16  # rows of a job that are computed together: other requests wait for at most so many

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True)
class Result(Generic[A]):
    """The answer to one row.

    Attributes:
        answer: None if computing it failed.
        batch_rows: rows that were computed together.
        failure: class of the exception, if computing it failed.
    """

    answer: A | None
    batch_rows: int
    failure: str = ""


@dataclass(eq=False)
class _Item(Generic[A]):
    """A row that waits."""

    request: Any
    deadline: float
    future: "asyncio.Future[Result[A]]" = field(repr=False)


class PredictionQueue(Generic[A]):
    """Rows that wait for the model.

    Args:
        answer: answers a batch; called in one thread, one batch at a time.
        max_rows: rows that may wait.
        max_batch: rows of one batch.
        watch: called with the size of every batch and the seconds that it took.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], Sequence[A]],
        max_rows: int,
        max_batch: int,
        watch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self.answer, self.max_rows, self.max_batch, self.watch = answer, max_rows, max_batch, watch
        self._items: deque[_Item[A]] = deque()
        self._bulk: deque[_Item[A]] = deque()
        self._functions = 0
        self._waiting = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")
        self._row_seconds = 0.01  # smoothed seconds of a row, for Retry-After
        self._worker: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def rows(self) -> int:
        """Rows that wait now, and functions that wait for the model's thread."""
        return len(self._items) + len(self._bulk) + self._functions

    def start(self) -> None:
        """Begin to answer."""
        self._worker = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Answer what waits, then stop."""
        while self._items or self._bulk:
            await asyncio.sleep(0.01)
        await self._idle.wait()
        if self._worker is not None:
            self._worker.cancel()
        self._executor.shutdown(wait=True)

    async def submit(self, requests: Sequence[Any], timeout_s: float, bulk: bool = False) -> list[Result[A]]:
        """Answer rows, in order; those of a job (`bulk`) come after all others.

        Raises:
            ProblemError: 503 if the queue is full, 504 if the time is up.
        """
        self._check_room(len(requests))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        items = [_Item(request, deadline, loop.create_future()) for request in requests]
        (self._bulk if bulk else self._items).extend(items)
        self._waiting.set()
        futures = [item.future for item in items]
        try:
            async with asyncio.timeout_at(deadline):
                return list(await asyncio.gather(*futures))
        except TimeoutError:
            raise ProblemError(504, "timeout", f"No answer within {timeout_s:g} s.") from None
        finally:
            for future in futures:
                future.cancel()  # those that still wait: their caller has left, or its time is up

    async def run(self, function: Callable[[], R], timeout_s: float) -> R:
        """Run a function in the model's thread, after the batch that is being computed.

        Raises:
            ProblemError: 503 if the queue is full, 504 if the time is up before the function began.
        """
        self._check_room(1)
        deadline = time.monotonic() + timeout_s

        def in_time() -> R:
            if time.monotonic() > deadline:
                raise ProblemError(504, "timeout", f"No answer within {timeout_s:g} s.")
            return function()

        self._functions += 1
        try:
            return await self._in_thread(in_time)
        finally:
            self._functions -= 1

    def _check_room(self, rows: int) -> None:
        if self.rows + rows > self.max_rows:
            seconds = max(1, round(self.rows * self._row_seconds))
            detail = f"{self.rows} rows wait already: try again in {seconds} s."
            raise ProblemError(503, "queue_full", detail, headers={"retry-after": str(seconds)})

    async def _in_thread(self, function: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def _run(self) -> None:
        while True:
            await self._waiting.wait()
            batch = self._take()
            if not batch:
                self._waiting.clear()
                continue
            self._idle.clear()
            try:
                results = await self._in_thread(partial(self._compute, [item.request for item in batch]))
            finally:
                self._idle.set()
            for item, result in zip(batch, results, strict=True):
                if not item.future.done():
                    item.future.set_result(result)

    def _take(self) -> list[_Item[A]]:
        now = asyncio.get_running_loop().time()
        batch: list[_Item[A]] = []
        waiting, most = (self._items, self.max_batch) if self._items else (self._bulk, min(self.max_batch, BULK_BATCH))
        while waiting and len(batch) < most:
            item = waiting.popleft()
            if not item.future.done() and item.deadline > now:
                batch.append(item)
        return batch

    def _compute(self, requests: list[Any]) -> list[Result[A]]:
        start = time.perf_counter()
        try:
            results = [Result(answered, len(requests)) for answered in self.answer(requests)]
        except Exception as error:
            results = [self._alone(request) for request in requests] if len(requests) > 1 else [_failed(error)]
        seconds = time.perf_counter() - start
        self._row_seconds += 0.1 * (seconds / len(requests) - self._row_seconds)
        self.watch(len(requests), seconds)
        return results

    def _alone(self, request: Any) -> Result[A]:
        try:
            [answered] = self.answer([request])
        except Exception as error:
            return _failed(error)
        return Result(answered, 1)


def _failed(error: Exception) -> Result[Any]:
    """Keep the class of an exception: its message may quote a request."""
    log_failure(error)
    return Result(None, 1, type(error).__name__)
