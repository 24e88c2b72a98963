"""Faults of what is asked of Cody: a storm of control calls, bodies that are none, paths that lead elsewhere, readers that
do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import socket
import sys
from pathlib import Path
from typing import get_args

import httpx2
import psutil

from cody.contracts.lifecycle import REQUESTED, TRANSITIONS
from cody.contracts.run import ControlAction, RunStatus
from cody.errors import Conflict
from cody.store import events
from tests.faults.stage import Measured, Stage, settled_orphans, stage
from tests.server.cody_server import CodyServer, OwnedRun, launch

STORM_RUNS = 4
STORM_CALLS = 1_000
CALLERS = 8
SLOW_READERS = 1_000
READER_BYTES = 128 << 10
"""What a reader that does not read may cost: its transport's buffer, one part, and its connection."""
POLL_S = 0.02

EVENT_OF: dict[str, str] = {"pause": "run_pausing", "resume": "run_resumed", "cancel": "run_cancelling"}


async def control_storm(seed: int) -> Measured:
    """1,000 mixed control calls by many callers on runs at work: each accepted one takes effect once, in the table's order."""
    async with stage(seed, ttl_ms=15_000) as set_up:
        await set_up.machine("a", grace_s=0.3)
        storm = [await set_up.run(maxTurns=None) for _ in range(STORM_RUNS)]
        for run in storm:
            await run.marks_of(1, 2)
        calls = [(set_up.rng.choice(storm), _action(set_up.rng)) for _ in range(STORM_CALLS)]
        accepted: dict[str, list[str]] = {run.run_id: [] for run in storm}

        async def caller(number: int) -> None:
            for run, action in calls[number::CALLERS]:
                with contextlib.suppress(Conflict):
                    await set_up.front.control(run.run_id, action, None)
                    accepted[run.run_id].append(action)

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        wrong = 0
        for run in storm:
            with contextlib.suppress(Conflict):
                await set_up.front.control(run.run_id, "cancel", None)
                accepted[run.run_id].append("cancel")
            await run.until(lambda run=run: run.of("run_cancelled"), "the storm's end")  # type: ignore[misc]
            kept = await set_up.stream(run)
            wrong += _illegal(kept) + sum(
                len(run.of(EVENT_OF[action])) != accepted[run.run_id].count(action) for action in EVENT_OF
            )
        orphans = sum([len(await settled_orphans(run.run_id)) for run in storm])
        return Measured(orphans=orphans, duplicated=wrong)


def _action(rng: random.Random) -> ControlAction:
    """Cancel seldom: what comes after it is refused."""
    actions: tuple[ControlAction, ...] = get_args(ControlAction)
    return "cancel" if rng.random() < 0.002 else rng.choice([one for one in actions if one != "cancel"])


_STEPS: dict[str, str] = {event: REQUESTED[action] for action, event in EVENT_OF.items()}  # type: ignore[index]
_STEPS |= {"run_started": "worker_started", "run_paused": "pause_acknowledged", "run_cancelled": "cancel_acknowledged"}


def _illegal(kept: list[dict[str, object]]) -> int:
    """Moves in a run's history that its table does not have."""
    status: RunStatus = "queued"
    wrong = 0
    for event in kept:
        step = _STEPS.get(str(event["type"]))
        if step is not None:
            target = TRANSITIONS[status].get(step)  # type: ignore[call-overload]
            wrong += target is None
            status = target or status
    return wrong


async def bodies_that_are_none(seed: int) -> Measured:
    """Deep and huge JSON, NaN, wrong content types, half a body: refused, each with an answer; the server goes on."""
    async with stage(seed) as set_up:
        server = await asyncio.to_thread(launch, set_up.folder, REDIS_URL=set_up.server.url, CODY_CONCURRENCY="0")
        try:
            assert server.url, server.stderr
            await asyncio.to_thread(_ask_nonsense, server, set_up.rng)
        finally:
            await asyncio.to_thread(server.discard)
        return Measured(
            lost=len((await set_up.front.records.page(limit=100, status=None, epic_id=None, cursor=None)).runs)
        )


def _ask_nonsense(server: CodyServer, rng: random.Random) -> None:
    deep = rng.randint(200, 100_000)
    number = rng.choice(["NaN", "Infinity", "-Infinity", "1e999"])
    json_type = "application/json"
    nonsense: list[tuple[bytes, str]] = [
        (b'{"a":' * deep + b"1" + b"}" * deep, json_type),
        (b"[" * deep, json_type),
        (b'{"epicId": "' + b"x" * rng.randint(2 << 20, 8 << 20) + b'"}', json_type),
        (f'{{"epicId": "e", "config": {{"workingDir": "/", "loopDelaySec": {number}}}}}'.encode(), json_type),
        (b'{"epicId": "e"', json_type),
        (bytes(rng.randrange(256) for _ in range(200)), json_type),
        (
            b'{"epicId": "e", "config": {}}',
            rng.choice(["text/plain", "application/x-www-form-urlencoded", "", "a" * 500]),
        ),
        (b'{"epicId": "e", "config": {}}', "application/json; charset=utf-16"),
    ]
    rng.shuffle(nonsense)
    with server.client() as client:
        for body, kind in nonsense:
            answer = client.post("/api/runs/continuous", content=body, headers={"Content-Type": kind})
            assert answer.status_code in (400, 413, 415), (answer.status_code, body[:80])
            assert answer.json()["error"]["code"], answer.text
        assert client.get("/healthz").status_code == 200


async def paths_that_lead_elsewhere(seed: int) -> Measured:
    """`..`, NUL and links in epicId and workingDir; a link that is turned elsewhere while the run waits: nothing runs there."""
    async with stage(seed) as set_up:
        inside, outside = set_up.folder / "inside", set_up.folder.parent / f"{set_up.folder.name}-outside"
        (inside / "repo" / ".cody-harness" / "e").mkdir(parents=True)
        (outside / ".cody-harness" / "e").mkdir(parents=True)
        try:
            (inside / "out").symlink_to(outside)
            await asyncio.to_thread(_ask_for_paths, set_up, inside, outside)
            ran = await _turned_link(set_up, outside)
        finally:
            await asyncio.to_thread(shutil.rmtree, outside)
        return Measured(lost=ran)


def _ask_for_paths(set_up: Stage, inside: Path, outside: Path) -> None:
    server = launch(set_up.folder, workspace_root=str(inside), REDIS_URL=set_up.server.url, CODY_CONCURRENCY="0")
    asked = [
        *(
            (str(inside / "repo"), epic)
            for epic in ("..", ".", "", "e/../../x", "/etc", "e\0", "\0", "e" * 5_000, "..\\e")
        ),
        *(
            (folder, "e")
            for folder in ("/", "/etc", f"{inside}/../{outside.name}", str(inside / "out"), "repo", "", "/r\0")
        ),
    ]
    set_up.rng.shuffle(asked)
    try:
        assert server.url, server.stderr
        with server.client() as client:
            for folder, epic in asked:
                answer = _start(client, folder, epic)
                assert answer.status_code in (400, 403, 404), (folder, epic, answer.status_code, answer.text)
            assert _start(client, str(inside / "repo"), "e").status_code == 202
    finally:
        server.discard()


def _start(client: httpx2.Client, folder: str, epic: str) -> httpx2.Response:
    config = {"workingDir": folder, "agent": "command", "command": [sys.executable, "-c", ""], "maxTurns": 1}
    return client.post("/api/runs/continuous", json={"epicId": epic, "config": config})


async def _turned_link(set_up: Stage, outside: Path) -> int:
    """Whether an agent ran in a folder that its workingDir was turned to after the run was accepted."""
    marker = outside / "ran"
    run = await set_up.run([sys.executable, "-c", "open('ran', 'w').close()"], maxTurns=1)
    link = set_up.folder / f"repo{len(set_up.runs) - 1}"
    await asyncio.to_thread(link.rename, set_up.folder / "was")
    link.symlink_to(outside)
    (outside / ".cody-harness" / "current-epic").mkdir(parents=True)
    await set_up.machine("a", isolated=False)
    end = await run.end()
    assert end.status == "failed", end
    return int(marker.exists())


async def slow_readers(seed: int) -> Measured:
    """1,000 readers, from many places of the stream, that read nothing, and one that reads: it gets everything, and all the
    while the server's memory stays within what each reader may cost."""
    async with stage(seed) as set_up:
        server = await asyncio.to_thread(launch, set_up.folder, REDIS_URL=set_up.server.url, CODY_CONCURRENCY="0")
        try:
            assert server.url, server.stderr
            run = await OwnedRun.create(set_up.redis)
            await run.add(5_000, text_bytes=1_000)
            ids = [frame.id for frame in await events.after(set_up.redis, run.run_id, "0-0", count=5_000)]
            process = psutil.Process(server.process.pid)
            before = process.memory_info().rss
            peak = _Peak(process)
            with contextlib.ExitStack() as stack:
                for number in range(SLOW_READERS):
                    begin = set_up.rng.choice(ids) if number % 2 else "0"
                    stack.enter_context(await asyncio.to_thread(_stalled, server, run.run_id, begin))
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 26)
                writer.write(_request(server, run.run_id, "0"))
                status = await reader.readline()
                assert b" 200 " in status, status
                # It reads all the while: one that pauses for longer than the send deadline is rightly cut off.
                reading = asyncio.create_task(_sequence(reader))
                for _ in range(30):
                    await run.add(500, text_bytes=1_000)
                await run.complete()
                seen = await reading
                writer.close()
                await peak.end()
            grown = peak.rss - before
            assert grown < SLOW_READERS * READER_BYTES, f"{grown >> 20} MiB more"
            return Measured(
                lost=run.last_seq - len(set(seen)),
                duplicated=len(seen) - len(set(seen)),
                gaps=sum(number != place for place, number in enumerate(seen, start=1)),
            )
        finally:
            await asyncio.to_thread(server.discard)


class _Peak:
    """The most memory that a process had while this was looking."""

    def __init__(self, process: psutil.Process) -> None:
        self.rss = 0
        self._process = process
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self.rss = max(self.rss, self._process.memory_info().rss)
            await asyncio.sleep(POLL_S)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


def _request(server: CodyServer, run_id: str, begin: str) -> bytes:
    host = f"Host: localhost:{server.port}\r\n{server.auth_line}"
    return f"GET /api/runs/{run_id}/stream?from={begin} HTTP/1.1\r\n{host}\r\n".encode()


def _stalled(server: CodyServer, run_id: str, begin: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(_request(server, run_id, begin))
    return connection


async def _sequence(reader: asyncio.StreamReader) -> list[int]:
    """The numbers of all events up to the end of the stream."""
    seen: list[int] = []
    async with asyncio.timeout(120):
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                seen.append(int(json.loads(line[6:])["seq"]))
            elif line.startswith(b"data: [DONE]"):
                break
    return seen
