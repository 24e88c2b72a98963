"""The events of one run as they happen: each once, in order, over any number of lost connections."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from cody.client.errors import ApiError, ServerUnreachable, error_of_answer, error_of_detail
from cody.contracts.run import ErrorAnswer, ErrorDetail
from cody.contracts.run_events import ENVELOPE, Custom, RunEvent, read_event
from cody.errors import CodyError, SequenceGap, StoreUnavailable

SILENCE_S = 60.0
"""The server sends a keepalive every 15 s: after four missed ones the connection is dead, though nothing said so."""
GIVE_UP_AFTER_S = 60.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
"""The stream's own `retry:` is for browsers, who all come back at once; one command line may come back sooner."""
MAX_EVENT_BYTES = 64 * 1024 * 1024
DONE = "[DONE]"
AWAY = frozenset({502, 503, 504})
"""On a reconnect: a server that is restarting, or whose Redis is. It comes back."""

OnLost = Callable[[str | None], None]
"""Called with the reason when the connection is lost, and with None when it is back."""


class _Lost(Exception):
    """The connection ended before the stream did."""


@dataclass(slots=True)
class _Cursor:
    last_id: str | None = None
    last_seq: int | None = None


@dataclass(slots=True)
class _Outage:
    """Since when the server is away, and how long to wait before the next try."""

    since_s: float | None = None
    backoff_s: float = FIRST_BACKOFF_S

    def next_wait_s(self, now_s: float, give_up_after_s: float) -> float | None:
        """How long to wait, None when it is time to give up."""
        if self.since_s is None:
            self.since_s = now_s
        if now_s - self.since_s >= give_up_after_s:
            return None
        wait_s = self.backoff_s * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        self.backoff_s = min(MAX_BACKOFF_S, self.backoff_s * 2)
        return wait_s


async def follow(
    http: httpx2.AsyncClient,
    run_id: str,
    from_: str,
    *,
    on_lost: OnLost | None = None,
    give_up_after_s: float = GIVE_UP_AFTER_S,
    silence_s: float = SILENCE_S,
) -> AsyncGenerator[tuple[str, RunEvent], None]:
    """(stream id, event) until the run has ended.

    A lost connection is taken up behind the last event that was given. Raises at once what the first answer says
    (NotFound, StreamTrimmed, StoreUnavailable, ServerUnreachable, ...); later ServerUnreachable when no server has
    answered for `give_up_after_s`, StreamTrimmed when the events between are gone, SequenceGap when some were left out.
    """
    cursor = _Cursor()
    outage = _Outage()
    connected_once = False

    def connected() -> None:
        nonlocal connected_once
        connected_once = True
        if outage.since_s is not None and on_lost is not None:
            on_lost(None)
        outage.since_s = None

    while True:
        try:
            async with aclosing(_connection(http, run_id, from_, cursor, silence_s, connected)) as events:
                async for stream_id, event in events:
                    outage.backoff_s = FIRST_BACKOFF_S
                    yield stream_id, event
            return
        except (_Lost, httpx2.TransportError, StoreUnavailable) as error:
            if not connected_once:
                if isinstance(error, CodyError):
                    raise
                raise ServerUnreachable(
                    f"no Cody server answers at {http.base_url} ({str(error) or type(error).__name__})"
                ) from error
            reason = str(error) or type(error).__name__
        wait_s = outage.next_wait_s(asyncio.get_running_loop().time(), give_up_after_s)
        if wait_s is None:
            raise ServerUnreachable(
                f"the server at {http.base_url} has been away for {give_up_after_s:g} s ({reason}). Run {run_id} is "
                f"taken up when one is started again: `cody serve`, then `cody watch {run_id}`"
            )
        if on_lost is not None:
            on_lost(reason)
        await asyncio.sleep(wait_s)


async def _connection(
    http: httpx2.AsyncClient,
    run_id: str,
    from_: str,
    cursor: _Cursor,
    silence_s: float,
    connected: Callable[[], None],
) -> AsyncGenerator[tuple[str, RunEvent], None]:
    """The events of one connection; returns at the stream's end, raises _Lost or TransportError when it breaks off."""
    timeout = httpx2.Timeout(10.0, read=silence_s)
    headers = {} if cursor.last_id is None else {"Last-Event-ID": cursor.last_id}
    params = {"from": from_} if cursor.last_id is None else {}
    path = f"/api/runs/{quote(run_id, safe='')}/stream"
    async with http.sse(
        path, params=params, headers=headers, timeout=timeout, max_event_size=MAX_EVENT_BYTES
    ) as source:
        response = source.response
        if response.status_code >= 400:
            error = error_of_answer(response.status_code, await response.aread())
            raise _Lost(error.message) if response.status_code in AWAY and cursor.last_id is not None else error
        connected()
        try:
            async for frame in source:
                if frame.id:
                    cursor.last_id = frame.id
                if frame.data == DONE:
                    return
                if frame.event == "error":
                    raise _frame_error(frame.data)
                if frame.data and (event := _take(frame.id, frame.data, cursor)) is not None:
                    yield frame.id, event
        except httpx2.SSEError as error:
            raise ApiError(f"the event stream of run {run_id} is not one: {error}", status=200) from error
    raise _Lost("the server closed the stream before the run had ended")


def _take(stream_id: str, data: str, cursor: _Cursor) -> RunEvent | None:
    """The event of a frame; None for one that was given already."""
    event = _event(stream_id, data)
    last = cursor.last_seq
    if last is not None and event.seq <= last:
        return None
    if last is not None and event.seq != last + 1:
        raise SequenceGap(f"the stream of run {event.run_id} went from event {last} to {event.seq}: events are missing")
    cursor.last_seq = event.seq
    return event


def _event(stream_id: str, data: str) -> RunEvent:
    """The event that is written there; one that a newer server may have more to say with, as Custom under its type."""
    try:
        found = json.loads(data)
        try:
            return read_event(found)
        except ValidationError:
            own = {name: value for name, value in found.items() if name not in ENVELOPE}
            turn = own.get("turn")
            body = Custom(turn=turn if isinstance(turn, int) else None, name=found["type"], data=own)
            return RunEvent(type=found["type"], ts=found["ts"], run_id=found["runId"], seq=found["seq"], body=body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise ApiError(f"event {stream_id} is none (another version of Cody?): {problem}", status=200) from error


def _frame_error(data: str) -> CodyError:
    """What an `event: error` frame says: an error answer, or its detail alone."""
    for model in (ErrorAnswer, ErrorDetail):
        try:
            found = model.model_validate_json(data)
        except ValidationError:
            continue
        return error_of_detail(200, found.error if isinstance(found, ErrorAnswer) else found)
    return ApiError(f"the event stream ended with an error that can't be read: {data[:200]}", status=200)
