"""Taking a Response out of Redis before its time, for one that was only a test."""

from __future__ import annotations

from redis.asyncio import Redis

from cody.store import keys
from cody.store.availability import store_calls
from cody.store.dead_letters import LISTED_AT_MOST, drop_letter, list_letters


async def remove_response(redis: Redis, response_id: str, thread_id: str) -> None:
    """Remove an ended Response, its thread (which must be its own) and its dead letters; repeating it is free."""
    for letter in await list_letters(redis, limit=LISTED_AT_MOST, response_id=response_id):
        await drop_letter(redis, letter.id)
    with store_calls(f"remove response {response_id}"):
        await redis.zrem(keys.RESPONSES_ACTIVE, response_id)
        await redis.delete(
            keys.response_events(response_id),
            keys.response_publisher(response_id),
            keys.response_projector(response_id),
            keys.thread_responses(thread_id),
        )
