"""A run's events as Server-Sent Events, to one client.

Frames come encoded from the tail that all clients share, are made chunks of HTTP once for all of them, and go out as they
are. A client costs its place in the tail and the task of its request; nothing is queued for it but what its transport
holds (64 KiB and one part), and most of that it shares with the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import cast

from starlette.types import Receive, Scope, Send
from structlog import get_logger

from cody.errors import CodyError
from cody.store.events import Frame
from harness.tail import Reading
from harness.tail_pages import Batch
from server.connection import Connection, chunked, connection_of
from server.grants import grant_of
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
KEEPALIVE = chunked(b":keepalive\n\n")
DONE = b"data: [DONE]\n\n"


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
        "_is_cut_off",
        "_outlet",
        "_streams",
        "_task",
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
        self._is_cut_off = False
        self._outlet: Outlet
        self._connection: Connection
        self._task: asyncio.Task[None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self._connection = connection_of(scope)
        self._outlet = Outlet(send, self._connection, deadline_s=self._streams.send_deadline_s)
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connection.on_lost(self.interrupt)
        self._streams.add(self)
        released = grant_of(scope).hold(self.interrupt)
        try:
            await self._write()
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._task.uncancel()
            await self._break_off()
        finally:
            self._connection.on_lost(None)
            released()
            self._streams.remove(self)

    def interrupt(self) -> None:
        """End the stream now: the client went, or the server ends and the client may come back to the next one."""
        if not self._interrupted:
            self._interrupted = True
            # The one task of this stream; a second one that waits for the disconnect would double its memory.
            self._task.cancel()

    def beat(self) -> None:
        """Say that we are still there, if the client reads."""
        if self._ended:
            return  # one behind the last part would be an error
        outlet = self._outlet
        if not outlet.offer(KEEPALIVE) and outlet.is_overdue:
            self._connection.abort()
            self._was_cut_off()

    async def _break_off(self) -> None:
        """A proper end of the body, if there is still someone to read it and nothing in the way."""
        if self._connection.is_stuck:
            self._connection.abort()
        elif not self._ended:
            self._ended = True
            with contextlib.suppress(ClientGone):
                await self._outlet.write(b"", last=True)

    async def _write(self) -> None:
        batches = self._follow()
        try:
            await self._outlet.write(RETRY)
            if isinstance(batches, Reading):
                await self._send_reading(batches)
            else:
                await self._send_batches(batches)
            last = DONE
        except ClientTooSlow:
            self._was_cut_off()
            return
        except ClientGone:
            return
        except Exception as error:
            last = error_frame(self._problem(error))
        finally:
            if isinstance(batches, Reading | AsyncGenerator):
                await batches.aclose()
        await self._end(last)

    async def _end(self, last: bytes) -> None:
        self._ended = True
        try:
            await self._outlet.write(last, last=True)
        except ClientTooSlow:
            self._was_cut_off()
        except ClientGone:
            pass

    async def _send_reading(self, reading: Reading) -> None:
        """What has piled up, as fast as the client takes it; then each event in the moment that it comes."""
        outlet = self._outlet
        while (found := await reading.next(self._take)) is not None:
            batch, place = found
            reading.sent(batch, place, place + self._send(batch, place))
            # Not held on to while the client does not read: a thousand of those must fit in memory.
            del found, batch
            if not await outlet.writable():
                reading.fell_behind()

    async def _send_batches(self, batches: AsyncIterator[list[Frame]]) -> None:
        async for frames in batches:
            batch, sent = Batch(frames), 0
            while (sent := sent + self._send(batch, sent)) < len(frames):
                await self._outlet.writable()

    def _take(self, batch: Batch) -> int:
        return self._send(batch, 0)

    def _send(self, batch: Batch, place: int) -> int:
        """Send the batch from `place` on, where a part begins, as far as the client takes it; how many frames that were."""
        outlet, reached = self._outlet, place
        for chunk, until in batch.parts(chunked):
            if until > place:
                if not outlet.offer(chunk):
                    break
                reached = until
        self._streams.events_sent += reached - place
        return reached - place

    def _problem(self, error: Exception) -> Problem:
        if isinstance(error, CodyError) and (known := problem_of(error)) is not None:
            return known
        request_id = str(uuid.uuid4())
        log.error("stream.failed", run_id=self.run_id, request_id=request_id, exc_info=error)
        return internal_problem(request_id)

    def _was_cut_off(self) -> None:
        """Counted once: a keepalive and the stream itself may both find that the client was too slow."""
        if not self._is_cut_off:
            self._is_cut_off = True
            self._streams.cut_off += 1
            log.info("stream.cut_off", run_id=self.run_id, client_id=self.client_id)
