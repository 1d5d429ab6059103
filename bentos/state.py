"""What the routes of one service share, and how they find the caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from bentos.engine import Answer, Engine
from bentos.guard import Guard
from bentos.identity import Identity, Principal
from bentos.jobs import JobStore
from bentos.messages import Bodies
from bentos.metrics import Metrics
from bentos.problems import ProblemError
from bentos.queue import PredictionQueue
from bentos.rates import Rates
from bentos.settings import Settings
from bentos.stopped import StoppedAdapters
from bentos.traces import Traces
from bentos.witness import Witness
from hallmark.records.writer import RecordWriter


class KeyLocks:
    """One lock per client and idempotency key: calls with the same key pass one after the other."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, client_id: str, key: str | None) -> AsyncIterator[None]:
        """Hold the lock of a key while the block runs; a call without a key does not wait."""
        if key is None:
            yield
            return
        name = (client_id, key)
        lock, waiting = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[name]
            if waiting == 1:
                del self._locks[name]
            else:
                self._locks[name] = lock, waiting - 1


@dataclass
class State:
    """Parts of a running service.

    Attributes:
        settings: of the service.
        engine: holds the model that answers.
        queue: rows that wait for it.
        records: keeps what is answered.
        witness: computes some answers again.
        guard: rolls a version back that fails.
        stopped: adapters that may not serve.
        jobs: files of requests.
        identity: identifies callers.
        rates: counts their rows.
        metrics: of this process.
        traces: of this process.
        bodies: types of requests and responses.
        names: property names of a request, which an error may repeat.
        machine_sha256: digest of this machine's description.
        key_locks: of idempotency keys.
        measuring: held while the influences of one answer are measured.
        background: work that goes on after its response; the service waits for it before it stops.
    """

    settings: Settings
    engine: Engine
    queue: PredictionQueue[Answer]
    records: RecordWriter
    witness: Witness
    guard: Guard
    stopped: StoppedAdapters
    jobs: JobStore
    identity: Identity
    rates: Rates
    metrics: Metrics
    traces: Traces
    bodies: Bodies
    names: frozenset[str]
    machine_sha256: str
    key_locks: KeyLocks = field(default_factory=KeyLocks)
    measuring: asyncio.Lock = field(default_factory=asyncio.Lock)
    background: "set[asyncio.Task[None]]" = field(default_factory=set)

    def warnings(self) -> list[str]:
        """List what the operator of the service should know."""
        found = []
        if self.settings.public_key is None:
            found.append("no signature is asked for: set HALLMARK_PUBLIC_KEY")
        if damaged := len(self.engine.served.model.damaged):
            found.append(f"{damaged} files of the bundle are missing or changed: `hallmark verify` names the first")
        if not self.identity.configured:
            found.append("every call is refused: set HALLMARK_AUTH__KEYS_FILE or HALLMARK_AUTH__JWT__…")
        if self.guard.told:
            found.append(f"the guard has acted: {self.guard.told}")
        if not self.stopped.known:
            found.append("which adapters are stopped could not be read yet: all of them serve")
        if self.records.failures:
            found.append("the records database does not answer, the log says why: answers are kept in the spool")
        if not self.settings.records.keep_requests:
            found.append("requests are not kept: answers cannot be replayed")
        return found


def state_of(request: Request) -> State:
    """Return the service of a request."""
    return cast(State, request.app.state.service)


def identify(request: Request) -> Principal:
    """Identify the caller.

    Raises:
        ProblemError: 401, or 429 for an address that has failed too often.
    """
    state = state_of(request)
    address = request.client.host if request.client else ""
    state.rates.check_failures(address)
    try:
        return state.identity.identify(request.headers.get("authorization"), request.headers.get("x-api-key"))
    except ProblemError:
        state.rates.count_failure(address)
        raise


DOCUMENTED = [Depends(HTTPBearer(auto_error=False)), Depends(APIKeyHeader(name="x-api-key", auto_error=False))]
"""Dependencies that describe the headers in the OpenAPI document; `identify` reads them."""

Service = Annotated[State, Depends(state_of)]
Caller = Annotated[Principal, Depends(identify)]
