"""The first tables: runs with their projections, fences, turns and events; responses; the search index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _runs()
    _turns_and_events()
    _responses()
    if op.get_bind().dialect.name == "postgresql":
        _search_postgresql()
    else:
        _search_sqlite()


def downgrade() -> None:
    raise NotImplementedError("the archive only goes forward: restore it from a backup")


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("epic_id", sa.Text, nullable=False),
        sa.Column("working_dir", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("created_at", ID, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("finished_at", sa.Text),
        sa.Column("current_turn", sa.Integer),
        sa.Column("stats", sa.Text, nullable=False),
        sa.Column("completion", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("worker_id", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_runs_created", "runs", ["created_at", "run_id"])
    op.create_index("ix_runs_status", "runs", ["status", "created_at", "run_id"])
    op.create_index("ix_runs_epic", "runs", ["epic_id", "created_at", "run_id"])
    op.create_table(
        "projections",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("last_event_id", sa.Text),
        sa.Column("known_seq", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("halted_reason", sa.Text),
        sa.Column("halted_at", sa.Text),
    )
    op.create_table(
        "fences",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("claim_id", sa.Text, nullable=False),
    )


def _turns_and_events() -> None:
    op.create_table(
        "turns",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("turn", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("response_id", ID, nullable=False),
        sa.Column("thread_id", ID),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Text),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("ix_turns_response", "turns", ["response_id"])
    op.create_index("ix_turns_thread", "turns", ["thread_id"])
    op.create_table(
        "run_events",
        sa.Column("run_id", ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("ts", sa.Text, nullable=False),
        sa.Column("turn", sa.Integer),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("ix_run_events_turn", "run_events", ["run_id", "turn", "seq"])


def _responses() -> None:
    op.create_table(
        "responses",
        sa.Column("response_id", ID, primary_key=True),
        sa.Column("run_id", ID),
        sa.Column("turn_id", ID, nullable=False),
        sa.Column("thread_id", ID, nullable=False),
        sa.Column("agent_id", sa.Text),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("provider_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("reducer_state", sa.Text, nullable=False),
        sa.Column("last_event_id", sa.Text, nullable=False),
    )
    op.create_index("ix_responses_run", "responses", ["run_id", "created_at"])
    op.create_index("ix_responses_thread", "responses", ["thread_id", "created_at", "response_id"])
    op.create_index("ix_responses_turn", "responses", ["turn_id"])
    op.create_index("ix_responses_created", "responses", ["created_at"])


def _search_documents(*own: sa.Column[str]) -> None:
    op.create_table(
        "search_documents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("run_id", ID),
        sa.Column("turn", sa.Integer),
        sa.Column("seq", sa.BigInteger),
        sa.Column("response_id", ID),
        sa.Column("text", sa.Text, nullable=False),
        *own,
        # Ids of deleted documents must not come back: pages of a search go by id.
        sqlite_autoincrement=True,
    )
    op.create_index("ix_search_documents_run", "search_documents", ["run_id"])
    op.create_index("ix_search_documents_response", "search_documents", ["response_id"])


def _search_postgresql() -> None:
    _search_documents(sa.Column("words", TSVECTOR, nullable=False))
    op.create_index("ix_search_documents_words", "search_documents", ["words"], postgresql_using="gin")


def _search_sqlite() -> None:
    _search_documents()
    # Diacritics are kept, as they are in PostgreSQL.
    op.execute(
        "CREATE VIRTUAL TABLE search_words USING fts5("
        "text, content='search_documents', content_rowid='id', tokenize='unicode61 remove_diacritics 0')"
    )
    op.execute(
        "CREATE TRIGGER search_documents_added AFTER INSERT ON search_documents BEGIN "
        "INSERT INTO search_words(rowid, text) VALUES (new.id, new.text); END"
    )
    # An index over a table of its own has to be told what the deleted text was.
    op.execute(
        "CREATE TRIGGER search_documents_removed AFTER DELETE ON search_documents BEGIN "
        "INSERT INTO search_words(search_words, rowid, text) VALUES ('delete', old.id, old.text); END"
    )
