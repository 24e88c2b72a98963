"""The event streams that are open in this process: counted, reported to the runs they watch, ended together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from structlog import get_logger

from cody.errors import CodyError
from server.outlet import SEND_DEADLINE_S

log = get_logger()

LAST_REPORT_S = 1.0


class Subscribers(Protocol):
    """Where runs learn who watches them."""

    async def touch_subscriber(self, run_id: str, client_id: str) -> None: ...

    async def remove_subscriber(self, run_id: str, client_id: str) -> None: ...


class Stream(Protocol):
    """One open stream."""

    run_id: str
    client_id: str

    def interrupt(self) -> None:
        """End it soon; it leaves the list when it has ended."""
        ...

    def beat(self) -> None:
        """A keepalive is due."""
        ...


class OpenStreams:
    """All open streams. One task reports for all of them, so that a slow Redis never delays a stream itself; one timer
    tells each when its keepalive is due."""

    def __init__(
        self, subscribers: Subscribers, *, keepalive_s: float, send_deadline_s: float = SEND_DEADLINE_S
    ) -> None:
        self.keepalive_s = keepalive_s
        self.send_deadline_s = send_deadline_s
        self.events_sent = 0
        self.opened = 0
        self.cut_off = 0
        self._subscribers = subscribers
        self._open: dict[str, Stream] = {}
        self._new: list[Stream] = []
        self._gone: list[Stream] = []
        self._changed = asyncio.Event()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._beats: deque[tuple[float, Stream]] = deque()
        """Whose keepalive is due when, by the loop's clock: in order, as all wait equally long."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> None:
        """The stream is open, until `remove`."""
        self._open[stream.client_id] = stream
        self._new.append(stream)
        self.opened += 1
        self._none_open.clear()
        self._changed.set()
        self._await_beat(stream)

    def remove(self, stream: Stream) -> None:
        """The stream has ended."""
        del self._open[stream.client_id]
        self._gone.append(stream)
        self._changed.set()
        if not self._open:
            self._none_open.set()

    def _await_beat(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        self._beats.append((loop.time() + self.keepalive_s, stream))
        if self._timer is None:
            self._timer = loop.call_at(self._beats[0][0], self._beat)

    def _beat(self) -> None:
        """Those that have ended are forgotten here; the rest is due again."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._beats and self._beats[0][0] <= loop.time():
            _, stream = self._beats.popleft()
            if stream.client_id in self._open:
                stream.beat()
                self._beats.append((loop.time() + self.keepalive_s, stream))
        if self._beats and self._timer is None:
            self._timer = loop.call_at(self._beats[0][0], self._beat)

    async def report(self) -> None:
        """Tell the runs who watches them: changes at once, everyone at each keepalive; until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.keepalive_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            if loop.time() >= due:
                self._new = list(self._open.values())
                due = loop.time() + self.keepalive_s
            await self._report_changes()

    async def _report_changes(self) -> None:
        """While Redis is away changes are dropped: who is there is reported again, who is not expires by itself."""
        self._changed.clear()
        new, self._new = self._new, []
        gone, self._gone = self._gone, []
        try:
            for stream in new:
                if stream.client_id in self._open:
                    await self._subscribers.touch_subscriber(stream.run_id, stream.client_id)
            for stream in gone:
                await self._subscribers.remove_subscriber(stream.run_id, stream.client_id)
        except CodyError as error:
            log.warning("streams.report_failed", error=error.message)

    async def end_all(self, *, grace_s: float) -> None:
        """Every stream has ended; first those that end by themselves get `grace_s` to do so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._none_open.wait()
        for stream in list(self._open.values()):
            stream.interrupt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_S):
                await self._none_open.wait()
                await self._report_changes()
