"""The search index in SQL: FTS5 on SQLite, a tsvector with a GIN index on PostgreSQL; the rest is in search_text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cody.errors import InvalidRequest
from cody.pipeline.archive.values import MAX_BIGINT, plain
from cody.pipeline.search_text import (
    Document,
    SearchHit,
    SearchPage,
    fts5_query,
    phrases,
    searchable,
    snippet,
    tsquery,
    tsvector,
)

THREAD_CHARS = 32_768
"""Cutting more text than this into words takes milliseconds, in which the event loop serves nobody."""

_ADD_SQLITE = text(
    "INSERT INTO search_documents (kind, run_id, turn, seq, response_id, text) "
    "VALUES (:kind, :run_id, :turn, :seq, :response_id, :text)"
)
_ADD_POSTGRESQL = text(
    "INSERT INTO search_documents (kind, run_id, turn, seq, response_id, text, words) "
    "VALUES (:kind, :run_id, :turn, :seq, :response_id, :text, CAST(:words AS tsvector))"
)
_FIND_SQLITE = text(
    "SELECT d.id, d.kind, d.run_id, d.turn, d.seq, d.response_id, d.text "
    "FROM search_words JOIN search_documents d ON d.id = search_words.rowid "
    "WHERE search_words MATCH :query AND search_words.rowid < :before AND (:run_id IS NULL OR d.run_id = :run_id) "
    "ORDER BY search_words.rowid DESC LIMIT :limit"
)
_FIND_POSTGRESQL = text(
    "SELECT id, kind, run_id, turn, seq, response_id, text FROM search_documents "
    "WHERE words @@ CAST(:query AS tsquery) AND id < :before "
    "AND (CAST(:run_id AS text) IS NULL OR run_id = CAST(:run_id AS text)) "
    "ORDER BY id DESC LIMIT :limit"
)
_REMOVE = text("DELETE FROM search_documents WHERE response_id = :response_id")


async def add_documents(connection: AsyncConnection, documents: Sequence[Document]) -> None:
    """Make these texts findable. Nothing tells the same text twice apart: add each once."""
    if not documents:
        return
    is_postgresql = connection.dialect.name == "postgresql"
    if sum(len(document.text) for document in documents) > THREAD_CHARS:
        rows = await asyncio.to_thread(_rows, documents, is_postgresql)
    else:
        rows = _rows(documents, is_postgresql)
    await connection.execute(_ADD_POSTGRESQL if is_postgresql else _ADD_SQLITE, rows)


def _rows(documents: Sequence[Document], is_postgresql: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for document in documents:
        indexed = searchable(document.text)
        row = {
            "kind": document.kind,
            "run_id": document.run_id,
            "turn": document.turn,
            "seq": document.seq,
            "response_id": document.response_id,
            "text": indexed,
        }
        rows.append({**row, "words": tsvector(indexed)} if is_postgresql else row)
    return rows


async def remove_documents_of_response(connection: AsyncConnection, response_id: str) -> None:
    await connection.execute(_REMOVE, {"response_id": response_id})


async def find(
    connection: AsyncConnection, query: str, *, limit: int, cursor: str | None, run_id: str | None
) -> SearchPage:
    """Texts with all that the query asks for, newest first; see Archive.search."""
    asked = phrases(query)
    before = _position(cursor)
    if not asked:
        return SearchPage(hits=[])
    is_postgresql = connection.dialect.name == "postgresql"
    values = {
        "query": tsquery(asked) if is_postgresql else fts5_query(asked),
        "before": before,
        "run_id": plain(run_id),
        "limit": limit + 1,
    }
    rows = (await connection.execute(_FIND_POSTGRESQL if is_postgresql else _FIND_SQLITE, values)).all()
    hits = []
    for row in rows[:limit]:
        piece, marks = snippet(row.text, asked)
        hits.append(
            SearchHit(
                kind=row.kind,
                run_id=row.run_id,
                turn=row.turn,
                seq=row.seq,
                response_id=row.response_id,
                snippet=piece,
                marks=marks,
            )
        )
    return SearchPage(hits=hits, next_cursor=str(rows[limit - 1].id) if len(rows) > limit else None)


def _position(cursor: str | None) -> int:
    if cursor is None:
        return MAX_BIGINT
    if cursor.isascii() and cursor.isdecimal() and len(cursor) <= 19 and int(cursor) <= MAX_BIGINT:
        return int(cursor)
    raise InvalidRequest("cursor: not one that a search gave (use `nextCursor` as it is)", details={"field": "cursor"})
