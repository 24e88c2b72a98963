"""A process that works on the jobs of a database until it is killed, if need be by itself in the midst of a transaction."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event

from cody.sync.adapters.sql import SqlAdapter
from cody.sync.policy import Policy

LEASE_S = 1.0
POLICY = Policy(lease_s=LEASE_S, retry_base_s=0.01, retry_cap_s=0.05)
PATIENT = POLICY.model_copy(update={"lease_s": 60.0})
"""Of a worker that does not die: nobody has to wait for the end of its lease."""
DIES_AT = 3
"""The chunk that is half applied when the process dies."""


def die_when_executing(statement_begins: str) -> None:
    """Kill this process before the DIES_AT-th statement that begins so: what it has done of its transaction is open."""
    seen = 0

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        if statement.startswith(statement_begins):
            seen += 1
            if seen == DIES_AT:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", listen)


def die_before_commit() -> None:
    """Kill this process when a transaction with a chunk in it is about to be committed."""
    applied = 0

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal applied
        applied += statement.startswith("INSERT INTO sync_records")

    def commit(_connection: Any) -> None:
        if applied == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", listen)
    event.listen(Engine, "commit", commit)


async def main(url: str, dies: str) -> None:
    match dies:
        case "between":
            die_when_executing("INSERT INTO sync_records")
        case "commit":
            die_before_commit()
        case "publish":
            die_when_executing("UPDATE sync_conversations")
    async with SqlAdapter(url, policy=PATIENT if dies == "never" else POLICY, poll_s=0.05):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
