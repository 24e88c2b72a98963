"""A turn of a run as a Response: what the agent does is published as events of an answer, beside the run's own events.

Of codex every item, as it happens; of any other program its last words and how it ended. Nothing here can harm the turn:
what fails is logged, and the Response then ends as it may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from structlog import get_logger

from cody.contracts.responses import FINISH_STOP, ErrorInfo, Message, Usage, turn_id_of
from cody.contracts.run import RunError, TokenUsage
from cody.contracts.stream_events import (
    Payload,
    ResponseDone,
    ResponseError,
    ResponseStart,
    TraceContext,
    TurnAbortedByUser,
)
from cody.pipeline.adapters.base import whole_item
from cody.pipeline.adapters.codex import NO_TOKENS, CodexAdapter
from cody.pipeline.problems import problem
from cody.pipeline.publisher import Publication, Publisher
from cody.redaction import Redactor
from cody.wall_clock import now_ms
from harness.agents.base import TurnOutcome

log = get_logger()

TURN_INTERRUPTED = "turn_interrupted"
UNKNOWN_MODEL = "default"
"""The agent chose its model itself, and did not say which."""


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """Which turn it is. `thread_id` and `thread_usage` are those of a conversation that is resumed."""

    run_id: str
    turn: int
    response_id: str
    agent: str
    model: str | None
    thread_id: str | None
    thread_usage: TokenUsage | None


class TurnResponse:
    """One turn's Response. Feed it each line of stdout, then `end` it. Without a publisher it does nothing."""

    def __init__(self, publisher: Publisher | None, facts: TurnFacts, redactor: Redactor) -> None:
        self._publisher = publisher
        self._facts = facts
        self._redactor = redactor
        self.trace: TraceContext | None = None
        """The turn's, once it has begun."""
        self._publication: Publication | None = None
        self._codex: CodexAdapter | None = None

    def line(self, data: bytes, thread_id: str | None) -> None:
        """A whole line, without secrets; `thread_id` is the conversation's, once the agent has told it."""
        if self._facts.agent == "codex" and (thread_id is not None or self._publication is not None):
            self._safely(lambda: self._take(data, thread_id))

    def end(self, outcome: TurnOutcome, interrupted: str | None) -> None:
        """The turn has ended; `interrupted` tells why from outside."""
        self._safely(lambda: self._end(outcome, interrupted))

    def _safely(self, act: Callable[[], None]) -> None:
        if self._publisher is None:
            return
        try:
            act()
        except Exception:
            log.exception("turn.response_failed", run_id=self._facts.run_id, turn=self._facts.turn)
            # Whoever publishes no more lets the lease run out: the Response ends as an error.
            if self._publication is not None:
                self._publication.take_away("broken")
            self._publisher = None

    def _take(self, data: bytes, thread_id: str | None) -> None:
        publication = self._begun(thread_id)
        assert self._codex is not None
        publication.say(*self._codex.feed(data))

    def _begun(self, thread_id: str | None) -> Publication:
        if self._publication is None:
            assert self._publisher is not None
            facts = self._facts
            opening = ResponseStart(
                response_id=facts.response_id,
                turn_id=turn_id_of(facts.run_id, facts.turn),
                thread_id=facts.thread_id or thread_id or facts.run_id,
                agent_id=facts.agent,
                model_id=facts.model or UNKNOWN_MODEL,
                provider_id=facts.agent,
                created_at=now_ms(),
            )
            trace = self.trace
            self._publication = self._publisher.begin(
                opening, trace=None if trace is None else lambda: trace, redactor=self._redactor
            )
            self._codex = CodexAdapter(opening, thread_usage=_usage(facts.thread_usage) or NO_TOKENS)
            self._codex.start()
        return self._publication

    def _end(self, outcome: TurnOutcome, interrupted: str | None) -> None:
        publication = self._begun(outcome.thread_id)
        assert self._codex is not None
        if not publication.ended:
            if self._facts.agent != "codex" and outcome.last_message:
                publication.say(*whole_item(Message(id="last_message", content=outcome.last_message)))
            publication.say(*ending(self._facts, outcome, interrupted))


def ending(facts: TurnFacts, outcome: TurnOutcome, interrupted: str | None) -> list[Payload]:
    """The last payload of a turn that did not tell its end itself. Pure."""
    if interrupted == "cancel":
        return [TurnAbortedByUser(turn_id=turn_id_of(facts.run_id, facts.turn), reason="the run was cancelled")]
    if interrupted is not None:
        error = problem(TURN_INTERRUPTED, f"the turn was interrupted: {interrupted}", retryable=True)
        return [ResponseError(response_id=facts.response_id, error=error)]
    if outcome.error is not None:
        return [ResponseError(response_id=facts.response_id, error=_error(outcome.error))]
    done = ResponseDone(
        response_id=facts.response_id, status="complete", usage=_usage(outcome.usage), finish_reason=FINISH_STOP
    )
    return [done]


def _error(error: RunError) -> ErrorInfo:
    return problem(error.code, error.message, retryable=error.retryable)


def _usage(usage: TokenUsage | None) -> Usage | None:
    if usage is None or not usage.total_tokens:
        return None
    return Usage(
        prompt_tokens=usage.input_tokens, completion_tokens=usage.output_tokens, total_tokens=usage.total_tokens
    )
