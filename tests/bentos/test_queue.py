"""The queue: bounded, in batches of whatever waits, with deadlines, and one bad row harms no other."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from bentos.problems import ProblemError
from bentos.queue import PredictionQueue, Result


class Model:
    """Answers a number by its double, slowly if asked to; remembers its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches = seconds, [[]][:0]

    def __call__(self, requests: Sequence[Any]) -> list[Any]:
        self.batches.append(list(requests))
        time.sleep(self.seconds)
        return [1 / 0 if request == "bad" else request * 2 for request in requests]


def run(model: Model, work: Any, max_rows: int = 100, max_batch: int = 8) -> Any:
    async def whole() -> Any:
        queue: PredictionQueue[Any] = PredictionQueue(model, max_rows, max_batch)
        queue.start()
        try:
            return await work(queue)
        finally:
            await queue.close()

    return asyncio.run(whole())


def test_rows_of_many_clients_share_batches_and_each_gets_its_own_answers() -> None:
    async def work(queue: PredictionQueue[Any]) -> list[list[Result[Any]]]:
        return await asyncio.gather(*(queue.submit([i, i + 100], 10) for i in range(20)))

    model = Model(0.01)
    answers = run(model, work)
    assert [[r.answer for r in rows] for rows in answers] == [[2 * i, 2 * i + 200] for i in range(20)]
    assert max(map(len, model.batches)) == 8
    assert len(model.batches) <= 7


def test_a_lone_row_does_not_wait_for_others() -> None:
    async def work(queue: PredictionQueue[Any]) -> float:
        start = time.perf_counter()
        await queue.submit([1], 10)
        return time.perf_counter() - start

    assert run(Model(), work) < 0.5


def test_a_bad_row_harms_no_other_row_of_its_batch() -> None:
    async def work(queue: PredictionQueue[Any]) -> list[Result[Any]]:
        return await queue.submit([1, "bad", 3], 10)

    found = run(Model(), work)
    assert [r.answer for r in found] == [2, None, 6]
    assert [r.failure for r in found] == ["", "ZeroDivisionError", ""]


def test_a_full_queue_says_when_to_come_back() -> None:
    async def work(queue: PredictionQueue[Any]) -> ProblemError:
        first = asyncio.ensure_future(queue.submit(list(range(10)), 10))
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as full:
            await queue.submit([1], 10)
        await first
        return full.value

    error = run(Model(0.01), work, max_rows=10)
    assert (error.problem.status, error.problem.type) == (503, "urn:hallmark:queue_full")
    assert int(error.headers["retry-after"]) >= 1


def test_a_row_whose_time_is_up_never_occupies_the_model() -> None:
    async def work(queue: PredictionQueue[Any]) -> int:
        slow = asyncio.ensure_future(queue.submit(["slow"], 10))
        await asyncio.sleep(0.05)
        with pytest.raises(ProblemError) as late:
            await queue.submit(["late"], 0.05)
        await slow
        await queue.submit(["after"], 10)
        return late.value.problem.status

    model = Model(0.3)
    assert run(model, work) == 504
    assert model.batches == [["slow"], ["after"]]


def test_a_row_whose_client_has_left_never_occupies_the_model() -> None:
    async def work(queue: PredictionQueue[Any]) -> None:
        slow = asyncio.ensure_future(queue.submit(["slow"], 10))
        await asyncio.sleep(0.05)
        left = asyncio.ensure_future(queue.submit(["left"], 10))
        await asyncio.sleep(0.05)
        left.cancel()
        await slow
        await queue.submit(["after"], 10)

    model = Model(0.3)
    run(model, work)
    assert model.batches == [["slow"], ["after"]]


def test_what_waits_is_answered_before_the_queue_closes() -> None:
    async def work(queue: PredictionQueue[Any]) -> Coroutine[Any, Any, Any]:
        waiting = asyncio.ensure_future(queue.submit(list(range(30)), 10))
        await asyncio.sleep(0)
        await queue.close()
        assert len(await waiting) == 30
        return waiting

    run(Model(0.01), work)
