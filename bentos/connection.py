"""HTTP connections to our application, with a deadline for headers and refusals in the service's own JSON.

uvicorn bounds how long an idle connection stays open, but not how long the headers of a request may take. BentoML wraps
an application in its own: pages and metrics that know no tokens, a span for every request even where nothing collects
them, and a timer that holds what a request left behind until `traffic.timeout` has passed, 6 KB each.
"""

from asyncio import TimerHandle, Transport
from typing import Any, ClassVar

from uvicorn import config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bentos.problems import problem_response


class Connection(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        application: answers in place of the one that uvicorn was started with; the service sets it when it is ready.
        read_timeout_s: seconds within which the headers of a request must arrive; the service sets it.
    """

    application: ClassVar[Any] = None
    read_timeout_s: ClassVar[float] = 10.0
    waiting: TimerHandle | None = None

    def __init__(self, config: config.Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if (application := type(self).application) is not None:
            trusted = config.forwarded_allow_ips
            self.app = ProxyHeadersMiddleware(application, trusted) if config.proxy_headers else application

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request's headers."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the time limit of a later request's headers; that of the first starts with the connection."""
        super().on_message_begin()
        if self.waiting is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Stop the time limit: the application limits the time from now on."""
        self._stop_waiting()
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless the headers of another request have begun, which have their own limit."""
        if self.waiting is None:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP."""
        self._refuse(400, "invalid_http", "The request is not valid HTTP.")

    def _wait(self) -> None:
        self.waiting = self.loop.call_later(self.read_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def _give_up(self) -> None:
        self.waiting = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # an earlier response is still being sent: nothing may be written into it
        else:
            self._refuse(408, "too_slow", f"The headers did not arrive within {self.read_timeout_s:g} s.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        response = problem_response(status, code, message, headers={"connection": "close"})
        head = b"".join(b"%s: %s\r\n" % pair for pair in response.raw_headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + response.body)
        self.transport.close()


def install() -> None:
    """Make uvicorn use `Connection` for the servers that this process starts."""
    protocols: dict[str, Any] = config.HTTP_PROTOCOLS
    protocols["auto"] = f"{__name__}:{Connection.__name__}"
