"""The Response that a stream of events makes. Pure, and idempotent.

Rules:
1. The first event is response_start; every other event before it is refused, and so is one about an unknown item.
2. An event that was applied changes nothing when it comes again, whether alone or in a replay from any earlier point.
3. item_done closes an item: its final_item replaces what the deltas made. Later deltas of it change nothing, a later
   item_done says the same or is refused.
4. response_done, response_error and turn_aborted_by_user end the Response and close its open items as they are. After
   that, what would change the Response is refused.
5. A refused event changes nothing and raises a class of its own, so that it can be parked with the reason.

What is remembered for rule 2 is little: a closed item needs no ids, since nothing can change it. An open one remembers
the deltas that it has, 8 bytes each, MAX_REMEMBERED at most: a replay that reaches further back would double text in
the item until its item_done puts it right. Usage is cumulative, so the larger figures are the newer ones; time stamps
are taken by their maximum. An event that was refused is not remembered: who parks it moves the cursor past it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cody.contracts.stream_events import StreamEvent
from cody.pipeline.refusals import EventRefused
from cody.pipeline.response_draft import Draft
from cody.pipeline.response_state import ReducerState


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not applied, and why."""

    event: StreamEvent
    error: EventRefused


@dataclass(frozen=True, slots=True)
class Folded:
    """What a batch of events made. `state` is None while there was no response_start."""

    state: ReducerState | None
    refused: tuple[Refused, ...]


def reduce(state: ReducerState | None, event: StreamEvent) -> ReducerState:
    """The state after `event`; None = nothing came yet. The very same object when the event changes nothing.

    Raises EventBeforeStart, WrongResponse, UnknownItem, ItemClosed or ResponseEnded; all are EventRefused.
    """
    draft = Draft.of(state)
    draft.apply(event)
    after = draft.state()
    assert after is not None  # an event that was applied to nothing was a response_start
    return after


def fold(state: ReducerState | None, events: Iterable[StreamEvent]) -> Folded:
    """The same for a batch, in one pass: work is in proportion to the batch and the Response, not to their product."""
    draft = Draft.of(state)
    refused = []
    for event in events:
        try:
            draft.apply(event)
        except EventRefused as error:
            refused.append(Refused(event, error))
    return Folded(draft.state(), tuple(refused))
