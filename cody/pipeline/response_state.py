"""What is kept of a Response between two events: the Response, and what tells a new delta from a repeated one. Pure."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated
from uuid import UUID

from pydantic import Field

from cody.contracts.responses import Id, Response, Shape, Text

MAX_REMEMBERED = 65_536
"""Deltas that an open item remembers: more than any answer has, 700 KB of JSON at the very most."""
_MARK_BYTES = 8
"""Of a hash of the event's id: two of 65,536 deltas are alike once in ten thousand million items."""


class OpenItem(Shape):
    """An item in progress, and the marks of the deltas that it has (base64, in order of arrival)."""

    item_id: Id
    seen: str = ""


class ReducerState(Shape):
    """A Response, and what must be remembered for the next event. Stored together: JSON both ways."""

    response: Response
    open_items: Annotated[tuple[OpenItem, ...], Field(strict=False)] = ()
    ended_by: Annotated[UUID, Field(strict=False)] | None = None
    """The event that ended the Response."""


class Refusal(Shape):
    """That the event which is entry `entry_id` of the stream could not be applied, and why."""

    entry_id: Id
    code: Id
    reason: Text


class ArchivedState(ReducerState):
    """A state as its row has it, with those of the last events that are yet to be parked.

    They are written together with what the others made, so that no death between the two can lose one.
    """

    refusals: Annotated[tuple[Refusal, ...], Field(strict=False)] = ()


class Marks:
    """The deltas that an item has, in order; past MAX_REMEMBERED the oldest is forgotten."""

    def __init__(self, packed: str = "") -> None:
        data = base64.b64decode(packed)
        self._marks = dict.fromkeys(data[at : at + _MARK_BYTES] for at in range(0, len(data), _MARK_BYTES))

    def add(self, event_id: UUID) -> bool:
        """False when the event is remembered already."""
        mark = hashlib.blake2b(event_id.bytes, digest_size=_MARK_BYTES).digest()
        if mark in self._marks:
            return False
        if len(self._marks) >= MAX_REMEMBERED:
            del self._marks[next(iter(self._marks))]
        self._marks[mark] = None
        return True

    def packed(self) -> str:
        return base64.b64encode(b"".join(self._marks)).decode()
