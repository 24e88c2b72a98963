"""What is sent from one Cody to another: a run, a thread or a session file, as lines. A record is a file that stands still.

A run is written as one `run` line, a `turn` line each turn, a `response` line each turn's Response and an `event` line each
event; a thread as one `thread` line and a `response` line each Response. Any other file goes as it is.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import orjson
from pydantic import Field, TypeAdapter

from cody.contracts.responses import Response
from cody.contracts.run import RunSnapshot, TurnRecord
from cody.contracts.wire import Int, Wire
from cody.errors import Conflict, InvalidRequest
from cody.sync.policy import id_fault

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 20
"""A session file's first line carries the agent's instructions."""
_EVENT = re.compile(r'\{"type":"([^"\\]+)","ts":"([^"\\]+)","runId":"[^"\\]+","seq":([0-9]{1,18})([,}])')
_SESSION_ID = re.compile(r"[0-9A-Za-z-]{8,64}\Z")


class RunHead(Wire):
    kind: Literal["run"] = "run"
    version: Literal[1] = 1
    run: RunSnapshot


class TurnLine(Wire):
    kind: Literal["turn"] = "turn"
    turn: TurnRecord


class EventLine(Wire):
    """`payload` is JSON text, as the store keeps it: what is archived there is byte for byte what is archived here."""

    kind: Literal["event"] = "event"
    event_id: str
    seq: Int
    type: str
    ts: str
    turn: Int | None = None
    payload: str


class ThreadHead(Wire):
    kind: Literal["thread"] = "thread"
    version: Literal[1] = 1
    thread_id: str


class ResponseLine(Wire):
    kind: Literal["response"] = "response"
    response: Response


RecordLine = RunHead | TurnLine | EventLine | ThreadHead | ResponseLine
LINE: TypeAdapter[RecordLine] = TypeAdapter(Annotated[RecordLine, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Record:
    """The first `size` bytes of a file, and the conversation that they are the record of."""

    path: Path
    size: int
    conversation_id: str
    thread_id: str | None = None


def run_conversation(run_id: str) -> str:
    return f"run:{run_id}"


def thread_conversation(thread_id: str) -> str:
    return f"thread:{thread_id}"


def event_line(stream_id: str, data: str) -> EventLine:
    """The line of an event as the stream shows it: one flat object, its envelope first; the rest stays as it is written.

    Raises ValueError for an object that no Cody wrote.
    """
    found = _EVENT.match(data)
    if found is None:
        raise ValueError(f"event {stream_id} of the run's stream is none of Cody's")
    kind, ts, seq, more = found.groups()
    payload = "{" + data[found.end() :] if more == "," else "{}"
    turn = orjson.loads(data).get("turn")
    known = turn if isinstance(turn, int) else None
    return EventLine(event_id=stream_id, seq=int(seq), type=kind, ts=ts, turn=known, payload=payload)


def encoded(line: Wire) -> bytes:
    """The line, with its newline."""
    return line.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n"


async def spooled(path: Path, write: Callable[[BinaryIO], Awaitable[None]]) -> int:
    """The size of the file that `write` has filled; a file that is there already is whole, and kept."""
    size = _size(path)
    if size is None:
        part = path.with_name(path.name + ".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            await write(file)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    return size


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def file_record(path: Path, conversation_id: str | None = None) -> Record:
    """The record of a file as long as it is now: one that grows is sent up to here. Raises InvalidRequest."""
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest(f"{path} is not a file")
    if found.st_size == 0:
        raise InvalidRequest(f"{path} is empty: there is nothing to send")
    session = codex_session(path)
    where = f"file:{socket.gethostname()}:{path.resolve()}"
    chosen = conversation_id or (f"codex:{session}" if session else where)
    fault = id_fault("the conversation's id", chosen)
    if fault is not None:
        raise InvalidRequest(f"{fault.message}; give another one with --as")
    return Record(path.resolve(), found.st_size, chosen, session)


def codex_session(path: Path) -> str | None:
    """The thread that a session file of codex is of (`sessions/**/rollout-*.jsonl`, codex 0.163); None for other files."""
    try:
        with path.open("rb") as file:
            head = orjson.loads(file.readline(HEAD_BYTES))
    except (OSError, orjson.JSONDecodeError):
        return None
    match head:
        case {"type": "session_meta", "payload": {"id": str(session)}} if _SESSION_ID.match(session):
            return session
        case _:
            return None


def blocks(record: Record) -> Generator[bytes, None, None]:
    """The bytes of the record; raises Conflict when its file has become shorter."""
    left = record.size
    with record.path.open("rb") as file:
        while left:
            block = file.read(min(left, BLOCK_BYTES))
            if not block:
                raise Conflict(f"{record.path} became shorter while it was sent: send it again")
            left -= len(block)
            yield block
