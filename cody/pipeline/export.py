"""A run or a thread as one file, from the archive: JSONL for programs, Markdown for people. Streamed, never held whole.

JSONL, one object a line, the first names what follows:
    {"kind": "run", "run": RunSnapshot} {"kind": "turn", "turn": TurnRecord}... {"kind": "event", "id", "event": RunEvent}...
    {"kind": "thread", "threadId", "responses": count} {"kind": "response", "response": Response}...
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson

from cody.contracts.responses import Response
from cody.contracts.run import RunSnapshot, TurnRecord
from cody.errors import NotFound
from cody.pipeline import export_markdown as markdown
from cody.pipeline.archive import Archive, ResponseRow
from cody.sealing import SEALED
from cody.store.events import Frame

ExportFormat = Literal["jsonl", "md"]
MEDIA_TYPES: dict[ExportFormat, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}

EVENTS_AT_ONCE = 500
RESPONSES_AT_ONCE = 20
"""One may have some megabytes."""
HIDDEN = "[sealed]"


async def export_run(archive: Archive, run_id: str, format: ExportFormat) -> AsyncIterator[bytes]:
    """The file in pieces. Raises NotFound before the first piece, ArchiveUnavailable also between them."""
    run = unsealed(await archive.snapshot(run_id))
    turns = await archive.turn_records(run_id)
    return _run_lines(archive, run, turns) if format == "jsonl" else _run_markdown(archive, run, turns)


async def export_thread(archive: Archive, thread_id: str, format: ExportFormat) -> AsyncIterator[bytes]:
    """The file in pieces. Raises NotFound for a thread without a Response."""
    count = await archive.count_of_thread(thread_id)
    if not count:
        raise NotFound(f"no thread {thread_id[:128]} in the archive")
    rows = _responses(archive, thread_id, count)
    return _thread_lines(thread_id, count, rows) if format == "jsonl" else _thread_markdown(thread_id, rows)


def unsealed(run: RunSnapshot) -> RunSnapshot:
    """The snapshot without the sealed values of config.env: an export leaves the house. Pure."""
    env = {name: HIDDEN if value.startswith(SEALED) else value for name, value in run.config.env.items()}
    return run.model_copy(update={"config": run.config.model_copy(update={"env": env})})


async def _run_lines(archive: Archive, run: RunSnapshot, turns: list[TurnRecord]) -> AsyncIterator[bytes]:
    yield _line({"kind": "run", "run": run.model_dump(mode="json", by_alias=True)})
    for turn in turns:
        yield _line({"kind": "turn", "turn": turn.model_dump(mode="json", by_alias=True)})
    async for frames in _events(archive, run.run_id):
        yield b"".join(b'{"kind":"event","id":"%b","event":%b}\n' % (frame.id.encode(), frame.data) for frame in frames)


async def _run_markdown(archive: Archive, run: RunSnapshot, turns: list[TurnRecord]) -> AsyncIterator[bytes]:
    yield markdown.run_head(run).encode("utf-8", "replace")
    heads = {turn.turn: markdown.turn_head(turn) for turn in turns}
    async for frames in _events(archive, run.run_id):
        text = ""
        for frame in frames:
            found: dict[str, Any] = orjson.loads(frame.data)
            # A turn's head comes before the first thing that belongs to it.
            text += heads.pop(found.get("turn", 0), "") + markdown.event(found)
        if text:
            yield text.encode("utf-8", "replace")
    if heads:
        yield "".join(heads.values()).encode("utf-8", "replace")


async def _events(archive: Archive, run_id: str) -> AsyncIterator[list[Frame]]:
    seq = 0
    while frames := await archive.events_after(run_id, seq, count=EVENTS_AT_ONCE):
        yield frames
        seq = frames[-1].seq


async def _responses(archive: Archive, thread_id: str, count: int) -> AsyncIterator[ResponseRow]:
    """The first `count` Responses of a thread: those that begin meanwhile are no part of what was counted."""
    last: ResponseRow | None = None
    while count > 0:
        rows = await archive.responses_of_thread_after(thread_id, last, count=min(count, RESPONSES_AT_ONCE))
        if not rows:
            return
        for row in rows:
            yield row
        last, count = rows[-1], count - len(rows)


async def _thread_lines(thread_id: str, count: int, rows: AsyncIterator[ResponseRow]) -> AsyncIterator[bytes]:
    yield _line({"kind": "thread", "threadId": thread_id, "responses": count})
    async for row in rows:
        yield b'{"kind":"response","response":%b}\n' % row.response.encode()


async def _thread_markdown(thread_id: str, rows: AsyncIterator[ResponseRow]) -> AsyncIterator[bytes]:
    yield markdown.thread_head(thread_id).encode()
    async for row in rows:
        yield markdown.response(Response.model_validate_json(row.response)).encode("utf-8", "replace")


def _line(value: dict[str, object]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
