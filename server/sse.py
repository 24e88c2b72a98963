"""A run's events as Server-Sent Events, to one client.

Frames come encoded from the tail that all clients share and go out as they are, joined per batch. A client costs its
place in the tail, the task of its request and a timer; nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import cast

from starlette.types import Receive, Scope, Send
from structlog import get_logger

from cody.errors import CodyError
from cody.store.events import Frame
from server.connection import Connection, connection_of
from server.outlet import ClientGone, ClientTooSlow, Outlet
from server.problems import Problem, internal_problem, problem_of
from server.streams import OpenStreams

log = get_logger()

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"transfer-encoding", b"chunked"),  # what `Connection.offer` relies on
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
RETRY = b"retry: 2000\n\n"
KEEPALIVE = b":keepalive\n\n"
DONE = b"data: [DONE]\n\n"
PART_BYTES = 32 << 10
"""Sent at once: large enough for a fast replay, small enough that a thousand stalled readers fit in memory."""


def parts(frames: Sequence[Frame]) -> Iterable[bytes]:
    """Whole frames, joined to parts of about PART_BYTES."""
    if len(frames) == 1:  # a quiet run: what most deliveries are
        return (frames[0].sse,)
    return _joined(frames)


def _joined(frames: Sequence[Frame]) -> Iterator[bytes]:
    begin, size = 0, 0
    for place, frame in enumerate(frames):
        size += len(frame.sse)
        if size >= PART_BYTES:
            yield b"".join([one.sse for one in frames[begin : place + 1]])
            begin, size = place + 1, 0
    if size:
        yield b"".join([one.sse for one in frames[begin:]])


def error_frame(problem: Problem) -> bytes:
    """The last frame of a stream that can't go on."""
    return b"event: error\ndata: %b\n\n" % problem.body


class EventStream:
    """The answer to a request for a run's events; an ASGI application. `follow` is called when the body begins."""

    __slots__ = (
        "_connection",
        "_ended",
        "_follow",
        "_interrupted",
        "_keepalive",
        "_outlet",
        "_streams",
        "_task",
        "_timer",
        "client_id",
        "run_id",
    )

    def __init__(self, run_id: str, follow: Callable[[], AsyncIterator[list[Frame]]], streams: OpenStreams) -> None:
        self.run_id = run_id
        self.client_id = str(uuid.uuid4())
        self._follow = follow
        self._streams = streams
        self._ended = False
        self._interrupted = False
        self._outlet: Outlet
        self._connection: Connection
        self._task: asyncio.Task[None]
        self._timer: asyncio.TimerHandle
        self._keepalive: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        loop = asyncio.get_running_loop()
        self._connection = connection_of(scope)
        self._outlet = Outlet(send, self._connection, deadline_s=self._streams.send_deadline_s)
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._timer = loop.call_later(self._streams.keepalive_s, self._beat)
        self._connection.on_lost(self.interrupt)
        with self._streams.listed(self):
            try:
                await self._write()
            except asyncio.CancelledError:
                if not self._interrupted:
                    raise
                self._task.uncancel()
                await self._break_off()
            finally:
                self._connection.on_lost(None)
                self._silence()

    def interrupt(self) -> None:
        """End the stream now: the client went, or the server ends and the client may come back to the next one."""
        if not self._interrupted:
            self._interrupted = True
            # The one task of this stream; a second one that waits for the disconnect would double its memory.
            self._task.cancel()

    async def _break_off(self) -> None:
        """A proper end of the body, if there is still someone to read it and nothing in the way."""
        self._silence()
        if self._connection.is_stuck:
            self._connection.abort()
        elif not self._ended:
            with contextlib.suppress(ClientGone):
                await self._outlet.write(b"", last=True)

    def _silence(self) -> None:
        """No keepalive after this: one behind the last part would be an error."""
        self._timer.cancel()
        if self._keepalive is not None:
            self._keepalive.cancel()

    async def _write(self) -> None:
        try:
            await self._outlet.write(RETRY)
            last = await self._events()
            self._silence()
            self._ended = True
            await self._outlet.write(last, last=True)
        except ClientTooSlow:
            self._was_cut_off()
        except ClientGone:
            pass

    async def _events(self) -> bytes:
        """Send events as they come; then answers how the stream is to end."""
        batches, outlet, streams = self._follow(), self._outlet, self._streams
        try:
            async for batch in batches:
                for part in parts(batch):
                    if not outlet.offer(part):
                        await outlet.write(part)
                streams.events_sent += len(batch)
        except ClientGone:
            raise
        except Exception as error:
            return error_frame(self._problem(error))
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()
        return DONE

    def _problem(self, error: Exception) -> Problem:
        if isinstance(error, CodyError) and (known := problem_of(error)) is not None:
            return known
        request_id = str(uuid.uuid4())
        log.error("stream.failed", run_id=self.run_id, request_id=request_id, exc_info=error)
        return internal_problem(request_id)

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._streams.keepalive_s, self._beat)
        # One that still waits for a slow client is enough; it has a deadline, as every send.
        if not self._outlet.offer(KEEPALIVE) and (self._keepalive is None or self._keepalive.done()):
            self._keepalive = asyncio.create_task(self._keep_alive())

    async def _keep_alive(self) -> None:
        try:
            await self._outlet.write(KEEPALIVE)
        except ClientTooSlow:
            self._was_cut_off()
        except ClientGone:
            pass

    def _was_cut_off(self) -> None:
        self._streams.cut_off += 1
        log.info("stream.cut_off", run_id=self.run_id, client_id=self.client_id)
