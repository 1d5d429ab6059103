"""A client for measurements: many connections that are kept open, with as little work of its own as possible."""

import asyncio
import time
from collections.abc import Sequence


async def fire(
    port: int, path: str, bodies: Sequence[bytes], clients: int, seconds: float, headers: str = ""
) -> tuple[list[float], int]:
    """Send requests from several clients, each one after the other.

    Args:
        port: on loopback.
        path: of the endpoint.
        bodies: JSON; the clients take them in turn.
        clients: connections.
        seconds: how long.
        headers: further lines, each ending in CRLF.

    Returns:
        Seconds of every request, and the number that were not answered with status 200.
    """
    took: list[float] = []
    failed = 0
    messages = [
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        place = number
        while time.perf_counter() < until:
            start = time.perf_counter()
            writer.write(messages[place % len(messages)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            took.append(time.perf_counter() - start)
            failed += not head.startswith(b"HTTP/1.1 200")
            place += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took, failed
