"""Responses in the archive: a row, its search texts and the cursor of its projector, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cody.pipeline.archive.search import add_documents, remove_documents_of_response
from cody.pipeline.archive.tables import RESPONSES
from cody.pipeline.archive.upsert import insert_into
from cody.pipeline.archive.values import plain
from cody.pipeline.search_text import Document


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """A Response as it is after the event `last_event_id`. Times in ms; `response` and `reducer_state` are JSON."""

    response_id: str
    run_id: str | None
    turn_id: str
    thread_id: str
    agent_id: str | None
    model_id: str
    provider_id: str
    status: str
    created_at: int
    updated_at: int
    response: str
    reducer_state: str
    last_event_id: str


async def put(
    connection: AsyncConnection, row: ResponseRow, *, after_event_id: str | None, documents: Sequence[Document] | None
) -> bool:
    """See Archive.put_response."""
    values = asdict(row)
    if after_event_id is None:
        statement = insert_into(connection, RESPONSES).values(**values).on_conflict_do_nothing()
        written = (await connection.execute(statement)).rowcount == 1
    else:
        is_before = RESPONSES.c.last_event_id == after_event_id
        moved = update(RESPONSES).where(RESPONSES.c.response_id == row.response_id, is_before).values(**values)
        written = (await connection.execute(moved)).rowcount == 1
    if written and documents is not None:
        await remove_documents_of_response(connection, row.response_id)
        await add_documents(connection, documents)
    return written


async def remove(connection: AsyncConnection, response_id: str) -> None:
    """See Archive.remove_response."""
    await remove_documents_of_response(connection, response_id)
    await connection.execute(delete(RESPONSES).where(RESPONSES.c.response_id == plain(response_id)))


async def get(connection: AsyncConnection, response_id: str) -> ResponseRow | None:
    found = await connection.execute(select(RESPONSES).where(RESPONSES.c.response_id == plain(response_id)))
    row = found.one_or_none()
    return None if row is None else ResponseRow(**row._mapping)


async def of_thread(connection: AsyncConnection, thread_id: str, *, limit: int) -> list[ResponseRow]:
    """The newest `limit` Responses of a thread, oldest first."""
    statement = (
        select(RESPONSES)
        .where(RESPONSES.c.thread_id == plain(thread_id))
        .order_by(RESPONSES.c.created_at.desc(), RESPONSES.c.response_id.desc())
        .limit(limit)
    )
    rows = (await connection.execute(statement)).all()
    return [ResponseRow(**row._mapping) for row in reversed(rows)]


async def of_thread_after(
    connection: AsyncConnection, thread_id: str, after: ResponseRow | None, *, count: int
) -> list[ResponseRow]:
    """The next `count` Responses of a thread, oldest first."""
    statement = (
        select(RESPONSES)
        .where(RESPONSES.c.thread_id == plain(thread_id))
        .order_by(RESPONSES.c.created_at, RESPONSES.c.response_id)
        .limit(count)
    )
    if after is not None:
        place = tuple_(after.created_at, after.response_id)
        statement = statement.where(tuple_(RESPONSES.c.created_at, RESPONSES.c.response_id) > place)
    return [ResponseRow(**row._mapping) for row in await connection.execute(statement)]


async def count_of_thread(connection: AsyncConnection, thread_id: str) -> int:
    statement = select(func.count()).select_from(RESPONSES).where(RESPONSES.c.thread_id == plain(thread_id))
    return int((await connection.execute(statement)).scalar_one())


async def of_run(connection: AsyncConnection, run_id: str, *, limit: int) -> list[ResponseRow]:
    """The first `limit` Responses of a run, oldest first."""
    statement = (
        select(RESPONSES)
        .where(RESPONSES.c.run_id == plain(run_id))
        .order_by(RESPONSES.c.created_at, RESPONSES.c.response_id)
        .limit(limit)
    )
    return [ResponseRow(**row._mapping) for row in await connection.execute(statement)]
