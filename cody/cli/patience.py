"""Calls that are made again while the server is away for a moment: it restarts, or its Redis does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cody.client import ServerUnreachable
from cody.errors import StoreUnavailable

GIVE_UP_AFTER_S = 60.0
"""As long as the event stream tries (cody/client/stream.py): `watch` and `logs --follow` last equally long."""
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0

Answer = TypeVar("Answer")


class Patience:
    """`on_lost` gets the reason when the server is away, and None when it is back."""

    def __init__(self, on_lost: Callable[[str | None], None], *, give_up_after_s: float = GIVE_UP_AFTER_S) -> None:
        self._on_lost = on_lost
        self._give_up_after_s = give_up_after_s
        self._connected_once = False

    async def of(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the call gives. Raises what it raises; that the server is away only once it is for too long.

        It is raised at once before the first answer: then there is no server, rather than one that comes back.
        """
        lost_at_s: float | None = None
        wait_s = FIRST_WAIT_S
        while True:
            try:
                answer = await call()
            except (ServerUnreachable, StoreUnavailable) as error:
                now_s = asyncio.get_running_loop().time()
                if (
                    not self._connected_once
                    or now_s - (now_s if lost_at_s is None else lost_at_s) >= self._give_up_after_s
                ):
                    raise
                if lost_at_s is None:
                    lost_at_s = now_s
                    self._on_lost(error.message)
                await asyncio.sleep(wait_s)
                wait_s = min(MAX_WAIT_S, wait_s * 2)
                continue
            self._connected_once = True
            if lost_at_s is not None:
                self._on_lost(None)
            return answer
