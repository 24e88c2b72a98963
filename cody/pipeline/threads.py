"""What was said in a thread before a turn: the items of its earlier Responses, once all of them have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cody.contracts.responses import OutputItem, Response
from cody.errors import Conflict
from cody.pipeline.archive import Archive
from cody.store.response_events import ResponseEvents

WAIT_S = 60.0
LOOK_EVERY_S = 0.05


class ThreadNotReady(Conflict):
    """An earlier turn of the thread has not ended, or is not in the archive yet."""

    code = "thread_not_ready"


async def history(
    store: ResponseEvents, archive: Archive, thread_id: str, response_id: str, *, wait_s: float = WAIT_S
) -> list[OutputItem]:
    """The items of the thread before `response_id`, oldest first.

    Waits for turns that were begun before it, and only for those: two that were submitted at once do not wait for each
    other. Raises ThreadNotReady after `wait_s`, StoreUnavailable, ArchiveUnavailable.
    """
    begun = await store.thread(thread_id)
    at = begun.index(response_id) if response_id in begun else len(begun)
    before, later = begun[:at], set(begun[at:])
    await _ended(archive, thread_id, before, wait_s)
    rows = await archive.responses_of_thread(thread_id)
    earlier = [Response.model_validate_json(row.response) for row in rows if row.response_id not in later]
    order = {known: place for place, known in enumerate(before)}
    # Two of the same millisecond are in the order in which they were begun.
    earlier.sort(key=lambda response: (response.created_at, order.get(response.id, -1)))
    return said_in(earlier)


def said_in(responses: Sequence[Response]) -> list[OutputItem]:
    """The items of these Responses. A turn that failed before the model said anything was not a turn. Pure."""
    return [
        item
        for response in responses
        if response.status != "error" or any(item.origin == "agent" for item in response.output_items)
        for item in response.output_items
    ]


async def _ended(archive: Archive, thread_id: str, response_ids: Sequence[str], wait_s: float) -> None:
    waiting = list(response_ids)
    try:
        async with asyncio.timeout(wait_s):
            while waiting:
                row = await archive.response(waiting[0])
                if row is not None and row.status in {"complete", "error", "aborted"}:
                    del waiting[0]
                else:
                    await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise ThreadNotReady(
            f"thread {thread_id}: the turn before this one (response {waiting[0]}) has not ended within {wait_s:g} s"
        ) from None
