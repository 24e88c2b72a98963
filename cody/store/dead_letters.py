"""Events that the projector could not apply to their Response: kept with the reason, to be looked at by people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from cody.errors import Conflict, NotFound
from cody.store import keys
from cody.store.availability import store_calls
from cody.store.events import id_tuple
from cody.store.response_events import GROUP
from cody.store.scripts import Argument, script

LISTED_AT_MOST = 1_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`event` is the JSON as it lay in the response's stream, as entry `entry_id`."""

    id: str
    response_id: str
    entry_id: str
    code: str
    reason: str
    event: str


async def list_letters(redis: Redis, *, limit: int = 100, response_id: str | None = None) -> list[DeadLetter]:
    """The newest first; with `response_id` those of one response among the newest LISTED_AT_MOST."""
    count = limit if response_id is None else LISTED_AT_MOST
    with store_calls("list the dead letters"):
        found: Any = await redis.xrevrange(keys.DEAD_LETTERS, count=count)
    letters = [_letter(letter_id, fields) for letter_id, fields in found]
    return [one for one in letters if response_id in (None, one.response_id)][:limit]


async def retry_letter(redis: Redis, letter_id: str) -> DeadLetter:
    """Put the event at the end of its response's stream once more.

    Raises NotFound, InvalidRequest, and Conflict, the letter being kept, for a response that goes on, or that Redis has
    no more.
    """
    letter = await _one(redis, letter_id)
    response_id = letter.response_id
    names = [keys.DEAD_LETTERS, keys.response_events(response_id), keys.RESPONSE_NEWS, keys.RESPONSES_ACTIVE]
    args: list[Argument] = [letter_id, response_id, GROUP, keys.NEWS_MAXLEN]
    with store_calls(f"retry dead letter {letter_id}"):
        answer = await script("response_retry")(redis, names, args)
    match answer:
        case b"none":
            raise NotFound(f"no dead letter {letter_id}")
        case b"live":
            raise Conflict(f"response {response_id} goes on: retry letter {letter_id} when it has ended")
        case b"gone":
            raise Conflict(
                f"Redis keeps the events of response {response_id} no more: letter {letter_id} can only be looked at, or "
                "dropped"
            )
    return letter


async def drop_letter(redis: Redis, letter_id: str) -> DeadLetter:
    """Forget it; raises NotFound, InvalidRequest."""
    letter = await _one(redis, letter_id)
    with store_calls(f"drop dead letter {letter_id}"):
        await redis.xdel(keys.DEAD_LETTERS, letter_id)
    return letter


async def _one(redis: Redis, letter_id: str) -> DeadLetter:
    id_tuple(letter_id)
    with store_calls(f"read dead letter {letter_id}"):
        found: Any = await redis.xrange(keys.DEAD_LETTERS, min=letter_id, max=letter_id)
    if not found:
        raise NotFound(f"no dead letter {letter_id}")
    return _letter(*found[0])


def _letter(letter_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    return DeadLetter(
        letter_id.decode(), text(b"responseId"), text(b"entryId"), text(b"code"), text(b"reason"), text(b"event")
    )
