"""The client's side: the events of a Response over SSE, and the Response that they make, by the projector's own reducer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import quote

import httpx2

from cody.client.errors import ServerUnreachable, error_of_answer
from cody.client.stream import AWAY, DONE, FIRST_BACKOFF_S, GIVE_UP_AFTER_S, MAX_BACKOFF_S, MAX_EVENT_BYTES, SILENCE_S
from cody.contracts.responses import Response
from cody.contracts.stream_events import MalformedEvent, StreamEvent, read_stream_event
from cody.errors import CodyError, StreamTrimmed
from cody.pipeline.reducer import reduce
from cody.pipeline.refusals import EventRefused
from cody.pipeline.response_state import ReducerState

OnChange = Callable[[Response], object]


class Hydrator:
    """A Response from its events, in order; those that come again change nothing. No I/O."""

    def __init__(self) -> None:
        self._state: ReducerState | None = None
        self.refused: list[EventRefused | MalformedEvent] = []
        """What could not be applied: the projector parks the same ones."""
        self.last_event_id: str | None = None

    @property
    def response(self) -> Response | None:
        """As far as it has come; None before the first event."""
        return None if self._state is None else self._state.response

    def feed(self, event: StreamEvent, *, event_id: str | None = None) -> Response | None:
        """The Response after this event."""
        try:
            self._state = reduce(self._state, event)
        except EventRefused as error:
            self.refused.append(error)
        self.last_event_id = event_id or self.last_event_id
        return self.response

    def feed_json(self, data: str, *, event_id: str | None = None) -> Response | None:
        """The same for an event as it came: a newer server may send types that are not known here."""
        try:
            event = read_stream_event(data)
        except MalformedEvent as error:
            self.refused.append(error)
            self.last_event_id = event_id or self.last_event_id
            return self.response
        return self.feed(event, event_id=event_id)


async def hydrate(
    http: httpx2.AsyncClient,
    response_id: str,
    *,
    on_change: OnChange | None = None,
    give_up_after_s: float = GIVE_UP_AFTER_S,
    hydrator: Hydrator | None = None,
) -> Response:
    """The Response when it has ended; `on_change` sees it after each event.

    A lost connection is taken up behind the last event. A Response whose first events are not kept any more is read from
    the archive. Raises NotFound, ServerUnreachable after `give_up_after_s`, and what the server's answers say.
    """
    one = hydrator or Hydrator()
    loop = asyncio.get_running_loop()
    away_since_s: float | None = None
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            async with aclosing(_frames_of(http, response_id, one.last_event_id)) as frames:
                async for event_id, data in frames:
                    away_since_s, backoff_s = None, FIRST_BACKOFF_S
                    response = one.feed_json(data, event_id=event_id)
                    if response is not None and on_change is not None:
                        on_change(response)
        except StreamTrimmed:
            return await read_response(http, response_id)
        except (httpx2.TransportError, httpx2.SSEError, ServerUnreachable) as error:
            away_since_s = away_since_s or loop.time()
            if loop.time() - away_since_s >= give_up_after_s:
                raise ServerUnreachable(
                    f"the server at {http.base_url} has been away for {give_up_after_s:g} s ({error})"
                ) from error
            await asyncio.sleep(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
            continue
        if one.response is None or not one.response.is_terminal:
            # Its beginning was trimmed: the rest alone says nothing.
            return await read_response(http, response_id)
        return one.response


async def events_of(
    http: httpx2.AsyncClient, response_id: str, *, last_event_id: str | None = None
) -> AsyncGenerator[tuple[str, StreamEvent], None]:
    """(stream id, event) of one connection, to the end of the stream.

    Raises TransportError when it breaks off, and MalformedEvent for what is no event that this version knows.
    """
    async with aclosing(_frames_of(http, response_id, last_event_id)) as frames:
        async for event_id, data in frames:
            yield event_id, read_stream_event(data)


async def _frames_of(
    http: httpx2.AsyncClient, response_id: str, last_event_id: str | None
) -> AsyncGenerator[tuple[str, str], None]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    timeout = httpx2.Timeout(10.0, read=SILENCE_S)
    path = f"/api/v2/stream/{quote(response_id, safe='')}"
    async with http.sse(path, headers=headers, timeout=timeout, max_event_size=MAX_EVENT_BYTES) as source:
        answer = source.response
        if answer.status_code >= 400:
            raise _error(answer.status_code, await answer.aread())
        async for frame in source:
            if frame.data == DONE:
                return
            if frame.event == "error":
                raise error_of_answer(200, frame.data.encode())
            if frame.data:
                yield frame.id or "", frame.data
    raise httpx2.RemoteProtocolError("the server closed the stream before the response had ended")


async def read_response(http: httpx2.AsyncClient, response_id: str) -> Response:
    """The Response as the archive has it. Raises NotFound, and what else the server's answer says."""
    answer = await http.get(f"/api/v2/responses/{quote(response_id, safe='')}")
    if answer.status_code >= 400:
        raise error_of_answer(answer.status_code, answer.content)
    return Response.model_validate_json(answer.content)


def _error(status: int, body: bytes) -> CodyError:
    error = error_of_answer(status, body)
    return ServerUnreachable(error.message) if status in AWAY else error
