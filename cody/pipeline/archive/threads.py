"""Threads in the archive: what all Responses of a thread make together, and Responses that someone has to end."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cody.contracts.submit import ThreadPage, ThreadSummary
from cody.errors import InvalidRequest
from cody.pipeline.archive.tables import RESPONSES
from cody.pipeline.archive.values import plain


async def page(connection: AsyncConnection, *, limit: int, cursor: str | None) -> ThreadPage:
    """See Archive.threads."""
    touched = func.max(RESPONSES.c.updated_at).label("touched")
    grouped = select(
        RESPONSES.c.thread_id,
        func.min(RESPONSES.c.created_at).label("begun"),
        touched,
        func.count().label("responses"),
    ).group_by(RESPONSES.c.thread_id)
    if cursor is not None:
        updated_at, thread_id = _position(cursor)
        grouped = grouped.having(tuple_(touched, RESPONSES.c.thread_id) < tuple_(updated_at, plain(thread_id)))
    ordered = grouped.order_by(touched.desc(), RESPONSES.c.thread_id.desc()).limit(limit + 1)
    rows = (await connection.execute(ordered)).all()
    statuses = await _newest_statuses(connection, [row.thread_id for row in rows[:limit]])
    threads = [
        ThreadSummary(
            thread_id=row.thread_id,
            created_at=row.begun,
            updated_at=row.touched,
            responses=row.responses,
            status=statuses[row.thread_id],
        )
        for row in rows[:limit]
    ]
    more = len(rows) > limit
    return ThreadPage(threads=threads, next_cursor=_cursor(threads[-1]) if more else None)


async def unfinished(connection: AsyncConnection, *, after: str, limit: int) -> list[str]:
    """See Archive.unfinished_responses. The ids alone: a row may have megabytes, and almost none of them is needed."""
    statement = (
        select(RESPONSES.c.response_id)
        .where(RESPONSES.c.status.in_(("queued", "in_progress")), RESPONSES.c.response_id > plain(after))
        .order_by(RESPONSES.c.response_id)
        .limit(limit)
    )
    return list((await connection.execute(statement)).scalars())


async def _newest_statuses(connection: AsyncConnection, thread_ids: list[str]) -> dict[str, str]:
    statement = (
        select(RESPONSES.c.thread_id, RESPONSES.c.status)
        .where(RESPONSES.c.thread_id.in_(thread_ids))
        .order_by(RESPONSES.c.created_at, RESPONSES.c.response_id)
    )
    return {row.thread_id: row.status for row in await connection.execute(statement)}


def _cursor(thread: ThreadSummary) -> str:
    return base64.urlsafe_b64encode(f"{thread.updated_at}:{thread.thread_id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[Any, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        updated_at, thread_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(":", 1)
        number = int(updated_at)
        if abs(number) >= 2**63:
            raise ValueError(number)
        return number, thread_id
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "cursor: not one that a listing gave (use `nextCursor` as it is)", details={"field": "cursor"}
        ) from None
