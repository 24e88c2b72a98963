"""Why an event can't be applied to its Response. Nothing was changed; the projector parks the event with the reason."""

from __future__ import annotations

from cody.contracts.stream_events import StreamEvent
from cody.errors import CodyError


class EventRefused(CodyError):
    """Base of them all. `details` has run_id, event_id and type, and item_id where it is about an item."""

    code = "event_refused"

    def __init__(self, event: StreamEvent, why: str, *, item_id: str | None = None) -> None:
        details = {"run_id": event.run_id, "event_id": str(event.event_id), "type": event.type}
        if item_id is not None:
            details["item_id"] = item_id
        super().__init__(f"{event.type} {event.event_id} of response {event.run_id}: {why}", details=details)


class EventBeforeStart(EventRefused):
    """The first event of a Response is response_start; this one came before it."""

    code = "event_before_start"


class WrongResponse(EventRefused):
    """The event, or its payload, names another response or turn."""

    code = "wrong_response"


class UnknownItem(EventRefused):
    """The event is about an item that has not been started."""

    code = "unknown_item"


class ItemClosed(EventRefused):
    """The item has ended, and the event says that it ended in another way."""

    code = "item_closed"


class ResponseEnded(EventRefused):
    """The Response has ended, and the event would change it."""

    code = "response_ended"
