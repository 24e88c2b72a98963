"""The events of a run in its Redis stream: committed under a fence, read as frames.

A frame is the wire JSON of one event, joined once from the stream's fields and handed to every reader as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cody.contracts.run_events import TERMINAL_EVENTS
from cody.errors import InvalidRequest
from cody.store import keys
from cody.store.availability import is_wrong_type
from cody.store.scripts import Argument, script


class PendingEvent(NamedTuple):
    """An event that waits to be added; its sequence number is given by its place in the commit."""

    type: str
    ts: str
    payload: bytes


class Answer(StrEnum):
    """What the store said to a commit."""

    OK = "ok"
    DUPLICATE = "duplicate"
    """All of it was here already: a call repeated after a lost reply."""
    GAP = "gap"
    FENCED = "fenced"
    CONFLICT = "conflict"
    """The status is not the expected one: a control message came first."""
    GONE = "gone"
    """There is no such run any more: Redis was wiped, or the run was deleted."""


@dataclass(frozen=True, slots=True)
class Commit:
    answer: Answer
    last_seq: int
    status: str
    archived_seq: int | None = None
    """The last event that the archive told of; None = nobody archives this run."""


async def commit(
    redis: Redis,
    run_id: str,
    *,
    fence: int,
    first_seq: int,
    events: Sequence[PendingEvent] = (),
    meta: Mapping[str, str | int] | None = None,
    expected_status: str | None = None,
    turn: tuple[int, bytes] | None = None,
    end_ttl_s: int | None = None,
    keep_events: int = keys.EVENTS_MAXLEN,
    keep_unarchived: int = keys.UNARCHIVED_MAXLEN,
    keep_turns: int = keys.TURNS_KEPT,
) -> Commit:
    """Write events, meta and a turn record in one step, or nothing.

    `expected_status`: the commit is refused (CONFLICT) when the status is another by now. `end_ttl_s`: the run ends with
    this commit, its keys get this TTL (0 = none yet: the archive sets it). A meta value of '' removes its field.
    `keep_events`: older events than so many may go, but not those that an archive does not have yet; of these
    `keep_unarchived` stay. `keep_turns`: of the turns' records so many stay, the newest; and those that an archive may lack.
    """
    flat_meta = [part for pair in (meta or {}).items() for part in pair]
    args: list[Argument] = [
        fence,
        first_seq,
        len(events),
        len(flat_meta),
        expected_status or "",
        turn[0] if turn else "",
        turn[1] if turn else "",
        keep_events,
        run_id,
        "" if end_ttl_s is None else end_ttl_s,
        keys.NEWS_MAXLEN,
        keep_unarchived,
        keep_turns,
    ]
    for event in events:
        args += (event.type, event.ts, event.payload)
    args += flat_meta
    names = [
        keys.meta(run_id),
        keys.events(run_id),
        keys.turns(run_id),
        keys.ACTIVE,
        keys.QUEUED,
        keys.ARCHIVE_NEWS,
    ]
    if end_ttl_s is not None:
        names += [keys.control(run_id), keys.subscribers(run_id)]
    answer, last_seq, status, archived = await script("commit")(redis, names, args)
    return Commit(Answer(answer.decode()), int(last_seq), status.decode(), int(archived) if archived >= 0 else None)


class Frame(NamedTuple):
    """One event as readers get it, encoded once.

    A tuple, not a frozen dataclass: a reader that catches up has one made for each event, and this costs a third.
    """

    id: str
    """The Redis stream id: what SSE's Last-Event-ID holds."""
    seq: int
    terminal: bool
    sse: bytes
    """`id: ...` and `data: ...` lines and the empty line: an SSE frame."""

    @property
    def data(self) -> bytes:
        """The event as flat wire JSON."""
        return self.sse[len(self.id) + len(b"id: \ndata: ") : -len(b"\n\n")]


_NO_FIELDS = b"{}"
_FIELDS = [b"type", b"ts", b"runId", b"seq", b"payload"]


def frame(entry_id: bytes, fields: Sequence[bytes] | Mapping[bytes, bytes]) -> Frame:
    """The frame of a stream entry; raises KeyError or ValueError for an entry that no Cody wrote."""
    if not isinstance(fields, Mapping) and fields[::2] == _FIELDS:  # as `commit` writes them
        kind, ts, run_id, seq, payload = fields[1::2]
    else:
        found = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
        kind, ts, run_id, seq, payload = (found[name] for name in _FIELDS)
    own = b"}" if payload == _NO_FIELDS else b"," + payload[1:]
    sse = b'id: %b\ndata: {"type":"%b","ts":"%b","runId":"%b","seq":%b%b\n\n' % (
        entry_id,
        kind,
        ts,
        run_id,
        seq,
        own,
    )
    return Frame(entry_id.decode(), int(seq), kind.decode() in TERMINAL_EVENTS, sse)


def id_tuple(entry_id: str) -> tuple[int, int]:
    """A stream id as a pair that compares; raises InvalidRequest for anything that is not one."""
    milliseconds, _, serial = entry_id.partition("-")
    ascii_digits = (
        milliseconds.isascii() and milliseconds.isdigit() and (serial == "" or (serial.isascii() and serial.isdigit()))
    )
    if ascii_digits and len(milliseconds) <= 20 and len(serial) <= 20:
        pair = int(milliseconds), int(serial or 0)
        if max(pair) < 2**64:
            return pair
    raise InvalidRequest(
        f"{entry_id[:64]!r} is not an event id: use the id of an event, '0' for the oldest kept, or '$' for new ones only",
        details={"field": "from"},
    )


async def first(redis: Redis, run_id: str) -> Frame | None:
    """The oldest event that is still kept."""
    found = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(keys.events(run_id), count=1))
    return frame(*found[0]) if found else None


async def last(redis: Redis, run_id: str) -> Frame | None:
    """The newest event."""
    found = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrevrange(keys.events(run_id), count=1))
    return frame(*found[0]) if found else None


async def newest_ids(redis: Redis, run_ids: Sequence[str]) -> list[str | None]:
    """The id of each run's newest event, in one round trip; None where the stream is gone, or is none any more.

    Raises what else Redis answers instead (busy, no permission, a replica without its master): of those nothing is known.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for run_id in run_ids:
            pipe.xrevrange(keys.events(run_id), count=1)
        found = await pipe.execute(raise_on_error=False)
    for answer in found:
        if isinstance(answer, Exception) and not is_wrong_type(answer):
            raise answer
    return [one[0][0].decode() if isinstance(one, list) and one else None for one in found]


async def at(redis: Redis, run_id: str, entry_id: str) -> Frame | None:
    """The event with exactly this id."""
    found = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(keys.events(run_id), min=entry_id, max=entry_id)
    )
    return frame(*found[0]) if found else None


async def after(redis: Redis, run_id: str, entry_id: str, *, count: int = 1000) -> list[Frame]:
    """Up to `count` events that come after `entry_id` ('0' = from the oldest kept)."""
    return [frame(*entry) for entry in await _raw_range(redis, keys.events(run_id), f"({entry_id}", count)]


async def _raw_range(redis: Redis, key: str, begin: str, count: int) -> list[tuple[bytes, Sequence[bytes]]]:
    """XRANGE as it comes: redis-py's turning of a thousand entries into dicts costs as much as all the rest."""
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_command("XRANGE", key, begin, "+", "COUNT", count)
        found = await connection.read_response()
    except BaseException:
        # An answer may be on its way: the connection must not be used for anything else.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
    if isinstance(found, ResponseError):
        raise found
    return cast("list[tuple[bytes, Sequence[bytes]]]", found)
