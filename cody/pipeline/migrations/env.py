"""Run by Alembic, with the connection that cody.pipeline.archive.migrate hands it: inside its transaction."""

from __future__ import annotations

from alembic import context

from cody.pipeline.archive.tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
