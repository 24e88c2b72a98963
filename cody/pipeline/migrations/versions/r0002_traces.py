"""The trace of each turn, and of the events that belong to it.

Rows from before have none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("turns", sa.Column("trace_id", ID))
    op.add_column("run_events", sa.Column("trace_id", ID))
    op.create_index("ix_turns_trace", "turns", ["trace_id"])


def downgrade() -> None:
    raise NotImplementedError("the archive only goes forward: restore it from a backup")
