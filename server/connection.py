"""One HTTP connection: uvicorn's, plus what a server of long streams needs of it (uvicorn 0.54, httptools)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import uvicorn
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.guards import with_security
from server.lean import LeanEvent, LeanFlow, LeanQueue
from server.problems import Problem

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers together; httptools itself has no limit."""
MAX_MESSAGE_BYTES = 16 << 20
"""A whole request. A refused body is still read, and forgotten, up to here, so that its sender gets to the answer."""
REQUEST_DEADLINE_S = 30.0
"""From a connection's begin, or a request's first byte, to the request's last: a client on the same machine needs no time.
Without it, one that sends a byte now and then holds its connection, and what was read of its body, for ever."""
MAX_CONNECTIONS = 60_000


class Connection(Protocol):
    """What an answer may know of, and do to, the connection it goes out on."""

    @property
    def is_stuck(self) -> bool:
        """The client reads slower than we write: the next send waits."""
        ...

    @property
    def is_lost(self) -> bool: ...

    def abort(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        ...

    def on_lost(self, call: Callable[[], None] | None) -> None:
        """Call this when the connection is lost; one at a time, None takes it back."""
        ...

    def offer(self, chunk: bytes) -> bool:
        """Write a chunk (see `chunked`) of a body, unless the connection is stuck or lost: then False.

        For bodies of very many parts, and for parts that go to many clients: by way of ASGI's `send` each costs about
        three times as much, and a copy of it for each client that does not read.
        """
        ...

    async def unstuck(self) -> None:
        """Wait until the client has read what waits for it, or is lost."""
        ...


def chunked(part: bytes) -> bytes:
    """This as a chunk of a body with `transfer-encoding: chunked`."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def connection_of(scope: Scope) -> Connection:
    """The connection that a request came in on."""
    found: Connection = scope["state"]["connection"]
    return found


class ServerConfig(uvicorn.Config):
    """uvicorn's settings as Cody needs them; `on_connections` hears how many connections are open after each change."""

    def __init__(
        self,
        app: Any,
        *,
        on_connections: Callable[[int], None],
        request_deadline_s: float = REQUEST_DEADLINE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        super().__init__(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self.on_connections = on_connections
        self.request_deadline_s = request_deadline_s
        self.max_connections = max_connections


class HttpConnection(HttpToolsProtocol):
    """Bounded headers, errors in our shape, and what `Connection` promises."""

    # uvicorn's class has as many attributes as Python keeps in a shared layout: one more costs 1.5 KB a client.
    __slots__ = ("_call_when_lost", "_deadline", "_in_head", "_message_bytes", "_running")

    config: ServerConfig

    def __init__(
        self,
        config: ServerConfig,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._message_bytes = 0
        self._running: RequestResponseCycle | None = None
        self._call_when_lost: Callable[[], None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.pipeline = LeanQueue()  # type: ignore[assignment]

    @property
    def is_stuck(self) -> bool:
        return self.flow.write_paused

    @property
    def is_lost(self) -> bool:
        return self.transport.is_closing()

    def abort(self) -> None:
        # close() waits until everything is written: for ever, if the client does not read.
        self.transport.abort()

    def on_lost(self, call: Callable[[], None] | None) -> None:
        self._call_when_lost = call

    def offer(self, chunk: bytes) -> bool:
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(chunk)
        return True

    async def unstuck(self) -> None:
        await self.flow.drain()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = LeanFlow(transport)  # type: ignore[assignment]
        if len(self.connections) > self.config.max_connections:
            # Each is an open file: strangers could take those that agents and Redis need.
            self.transport.abort()
            return
        self._begin_deadline()
        self.config.on_connections(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_deadline()
        # uvicorn itself tells only the newest of pipelined requests: a stream before it would never know.
        if self._call_when_lost is not None:
            self._call_when_lost()
        self.config.on_connections(len(self.connections))

    def data_received(self, data: bytes) -> None:
        # Looked at before the packet is counted: head and body of a small request come in one.
        if self._in_head and self._message_bytes > MAX_HEAD_BYTES:
            self._refuse(Problem(431, "headers_too_large", f"more than {MAX_HEAD_BYTES} bytes of headers"))
        elif self._message_bytes > MAX_MESSAGE_BYTES:
            self.transport.close()
        else:
            self._message_bytes += len(data)
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_deadline()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        # The request's task has not run yet, and nothing of the body was taken in.
        self.cycle.message_event = LeanEvent()  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        self._in_head = True
        self._message_bytes = 0
        self._end_deadline()
        super().on_message_complete()

    def _begin_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.config.request_deadline_s, self._too_slow)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        seconds = self.config.request_deadline_s
        if self._message_bytes == 0:
            self.transport.close()  # opened ahead of need, as browsers do: there is nothing to answer
            return
        self._refuse(Problem(408, "request_timeout", f"the request was not complete after {seconds:g} s"))
        if self.is_stuck:
            self.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "invalid_request", "this is not HTTP as the server understands it"))

    def _refuse(self, problem: Problem) -> None:
        """Answer what never became a request, and close."""
        running = self._running
        if running is not None and running.response_started and not running.response_complete:
            self.transport.close()  # an answer is on its way: another one in its midst would only confuse
            return
        body = problem.body
        headers = with_security(
            [
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
        )
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        phrase = HTTPStatus(problem.status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (problem.status, phrase, lines, body))
        self.transport.close()
