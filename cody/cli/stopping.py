"""The work of `cody stop`: end the server of this state folder, as a signal from its own terminal would."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import psutil

from cody.cli import exits
from cody.cli.amounts import plural
from cody.cli.known_roots import fall_asleep
from cody.cli.terminal import is_interactive, stderr_console
from cody.client import CodyClient, ServerUnreachable, credential_for
from cody.client.discovery import ServerFile, proves_itself, read_server_file
from cody.contracts.run import RunStatus, RunSummary
from cody.errors import Conflict, Forbidden, InvalidRequest
from cody.settings import Settings

ACTIVE: Sequence[RunStatus] = ("queued", "running", "pausing", "cancelling")
END_DEADLINE_S = 60.0
"""An orderly end takes a second or two; with --on-shutdown finish-turn as long as the turns that run."""
POLL_S = 0.05
SHOWN_RUNS = 5


async def stop_server(settings: Settings, *, yes: bool) -> int:
    """End the server and wait until it is gone; the exit code. Asks before it interrupts runs, unless `yes`.

    Raises Conflict where runs are active and nobody can be asked, ServerUnreachable for a server that does not answer.
    """
    errors = stderr_console()
    written = read_server_file(settings.server_file)
    if settings.url is not None and (written is None or written.url.rstrip("/") != settings.url.rstrip("/")):
        raise InvalidRequest(
            f"`cody stop` ends the server of the state folder {settings.state_dir}, which is not the one at {settings.url}: "
            "stop that where it runs, or unset CODY_URL"
        )
    if written is None or not psutil.pid_exists(written.pid):
        errors.print(f"no server is running for {settings.state_dir}", soft_wrap=True)
        return exits.OK
    active = await _active_runs(settings, written)
    if active and not yes and not _agreed(active):
        return exits.ERROR
    if active:
        # Else the next `cody runs` would start a server, and with it the runs that were just stopped.
        fall_asleep(settings.state_dir, "stopped")
    try:
        await _end(psutil.Process(written.pid))
    except psutil.NoSuchProcess:
        pass  # it ended by itself meanwhile
    except psutil.AccessDenied:
        raise Forbidden(f"the server is process {written.pid} of another user, who has to end it") from None
    except TimeoutError:
        raise Conflict(
            f"the server (process {written.pid}) was told to end, and has not after {END_DEADLINE_S:g} s: it may be "
            f"finishing turns. To end it without waiting: kill {written.pid}"
        ) from None
    errors.print(f"the server at {written.url} (process {written.pid}) has ended", soft_wrap=True)
    if active:
        errors.print("  cody run or cody serve starts one again, which takes its runs up", style="dim", soft_wrap=True)
    return exits.OK


async def _end(process: psutil.Process) -> None:
    """Raises TimeoutError when it goes on, and psutil's errors."""
    process.terminate()
    async with asyncio.timeout(END_DEADLINE_S):
        # A zombie has ended: its parent only has not looked yet.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(POLL_S)


async def _active_runs(settings: Settings, written: ServerFile) -> list[RunSummary]:
    """What it works on. That it takes the state folder's token shows that the process is the one that is meant."""
    if not await proves_itself(written):
        raise ServerUnreachable(
            f"process {written.pid} should be the server at {written.url}, and does not answer there. "
            f"If it is one (ps -p {written.pid}), end it: kill {written.pid}"
        )
    found: list[RunSummary] = []
    async with CodyClient(written.url, token=credential_for(settings, written.url)) as client:
        for status in ACTIVE:
            found += (await client.runs(limit=100, status=status)).runs
    return found


def _agreed(active: Sequence[RunSummary]) -> bool:
    """Whether the person wants them interrupted; raises Conflict when there is no person."""
    ids = ", ".join(run.run_id[:8] for run in active[:SHOWN_RUNS]) + (", …" if len(active) > SHOWN_RUNS else "")
    words = f"{plural(len(active), 'run')} active: {ids}"
    if not is_interactive():
        raise Conflict(f"{words}. The next server takes them up again; stop it all the same: cody stop --yes")
    print(f"{words}. The next server takes them up again. Stop it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
