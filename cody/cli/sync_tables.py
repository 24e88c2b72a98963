"""The tables of `cody sync list`: jobs on the other side, and pushes from here that have not ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from cody.cli.amounts import size
from cody.cli.untrusted import safe
from cody.pipeline.push_journal import Journal
from cody.sync.contracts import JobSnapshot

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def jobs_table(jobs: Sequence[JobSnapshot]) -> Table:
    """One row a job, with its whole id: `status` and `cancel` take no other."""
    table = _table("JOB", "STATE", "CHUNKS", "SIZE", "STARTED", "ERROR")
    for job in jobs:
        why = f"{job.last_error.code}: {job.last_error.message}" if job.last_error else ""
        table.add_row(
            Text(job.job_id, "cyan"),
            Text(job.state, STYLES.get(job.state, "")),
            Text(f"{job.processed_chunk_index + 1}/{job.total_chunks}"),
            Text(size(job.last_cursor)),
            Text(f"{job.started_at.astimezone():%Y-%m-%d %H:%M:%S}"),
            Text(safe(why)),
        )
    return table


def pushes_table(pushes: Sequence[Journal]) -> Table:
    """One row a push."""
    table = _table("CONVERSATION", "TO", "SENT", "OF", "JOB")
    for one in pushes:
        table.add_row(
            Text(safe(one.conversation_id), "cyan"),
            Text(safe(one.url)),
            Text(size(one.acknowledged_bytes)),
            Text(size(one.size)),
            Text(one.job_id or ""),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True, overflow="ignore")
    for name in others:
        table.add_column(name, justify="right" if name in ("CHUNKS", "SIZE", "SENT", "OF") else "left")
    return table
