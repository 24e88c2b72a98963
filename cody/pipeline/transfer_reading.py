"""What is read of a local Cody over its public API, to be sent to another: a run with its events, a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import BinaryIO
from urllib.parse import quote

import httpx2
import orjson
from pydantic import ValidationError

from cody.client import ApiError, CodyClient, ServerUnreachable
from cody.client.discovery import is_loopback
from cody.client.errors import error_of_answer
from cody.contracts.responses import Response
from cody.contracts.run import TERMINAL
from cody.errors import Conflict, SequenceGap
from cody.pipeline.record_lines import lines_of
from cody.pipeline.transfer import LINE, EventLine, ResponseLine, RunHead, ThreadHead, TurnLine, encoded, event_line

TIMEOUT_S = 120.0
TRIES = 5
BETWEEN_TRIES_S = 0.5
MAX_EVENT_BYTES = 64 << 20
DONE = "[DONE]"


async def write_run(client: CodyClient, token: str | None, run_id: str, file: BinaryIO) -> None:
    """Write the record of a run that has ended; raises NotFound, Conflict while it goes on, and what the client raises."""
    run = await client.snapshot(run_id)
    if run.status not in TERMINAL:
        raise Conflict(
            f"run {run_id} is {run.status}: its record is whole when it has ended (`cody watch {run_id[:8]}`)"
        )
    # Who happens to look at it now is no part of its record.
    file.write(encoded(RunHead(run=run.model_copy(update={"subscribers": 0, "queue_place": None}))))
    turns = await client.turns(run_id)
    for turn in turns:
        file.write(encoded(TurnLine(turn=turn)))
    async for answer in _responses(client.url, token, [turn.response_id for turn in turns]):
        file.write(encoded(ResponseLine(response=answer)))
    async for line in run_events(client.url, token, run_id):
        file.write(encoded(line))


async def _responses(url: str, token: str | None, response_ids: Sequence[str]) -> AsyncGenerator[Response]:
    """Those of these Responses that have ended and are archived, in this order."""
    try:
        async with _http(url, token) as http:
            for response_id in response_ids:
                answer = await http.get(f"{url}/api/v2/responses/{quote(response_id, safe='')}")
                if answer.status_code == 404:
                    continue
                if answer.status_code >= 400:
                    raise error_of_answer(answer.status_code, answer.content)
                response = Response.model_validate_json(answer.content)
                if response.is_terminal:
                    yield response
    except httpx2.TransportError as error:
        raise ServerUnreachable(f"no Cody server answers at {url} ({type(error).__name__}: {error})") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ApiError(f"a turn's response can't be read ({problem['msg']})", status=200) from None


async def write_thread(url: str, token: str | None, thread_id: str, file: BinaryIO) -> None:
    """Write the record of a thread whose answers have all ended, however many; one is held at a time.

    Raises NotFound, Conflict while one goes on, ServerUnreachable, ApiError.
    """
    path = f"{url}/api/v2/threads/{quote(thread_id, safe='')}/export"
    try:
        async with _http(url, token) as http, http.stream("GET", path, params={"format": "jsonl"}) as answer:
            if answer.status_code >= 400:
                raise error_of_answer(answer.status_code, await answer.aread())
            await _copy_thread(thread_id, lines_of(answer.aiter_raw()), file)
    except httpx2.TransportError as error:
        raise ServerUnreachable(f"no Cody server answers at {url} ({type(error).__name__}: {error})") from error


async def _copy_thread(thread_id: str, lines: AsyncGenerator[bytes], file: BinaryIO) -> None:
    try:
        announced = orjson.loads(await anext(lines, b"")).get("responses")
        file.write(encoded(ThreadHead(thread_id=thread_id)))
        count = 0
        async for line in lines:
            found = LINE.validate_json(line)
            if not isinstance(found, ResponseLine):
                raise ValueError(f"line {count + 2} is no Response")
            if not found.response.is_terminal:
                raise Conflict(f"thread {thread_id}: response {found.response.id} has not ended yet")
            file.write(encoded(found))
            count += 1
        if count != announced:
            raise ValueError(f"{announced} Responses were announced, {count} came")
    except (ValueError, AttributeError) as error:  # pydantic's and orjson's are ValueErrors, too
        raise ApiError(f"thread {thread_id}: what came is no export of it ({str(error)[:200]})", status=200) from None


async def run_events(url: str, token: str | None, run_id: str) -> AsyncGenerator[EventLine, None]:
    """All events of a run that has ended, as they are written; a connection that breaks off is taken up again.

    Not by the client's own stream: that reads events into models, and a newer server's would not come out as they were.
    Raises what the server says (StreamTrimmed, NotFound, ...), ServerUnreachable, SequenceGap.
    """
    last_id: str | None = None
    last_seq = tries = 0
    path = f"{url}/api/runs/{quote(run_id, safe='')}/stream"
    async with _http(url, token) as http:
        while True:
            headers = {} if last_id is None else {"Last-Event-ID": last_id}
            try:
                async with http.sse(
                    path, params={"from": "0"}, headers=headers, max_event_size=MAX_EVENT_BYTES
                ) as source:
                    if source.response.status_code >= 400:
                        raise error_of_answer(source.response.status_code, await source.response.aread())
                    async for frame in source:
                        if frame.data == DONE:
                            return
                        if frame.event == "error":
                            raise error_of_answer(503, frame.data.encode())
                        if not frame.id or not frame.data:
                            continue
                        line = _line(run_id, frame.id, frame.data)
                        if line.seq != last_seq + 1:
                            raise SequenceGap(f"run {run_id}: event {line.seq} comes after event {last_seq}")
                        yield line
                        last_id, last_seq, tries = frame.id, line.seq, 0
                why = "the server closed the stream before its end"
            except (httpx2.TransportError, httpx2.SSEError) as error:
                why = f"{type(error).__name__}: {error}"
            tries += 1
            if tries == TRIES:
                raise ServerUnreachable(f"the events of run {run_id} can't be read from {url} ({why})")
            await asyncio.sleep(BETWEEN_TRIES_S)


def _line(run_id: str, stream_id: str, data: str) -> EventLine:
    try:
        return event_line(stream_id, data)
    except ValueError as error:
        raise ApiError(f"run {run_id}: {error}", status=200) from None


def _http(url: str, token: str | None) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else None
    return httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=not is_loopback(url), headers=headers)
