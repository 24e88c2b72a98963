"""What a run does without while its archive is far behind."""

from __future__ import annotations

from structlog import get_logger

from cody.contracts.run_events import WarningRaised, payload_json
from cody.store.events import Commit, PendingEvent
from cody.wall_clock import now_text
from harness.journal_queue import Batch
from harness.stream_bound import StreamBound

log = get_logger()

DROPPABLE = frozenset({"subprocess_output", "custom"})
"""Events that may be left out: the turn's log has what they say."""


class LateArchive:
    """Leaves output and custom events out while the archive is so far behind that Redis could not keep all it lacks.

    Redis would trim what the archive never got, which ends a run's archive for good. What was left out is told when the archive
    comes closer, and before whatever is waited for: a change of status, the end.
    """

    def __init__(self, run_id: str, bound: StreamBound) -> None:
        self._run_id = run_id
        self._bound = bound
        self._archived_seq: int | None = None
        """How far the archive is, as the last answer told; None = nobody archives this run."""
        self._left_out = 0
        """Events that were left out, and not told of yet."""

    def fitting(self, batch: Batch, last_seq: int) -> Batch:
        """The batch without what can be left out; the store ends at `last_seq`."""
        behind = 0 if self._archived_seq is None else last_seq - self._archived_seq
        if behind > self._bound.backlog:
            kept = [event for event in batch.events if event.type not in DROPPABLE]
            if not self._left_out and len(kept) < len(batch.events):
                log.warning("journal.archive_behind", run_id=self._run_id, events=behind)
            self._left_out += len(batch.events) - len(kept)
            batch.events = kept
        if self._left_out and (batch.done is not None or behind < self._bound.backlog // 2):
            batch.events.insert(0, self._warning())
            batch.tells_left_out = self._left_out
        return batch

    def answered(self, answer: Commit) -> None:
        """The store's answer to a batch, whatever it is."""
        self._archived_seq = answer.archived_seq

    def told(self, batch: Batch) -> None:
        """The batch is in the store, and with it the warning that it may have had."""
        self._left_out -= batch.tells_left_out

    def _warning(self) -> PendingEvent:
        message = (
            f"{self._left_out} output and custom events were left out: the archive was too far behind to get them; "
            "the turn's log is whole"
        )
        warning = WarningRaised(code="events_dropped", message=message)
        return PendingEvent(warning.type, now_text(), payload_json(warning))
