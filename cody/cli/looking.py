"""The work of the commands that look at runs."""

from __future__ import annotations

import asyncio
import codecs
import sys
from contextlib import aclosing
from datetime import UTC, datetime

from cody.cli import exits
from cody.cli.patience import Patience
from cody.cli.run_ids import find_run_id
from cody.cli.running import connect, watch_run, where_output_is
from cody.cli.tables import ID_CHARS, run_text, runs_table, turns_table
from cody.cli.terminal import print_json, print_table, stderr_console, stdout_console
from cody.cli.untrusted import one_line, safe
from cody.client import CodyClient, credential_for, find_server
from cody.contracts.run import TERMINAL, RunPage, RunStatus, RunSummary
from cody.errors import CodyError, NotFound
from cody.settings import Settings, load_settings

FOLLOW_POLL_S = 0.5
"""The raw output is a file: there is nothing that tells when it grows."""
COMPLETION_S = 1.5
"""The shell waits for its completions: none are better than late ones."""


async def list_runs(
    settings: Settings,
    *,
    limit: int,
    status: RunStatus | None,
    epic: str | None,
    every: bool,
    cursor: str | None,
    json: bool,
) -> None:
    """Print one page of runs, or all of them."""
    async with await connect(settings) as client:
        size = 100 if every else limit
        page = await client.runs(limit=size, status=status, epic_id=epic, cursor=cursor)
        found: list[RunSummary] = list(page.runs)
        while every and page.next_cursor is not None:
            page = await client.runs(limit=size, status=status, epic_id=epic, cursor=page.next_cursor)
            found += page.runs
    if json:
        print_json(RunPage(runs=found, next_cursor=page.next_cursor))
        return
    if found:
        print_table(stdout_console(), runs_table(found, datetime.now(UTC), stdout_console().width))
    else:
        stderr_console().print("no runs" + (" like that" if status or epic else " yet: start one with `cody run`"))
    if page.next_cursor is not None:
        more = f"more: cody runs --cursor {page.next_cursor}, or --all"
        stderr_console().print(more, style="dim", soft_wrap=True)


async def show_run(settings: Settings, given: str, *, json: bool) -> None:
    """Print a run and its turns."""
    async with await connect(settings) as client:
        run_id = await find_run_id(client, given)
        snapshot, turns = await asyncio.gather(client.snapshot(run_id), client.turns(run_id))
    if json:
        print_json({"run": snapshot, "turns": turns})
        return
    console = stdout_console()
    console.print(run_text(snapshot, where_output_is(settings, snapshot)), soft_wrap=True)
    if turns:
        console.print()
        print_table(console, turns_table(turns, console.width))


async def watch_existing(settings: Settings, given: str, *, from_: str, json: bool) -> int:
    """Watch a run; the exit code."""
    async with await connect(settings) as client:
        run = await client.snapshot(await find_run_id(client, given))
        return await watch_run(client, settings, run, from_=from_, json=json)


async def print_output(settings: Settings, given: str, *, turn: int | None, follow: bool) -> int:
    """Print a turn's output; with `follow` until its end, and without a turn given, to the run's end."""
    async with await connect(settings) as client:
        run_id = await find_run_id(client, given)
        patience = Patience(_say_lost) if follow else Patience(_say_lost, give_up_after_s=0.0)
        number = turn or await _latest_turn(client, patience, run_id, wait=follow)
        while True:
            await _print_turn(client, patience, run_id, number, follow=follow)
            following = await _turn_after(client, patience, run_id, number) if follow and turn is None else None
            if following is None:
                return exits.OK
            number = following


def _say_lost(reason: str | None) -> None:
    text = "connected again" if reason is None else f"no connection, trying again ({one_line(reason)})"
    stderr_console().print(text, style="dim", soft_wrap=True)


async def _latest_turn(client: CodyClient, patience: Patience, run_id: str, *, wait: bool) -> int:
    while True:
        snapshot = await patience.of(lambda: client.snapshot(run_id))
        turns = await patience.of(lambda: client.turns(run_id))
        if turns:
            return turns[-1].turn
        if not wait or snapshot.status in TERMINAL:
            raise NotFound(
                f"run {run_id} has no turn yet (it is {snapshot.status}): `cody logs --follow` waits for one"
            )
        await asyncio.sleep(FOLLOW_POLL_S)


async def _turn_after(client: CodyClient, patience: Patience, run_id: str, turn: int) -> int | None:
    """The next turn, waited for; None when the run ends without one."""
    while True:
        # In this order: a turn that began before the end was seen is not missed.
        ended = (await patience.of(lambda: client.snapshot(run_id))).status in TERMINAL
        turns = await patience.of(lambda: client.turns(run_id))
        later = [record.turn for record in turns if record.turn > turn]
        if later or ended:
            return min(later, default=None)
        await asyncio.sleep(FOLLOW_POLL_S)


async def _print_turn(client: CodyClient, patience: Patience, run_id: str, turn: int, *, follow: bool) -> None:
    out = _Output()
    offset = 0

    async def print_rest() -> None:
        nonlocal offset
        try:
            async with aclosing(client.output(run_id, turn, offset=offset)) as chunks:
                async for chunk in chunks:
                    offset += len(chunk)
                    out.write(chunk)
        finally:
            out.flush()

    while True:
        ended = not follow or (await patience.of(lambda: client.turn(run_id, turn))).status != "running"
        await patience.of(print_rest)
        if ended:
            return
        await asyncio.sleep(FOLLOW_POLL_S)


class _Output:
    """Stdout for an agent's bytes: as they are into a file or a pipe, made safe for a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if sys.stdout.isatty() else None

    def write(self, chunk: bytes) -> None:
        if self._decoder is None:
            sys.stdout.buffer.write(chunk)
        else:
            sys.stdout.write(safe(self._decoder.decode(chunk)))

    def flush(self) -> None:
        sys.stdout.flush()


def newest_ids(incomplete: str) -> list[tuple[str, str]]:
    """(id, what it is) of the newest runs that begin with `incomplete`; empty when there is no server to ask."""

    async def ask() -> list[tuple[str, str]]:
        settings = load_settings()
        url = await find_server(settings)
        if url is None:
            return []
        async with CodyClient(url, token=credential_for(settings, url), timeout_s=COMPLETION_S) as client:
            page = await client.runs(limit=50)
        return [
            (
                run.run_id if len(incomplete) > ID_CHARS else run.run_id[:ID_CHARS],
                one_line(f"{run.status} {run.epic_id}"),
            )
            for run in page.runs
            if run.run_id.startswith(incomplete)
        ]

    try:
        return asyncio.run(asyncio.wait_for(ask(), COMPLETION_S))
    except (CodyError, TimeoutError):
        return []
