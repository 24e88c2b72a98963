"""A supervisor in a process of its own, to be frozen or killed. Spawns what its argument says (JSON) and waits for it.

Prints a line of JSON when the agent runs, and one when it has ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from harness.process import Launch, become_subreaper, boottime_ns, spawn


def say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), flush=True)


def zombies() -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stat = path.read_text().rpartition(")")[2].split()
            found += stat[0] == "Z" and int(stat[1]) == os.getpid()
    return found


async def main(task: dict[str, Any]) -> None:
    bystander = None
    if task.get("subreaper"):
        assert become_subreaper()
        bystander = subprocess.Popen(["sh", "-c", "exit 5"], start_new_session=True)
        os.waitid(os.P_PID, bystander.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, not collected by its owner
    now = boottime_ns()
    deadline = task.get("deadline_s")
    process = await spawn(
        Launch(tuple(task["argv"]), Path("/"), task["env"], Path(os.devnull)),
        guard_id=task["guard_id"],
        grace_s=task["grace_s"],
        on_stdout=lambda data: say({"stdout": data.decode()}),
        on_stderr=lambda data: say({"stderr": data.decode()}),
        deadline=(now + int(deadline[0] * 1e9), now + int(deadline[1] * 1e9)) if deadline else None,
    )
    say({"agent": process.pid, "guard": process.guard_pid})
    ended = dataclasses.asdict(await process.wait())
    say({"ended": ended, "zombies": zombies() - (bystander is not None), "bystander": bystander and bystander.wait()})


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(json.loads(sys.argv[1])))
