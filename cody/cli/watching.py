"""Following a run to its end, or until the person has seen enough."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Literal

from cody.cli.screen import Received, Screen
from cody.cli.status_bar import Bar
from cody.cli.steering import Steering, Wish
from cody.client import CodyClient
from cody.contracts.run import TERMINAL, RunSnapshot
from cody.errors import CodyError, StreamTrimmed

REFRESH_S = 2.0
"""Between two looks at the run's sums while events come in."""
MIN_REFRESH_S = 0.1
PAUSED_LOOKS = 10
"""Looks at a paused run before it is left without having shown the event: it may lie before what is watched."""
WAITING_EVENTS = 2_000
"""Events that wait to be shown; beyond it nothing more is read, and the server keeps them."""
SHOWN_AT_ONCE = 500

Outcome = Literal["ended", "detached", "paused"]


@dataclass(frozen=True, slots=True)
class Watched:
    """How the watching ended, and the run as it was then."""

    outcome: Outcome
    snapshot: RunSnapshot


async def watch(client: CodyClient, run: RunSnapshot, screen: Screen, *, from_: str, interactive: bool) -> Watched:
    """Show a run until it has ended, or the person detaches or has paused it. Raises what the client raises."""
    with screen:
        watcher = _Watcher(client, run, screen)
        with Steering(watcher.wishes.put_nowait, interactive=interactive):
            outcome = await watcher.run(from_)
    return Watched(outcome, await _last_snapshot(client, watcher.snapshot))


async def _last_snapshot(client: CodyClient, known: RunSnapshot) -> RunSnapshot:
    with suppress(CodyError):
        return await client.snapshot(known.run_id)
    return known


class _Watcher:
    def __init__(self, client: CodyClient, snapshot: RunSnapshot, screen: Screen) -> None:
        self.snapshot = snapshot
        self.wishes: asyncio.Queue[Wish] = asyncio.Queue()
        self._client = client
        self._screen = screen
        self._events: asyncio.Queue[Received] = asyncio.Queue(WAITING_EVENTS)
        self._stale = asyncio.Event()
        self._urgent = asyncio.Event()
        self._lost: str | None = None
        self._asking = False
        self._leave_when_paused = False
        self._paused_is_shown = False
        self._last_seq = 0

    async def run(self, from_: str) -> Outcome:
        self._show_status()
        reading = asyncio.create_task(self._read(from_), name="read events")
        showing = asyncio.create_task(self._show(), name="show events")
        steering = asyncio.create_task(self._steer(), name="steer")
        refreshing = asyncio.create_task(self._refresh(), name="refresh the status")
        deciding = (showing, steering, refreshing)
        try:
            await asyncio.wait({reading, *deciding}, return_when=asyncio.FIRST_COMPLETED)
            for task in deciding:
                if task.done():
                    return task.result()
            # The stream is at its end; what was received last is still to be shown.
            drained = asyncio.create_task(self._events.join())
            await asyncio.wait({drained, showing}, return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            reading.result()
            return "ended"
        finally:
            for any_task in (reading, *deciding):
                any_task.cancel()
            await asyncio.gather(reading, *deciding, return_exceptions=True)

    async def _read(self, from_: str) -> None:
        """Fill the queue until the run has ended; what is no longer kept is said and left out."""
        while True:
            received_any = False
            try:
                async with aclosing(self._client.stream(self.snapshot.run_id, from_, on_lost=self._on_lost)) as stream:
                    async for stream_id, event in stream:
                        received_any = True
                        # After a stream was begun anew, it may bring again what was shown.
                        if event.seq > self._last_seq:
                            self._last_seq = event.seq
                            await self._events.put((stream_id, event))
                return
            except StreamTrimmed as error:
                if from_ == "0" and not received_any:
                    raise
                # Everything kept is newer than what was asked for, so the oldest kept is where to go on.
                from_ = "0"
                self._screen.notice(f"events before {error.earliest_event_id} are no longer kept: going on from there")

    async def _show(self) -> Outcome:
        while True:
            batch = [await self._events.get()]
            while len(batch) < SHOWN_AT_ONCE and not self._events.empty():
                batch.append(self._events.get_nowait())
            self._screen.show(batch)
            for _, event in batch:
                self._events.task_done()
                if event.type.startswith("run_"):
                    self._paused_is_shown = event.type == "run_paused"
                if event.type.startswith(("run_", "turn_started")):
                    self._urgent.set()
            self._stale.set()
            # A long history must not keep keys and signals waiting.
            await asyncio.sleep(0)

    async def _refresh(self) -> Outcome:
        """Keep the status bar true; returns when the pause that was asked for has come and been shown."""
        paused_looks = 0
        while True:
            await self._stale.wait()
            self._stale.clear()
            self._urgent.clear()
            with suppress(CodyError):
                self.snapshot = await self._client.snapshot(self.snapshot.run_id)
            self._show_status()
            if self._leave_when_paused and self.snapshot.status == "paused":
                paused_looks += 1
                if self._paused_is_shown or paused_looks > PAUSED_LOOKS:
                    return "paused"
                self._stale.set()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_S):
                        await self._urgent.wait()
            await asyncio.sleep(MIN_REFRESH_S)

    async def _steer(self) -> Outcome:
        while True:
            wish = await self.wishes.get()
            self._asking = wish == "ask"
            self._show_status()
            match wish:
                case "detach":
                    return "detached"
                case "pause" | "cancel":
                    await self._control(wish)
                case "ask" | "stay":
                    pass

    async def _control(self, action: Literal["pause", "cancel"]) -> None:
        run_id = self.snapshot.run_id
        self._leave_when_paused = action == "pause"
        try:
            await self._client.control(run_id, action)
        except CodyError as error:
            # Refused because it is paused, or has ended: that is what was wanted. Any other refusal is told.
            with suppress(CodyError):
                self.snapshot = await self._client.snapshot(run_id)
            if self.snapshot.status not in TERMINAL and not (action == "pause" and self.snapshot.status == "paused"):
                self._leave_when_paused = False
                self._screen.notice(f"{action} was refused: {error.message}")
        self._stale.set()
        self._urgent.set()

    def _on_lost(self, reason: str | None) -> None:
        self._lost = reason
        self._show_status()
        self._stale.set()

    def _show_status(self) -> None:
        self._screen.status(Bar(self.snapshot, self._lost, self._asking))
