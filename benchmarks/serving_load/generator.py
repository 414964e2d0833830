"""Load generator of `shortlist bench serving`; it runs in a separate process.

Requests are sent when they are due, even if earlier ones are not answered yet (open load). Arrivals
are a Poisson process, as in the server scenario of MLPerf Inference. Latency is measured from the
time at which a request is due, so it includes waiting behind other requests. The task is read as
JSON from stdin; the result is printed as JSON.
"""

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import numpy as np

CONNECTIONS = 32
"""Number of connections that are kept open."""


class Connection:
    """One HTTP/1.1 connection that stays open between requests."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.is_reused = False
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send one request; return status and body of the response."""
        self.is_reused = self.streams is not None
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        headers = answer.lower()
        length = int(headers.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        return status, await reader.readexactly(length)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


async def send_all(task: dict[str, Any]) -> dict[str, Any]:
    """Send all requests of a task.

    Args:
        task: {"url", "rate": requests per second, "seed", "requests": list of (path, body)}.

    Returns:
        {"latencies" of /recommend in seconds, "errors": texts, "degraded": number of answers in
        which a stage was skipped}.
    """
    url = urlsplit(task["url"])
    assert url.hostname is not None
    assert url.port is not None
    rng = np.random.default_rng(task["seed"])
    due = np.cumsum(rng.exponential(1 / task["rate"], size=len(task["requests"])))
    # Connections are used in turn. Each belongs to one worker of the service; if only a few were
    # used, they could all belong to the same worker.
    free = deque(Connection(url.hostname, url.port) for _ in range(CONNECTIONS))
    latencies: list[float] = []
    errors: list[str] = []
    degraded = 0
    start = time.perf_counter() + 0.2

    async def send(at: float, path: str, body: bytes) -> None:
        nonlocal degraded
        connection = free.popleft() if free else Connection(url.hostname, url.port)  # pyright: ignore[reportArgumentType]
        try:
            try:
                status, answer = await connection.post(path, body)
            except asyncio.IncompleteReadError as error:
                if error.partial or not connection.is_reused:
                    raise
                connection.close()  # the server closed it before, because it was idle
                status, answer = await connection.post(path, body)
        except (OSError, asyncio.IncompleteReadError) as error:
            connection.close()
            errors.append(repr(error))
            return
        if path == "/recommend":
            latencies.append(time.perf_counter() - at)
            degraded += b'"skipped_stages":[]' not in answer
        if status != 200:
            errors.append(f"{status}: {answer[:200].decode(errors='replace')}")
        free.append(connection)

    waiting = []
    for offset, (path, body) in zip(due, task["requests"], strict=True):
        at = start + offset
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        waiting.append(asyncio.create_task(send(at, path, json.dumps(body).encode())))
    await asyncio.gather(*waiting)
    for connection in free:
        connection.close()
    return {"latencies": latencies, "errors": errors, "degraded": degraded}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(send_all(json.load(sys.stdin)))))
