"""The tables of the archive. Their history is in cody/pipeline/migrations; a test holds the two together.

JSON is kept as the text it came as: what is read back is byte for byte what was written, on both databases.
Not here, because each database has its own: `search_documents` and its full-text index (see search.py).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

SCHEMA = "0002"
"""The newest migration."""
VERSION_TABLE = "archive_version"
"""A name of our own: another part of Cody may keep tables, with a history of their own, in the same database."""

METADATA = MetaData()

ID = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared by bytes on both databases, as Redis compares: a listing goes on from one store to the other."""

RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", ID, primary_key=True),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("epic_id", Text, nullable=False),
    Column("working_dir", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", ID, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    Column("current_turn", Integer),
    Column("stats", Text, nullable=False),
    Column("completion", Text, nullable=False),
    Column("error", Text),
    Column("host", Text),
    Column("worker_id", Text),
    Column("fence", BigInteger, nullable=False),
    Index("ix_runs_created", "created_at", "run_id"),
    Index("ix_runs_status", "status", "created_at", "run_id"),
    Index("ix_runs_epic", "epic_id", "created_at", "run_id"),
)

PROJECTIONS = Table(
    "projections",
    METADATA,
    Column("run_id", ID, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("last_event_id", Text),
    Column("known_seq", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("halted_reason", Text),
    Column("halted_at", Text),
)
"""How far each run is archived. Apart from `runs`: a run whose meta can't be read has to have a place to say so."""

FENCES = Table(
    "fences",
    METADATA,
    Column("run_id", ID, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("claim_id", Text, nullable=False),
)
"""The highest fence of each run: written by workers, before anything of the run is archived."""

TURNS = Table(
    "turns",
    METADATA,
    Column("run_id", ID, primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("response_id", ID, nullable=False),
    Column("thread_id", ID),
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text),
    Column("record", Text, nullable=False),
    Column("trace_id", ID),
    Index("ix_turns_response", "response_id"),
    Index("ix_turns_thread", "thread_id"),
    Index("ix_turns_trace", "trace_id"),
)

RUN_EVENTS = Table(
    "run_events",
    METADATA,
    Column("run_id", ID, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("ts", Text, nullable=False),
    Column("turn", Integer),
    Column("payload", Text, nullable=False),
    Column("trace_id", ID),
    Index("ix_run_events_turn", "run_id", "turn", "seq"),
)
"""`trace_id`: of the turn that the event belongs to."""

RESPONSES = Table(
    "responses",
    METADATA,
    Column("response_id", ID, primary_key=True),
    Column("run_id", ID),
    Column("turn_id", ID, nullable=False),
    Column("thread_id", ID, nullable=False),
    Column("agent_id", Text),
    Column("model_id", Text, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("response", Text, nullable=False),
    Column("reducer_state", Text, nullable=False),
    Column("last_event_id", Text, nullable=False),
    Index("ix_responses_run", "run_id", "created_at"),
    Index("ix_responses_thread", "thread_id", "created_at", "response_id"),
    Index("ix_responses_turn", "turn_id"),
    Index("ix_responses_created", "created_at"),
)
