"""Runs in Redis: recorded, read, listed page by page."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.run import RunPage, RunSnapshot, RunStatus, RunSummary, TurnRecord
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import RunQueued, payload_json
from cody.contracts.wire import utc_text
from cody.errors import Conflict, InvalidRequest, NotFound
from cody.sealing import Sealer
from cody.store import keys, meta
from cody.store.scripts import script

log = get_logger()

IDEMPOTENCY_TTL_S = 86_400
LOOKS_PER_PAGE = 10_000
"""How many runs a filtered page looks at before it answers what it has, with a cursor to go on from."""


def text_fields(flat: Iterable[bytes]) -> dict[str, str]:
    """A hash as redis answers it to a script (field, value, field, value, ...)."""
    parts = [part.decode("utf-8", "replace") for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


async def create(
    redis: Redis,
    run_id: str,
    *,
    epic_id: str,
    config: RunConfig,
    now_ms: int,
    idempotency_key: str | None = None,
    sealer: Sealer | None = None,
    is_archived: Callable[[str], Awaitable[bool]] | None = None,
) -> str:
    """Record a queued run with its first event (seq 1); gives its id. Repeating the call changes nothing.

    With a sealer, the secrets of config.env are stored sealed.
    With an idempotency key, the id may be that of the run which the same request made before. Raises Conflict when the key
    came with another request. `is_archived` is asked about a run that Redis has let go of: when the archive does not have
    it either, its key is free. Without it, the key stands for that run as long as Redis keeps the key.
    """
    ts = utc_text(now_ms)
    flat_config = config.model_dump_json(by_alias=True)
    stored = config.model_copy(update={"env": sealer.seal_env(config.env)}) if sealer else config
    fields: dict[str, str] = {
        "createdAt": ts,
        "updatedAt": ts,
        "epicId": epic_id,
        "workingDir": config.working_dir,
        "agent": config.agent,
        "config": stored.model_dump_json(by_alias=True),
        "completion.detected": "false",
    }
    flat = [part for pair in fields.items() for part in pair]
    names = [keys.meta(run_id), keys.events(run_id), keys.INDEX, keys.ACTIVE, keys.QUEUED, keys.ARCHIVE_NEWS]
    if idempotency_key is not None:
        names.append(keys.idempotency(_sha256(idempotency_key)))
    request = _sha256(f"{epic_id}\0{flat_config}")
    body = payload_json(RunQueued(epic_id=epic_id))
    forgotten = ""
    while True:
        answer, raw_id = await script("create")(
            redis,
            names,
            [run_id, now_ms, "run_queued", ts, body, request, IDEMPOTENCY_TTL_S, keys.NEWS_MAXLEN, forgotten, *flat],
        )
        found = bytes(raw_id).decode()
        if answer == b"made":
            return found
        if is_archived is not None and not await redis.exists(keys.meta(found)) and not await is_archived(found):
            # Nobody could be shown that run. Who comes first takes its key; the next answer tells who that was.
            forgotten = found
            continue
        if answer == b"other":
            raise Conflict(
                f"this Idempotency-Key was used for another request (run {found}): use a new key",
                details={"runId": found},
            )
        return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def fields(redis: Redis, run_id: str) -> dict[str, str]:
    """The raw meta of a run; raises NotFound."""
    found = cast("dict[bytes, bytes]", await redis.hgetall(keys.meta(run_id)))
    if not found:
        raise NotFound(f"no run {run_id}: it never existed, or its record has expired (`cody runs` lists what is kept)")
    return {name.decode(): value.decode("utf-8", "replace") for name, value in found.items()}


async def snapshot(redis: Redis, run_id: str, *, now_ms: int) -> RunSnapshot:
    """All of a run, in one round trip; raises NotFound, MetaCorrupt."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.meta(run_id))
        pipe.zcount(keys.subscribers(run_id), now_ms, "+inf")
        pipe.zrank(keys.QUEUED, run_id)
        found, live, ahead = await pipe.execute()
    if not found:
        raise NotFound(f"no run {run_id}: it never existed, or its record has expired (`cody runs` lists what is kept)")
    flat = {name.decode(): value.decode("utf-8", "replace") for name, value in found.items()}
    return meta.snapshot(run_id, flat, int(live), place=None if ahead is None else int(ahead) + 1)


def cursor_text(position: str) -> str:
    """A place in the listing (`created at (ms):run id`), as clients hand it back; the archive's listing uses it too."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def cursor_position(cursor: str) -> tuple[str, str]:
    """The inverse of `cursor_text`; raises InvalidRequest."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        score, run_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(":", 1)
        return str(int(score)), run_id
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "cursor: not one that a listing gave (use `nextCursor` as it is)", details={"field": "cursor"}
        ) from None


async def page(
    redis: Redis,
    *,
    limit: int,
    now_ms: int,
    status: RunStatus | None = None,
    epic_id: str | None = None,
    cursor: str | None = None,
) -> RunPage:
    """One page of runs, newest first, in one round trip whatever their number.

    A filtered page looks at LOOKS_PER_PAGE runs at the most: it may be short and still have a cursor. A run whose meta can't
    be read is left out and logged. Raises InvalidRequest for a cursor that no listing gave.
    """
    score, after = cursor_position(cursor) if cursor else ("+inf", "")
    position, rows = await script("list")(
        redis,
        [keys.INDEX],
        [limit, status or "", epic_id or "", score, after, f"{keys.PREFIX}:run:", LOOKS_PER_PAGE, now_ms],
    )
    found: list[RunSummary] = []
    for raw_id, live, flat in rows:
        run_id = raw_id.decode()
        try:
            found.append(meta.summary(run_id, text_fields(flat), int(live)))
        except meta.MetaCorrupt as error:
            log.warning("run.meta_corrupt", run_id=run_id, error=error.message)
    return RunPage(runs=found, next_cursor=cursor_text(position.decode()) if position else None)


@dataclass(frozen=True, slots=True)
class Unowned:
    """A run that has not ended and whose lock nobody holds."""

    run_id: str
    fence: int


async def unowned(redis: Redis) -> list[Unowned]:
    """All runs that have not ended and that nobody works on, oldest first; two round trips.

    A run whose meta can't be read is left out and logged: it must not hide the others.
    """
    found = cast("Sequence[bytes]", await redis.zrange(keys.ACTIVE, 0, -1))
    ids = [raw.decode() for raw in found]
    async with redis.pipeline(transaction=False) as pipe:
        for run_id in ids:
            pipe.exists(keys.lock(run_id))
            pipe.hget(keys.meta(run_id), "fence")
        answers = await pipe.execute(raise_on_error=False)
    free: list[Unowned] = []
    for run_id, held, fence in zip(ids, answers[::2], answers[1::2], strict=True):
        if isinstance(fence, bytes) and fence.isdigit():
            if not held:
                free.append(Unowned(run_id, int(fence)))
        elif fence is not None:
            log.warning("run.meta_corrupt", run_id=run_id, error=f"its fence is {fence!r}"[:200])
    return free


async def active(redis: Redis) -> set[str]:
    """The ids of all runs that have not ended."""
    return {raw.decode() for raw in cast("Sequence[bytes]", await redis.zrange(keys.ACTIVE, 0, -1))}


async def queued(redis: Redis) -> int:
    """How many runs wait for a host."""
    return int(await redis.zcard(keys.QUEUED))


async def turn_records(redis: Redis, run_id: str) -> list[TurnRecord]:
    """The turns of a run in order, of a very long one the newest keys.TURNS_KEPT; raises NotFound."""
    if not await redis.exists(keys.meta(run_id)):
        await fields(redis, run_id)
    raw = cast("Sequence[bytes]", await redis.hvals(keys.turns(run_id)))
    return sorted((TurnRecord.model_validate_json(value) for value in raw), key=lambda record: record.turn)


async def turn_record(redis: Redis, run_id: str, turn: int) -> TurnRecord:
    """One turn; raises NotFound, naming the run or the turn."""
    raw = cast("bytes | None", await redis.hget(keys.turns(run_id), str(turn)))
    if raw is None:
        await fields(redis, run_id)
        raise NotFound(f"run {run_id} has no turn {turn}")
    return TurnRecord.model_validate_json(raw)
