"""The tables of the sync engine, and its rows as they are kept in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from cody.sync.contracts import Chunk
from cody.sync.storage import ConversationRow, JobRow, SourceRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS = frozenset({"created_at", "updated_at", "started_at", "completed_at", "due_at"})


Row = ConversationRow | SourceRow | JobRow
RowType = TypeVar("RowType", ConversationRow, SourceRow, JobRow)

METADATA = MetaData()


def _id(name: str, **more: Any) -> Column[str]:
    # Compared by bytes: other collations of PostgreSQL take different ids for equal ones.
    return Column(name, Text().with_variant(Text(collation="C"), "postgresql"), **more)


def _moment(name: str, *, nullable: bool = False) -> Column[int]:
    """Microseconds since 1970: exact, and the same order, on both databases."""
    return Column(name, BigInteger, nullable=nullable)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _chunk_columns() -> list[Column[Any]]:
    return [
        Column("chunk_index", Integer, primary_key=True, autoincrement=False),
        Column("payload", LargeBinary, nullable=False),
        _number("message_count"),
        _number("byte_size"),
    ]


CONVERSATIONS = Table(
    "sync_conversations",
    METADATA,
    _id("conversation_id", primary_key=True),
    _number("sources_started"),
    _id("current_job_id"),
    _id("record_job_id"),
    _number("record_ordinal"),
    _number("revision"),
)
SOURCES = Table(
    "sync_sources",
    METADATA,
    _id("source_id", primary_key=True),
    *(_id(name, nullable=False) for name in ("conversation_id", "thread_id", "state")),
    *(_number(name) for name in ("ordinal", "policy_version", "total_chunks", "highest_index", "message_count")),
    *(_moment(name) for name in ("created_at", "updated_at")),
    _number("byte_size"),
    *(_id(name) for name in ("job_id", "error_code", "error_message")),
    _number("revision"),
)
JOBS = Table(
    "sync_jobs",
    METADATA,
    _id("job_id", primary_key=True),
    *(_id(name, nullable=False) for name in ("source_id", "conversation_id", "thread_id", "state", "source_state")),
    *(_number(name) for name in ("ordinal", "policy_version", "lease_version", "total_chunks", "message_count")),
    *(_moment(name) for name in ("started_at", "updated_at")),
    *(_moment(name, nullable=True) for name in ("completed_at", "due_at")),
    _id("checksum", nullable=False),
    *(_number(name) for name in ("byte_size", "applied_chunks", "applied_messages", "applied_bytes", "retry_count")),
    Column("expected_message_count", BigInteger),
    _number("failures"),
    *(_id(name) for name in ("worker_id", "error_code", "error_message")),
    _number("revision"),
    Index("ix_sync_jobs_conversation", "conversation_id", "ordinal"),
    Index("ix_sync_jobs_due", "due_at"),
)
CHUNKS = Table("sync_chunks", METADATA, _id("source_id", primary_key=True), *_chunk_columns())
RECORDS = Table("sync_records", METADATA, _id("job_id", primary_key=True), *_chunk_columns())
TAKEN_IN = Table("sync_taken_in", METADATA, _id("job_id", primary_key=True))
"""Jobs whose record was handed on to whoever asked for arrivals."""

TABLES: dict[type[Row], tuple[Table, Column[Any]]] = {
    ConversationRow: (CONVERSATIONS, CONVERSATIONS.c.conversation_id),
    SourceRow: (SOURCES, SOURCES.c.source_id),
    JobRow: (JOBS, JOBS.c.job_id),
}


def stored(value: object) -> object:
    match value:
        case datetime():
            return (value - _EPOCH) // timedelta(microseconds=1)
        case str():  # a backend's error message may hold anything; no database takes NUL or half a surrogate pair
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        case _:
            return value


def row_of(kind: type[RowType], found: Mapping[str, Any]) -> RowType:
    values = {name: _EPOCH + timedelta(microseconds=found[name]) for name in _MOMENTS if found.get(name) is not None}
    return kind(**{**found, **values})


def chunk_of(found: Mapping[str, Any]) -> Chunk:
    return Chunk(found["chunk_index"], bytes(found["payload"]), found["message_count"], found["byte_size"])


def chunk_values(chunk: Chunk) -> dict[str, Any]:
    counts = {"message_count": chunk.message_count, "byte_size": chunk.byte_size}
    return {"chunk_index": chunk.index, "payload": chunk.payload, **counts}


def can_be_stored(key: str) -> bool:
    return stored(key) == key
