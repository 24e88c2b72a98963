"""Which answer comes next. Pure: it holds the state of a server's sessions and does no I/O.

1. A *session* is one client (its path or its key, see server.py); sessions share nothing but the scenario.
2. A request with a turn key that the session has not seen begins a turn: the first turn of the scenario that was not
   played yet and whose `match` and `thread` fit is given to it.
3. Within a turn, the number of tool outputs in the request says which answers are due: those before which the scenario
   awaits exactly that many. So a repeated request gets the same answer, whatever the order in which requests arrive.
4. Several answers are due at once only after an answer without tool calls (an error, a cut stream): the first that was
   not given yet, and when all were, the last of them again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate

from harness.replay.asked import Asked
from harness.replay.scenario import Answer, Scenario, Turn

MAX_SESSIONS = 1_000
"""More clients than any test or demo has; a bound, because the name of a session comes from the client."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer that is due: the `answer`-th (from 0) of the `turn`-th (from 1) turn that this session plays."""

    session: str
    turn_key: str
    turn: int
    answer: int
    content: Answer


@dataclass(frozen=True, slots=True)
class Refusal:
    """No answer is due. `code` is stable, the message says what was played and what to do."""

    code: str
    message: str


@dataclass(slots=True)
class _Play:
    """One turn that a session has begun."""

    number: int
    index: int
    """Of the scenario's turn."""
    turn: Turn
    outputs_before: int
    given: set[int] = field(default_factory=set)
    finished: bool = False


@dataclass(slots=True)
class _Session:
    plays: dict[str, _Play] = field(default_factory=dict)
    last: _Play | None = None
    begun: set[int] = field(default_factory=set)
    """The scenario's turns that were given out."""


class Playback:
    """The state of a scenario that is being played."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._sessions: dict[str, _Session] = {}

    def next(self, session: str, asked: Asked) -> Step | Refusal:
        """The answer that is due to this request; nothing is consumed by a refusal."""
        state = self._sessions.get(session)
        if state is None:
            if len(self._sessions) >= MAX_SESSIONS:
                return Refusal("replay_too_many_sessions", f"more than {MAX_SESSIONS} clients: start a new server")
            state = self._sessions[session] = _Session()
        play = state.plays.get(asked.turn_key)
        if play is None or (play.finished and not asked.has_turn_id and _outputs_of(play, asked) == 0):
            begun = self._begin(state, asked)
            if isinstance(begun, Refusal):
                return begun
            play = begun
        at = self._due(play, asked)
        if isinstance(at, Refusal):
            return at
        play.given.add(at)
        return Step(session, asked.turn_key, play.number, at, play.turn.responses[at])

    def completed(self, step: Step) -> None:
        """Note that the answer is about to reach its end; after the last answer, the turn counts as finished."""
        play = self._sessions[step.session].plays[step.turn_key]
        if step.answer == len(play.turn.responses) - 1:
            play.finished = True

    def _begin(self, state: _Session, asked: Asked) -> _Play | Refusal:
        index = self._choose(state, asked)
        if isinstance(index, Refusal):
            return index
        number = 1 if state.last is None else state.last.number + 1
        play = _Play(number, index, self._scenario.turns[index], outputs_before=asked.outputs_before_prompt)
        state.begun.add(index)
        state.plays[asked.turn_key] = state.last = play
        return play

    def _choose(self, state: _Session, asked: Asked) -> int | Refusal:
        """The index of the scenario's turn for this prompt."""
        turns = self._scenario.turns
        if self._scenario.unfinished == "again" and state.last is not None and not state.last.finished:
            return state.last.index
        waiting = [index for index in range(len(turns)) if index not in state.begun]
        for index in waiting:
            if _fits(turns[index], asked):
                return index
        if waiting:
            wanted = "; ".join(f"turn {index + 1}: {_demand(turns[index])}" for index in waiting)
            given = "resumed" if asked.resumed else "fresh"
            return Refusal(
                "replay_no_match",
                f"scenario {self._scenario.name}: no turn fits this prompt of a {given} thread. Waiting: {wanted}",
            )
        if self._scenario.on_exhausted == "repeat_last":
            return len(turns) - 1
        return Refusal(
            "replay_exhausted",
            f"scenario {self._scenario.name}: all of its turns ({len(turns)}) were played. Start a new session (another"
            " key, or another /s/NAME/ in the URL), or set `on_exhausted: repeat_last`",
        )

    def _due(self, play: _Play, asked: Asked) -> int | Refusal:
        """The index of the answer within the turn."""
        outputs = _outputs_of(play, asked)
        answers = play.turn.responses
        awaited = [0, *accumulate(answer.awaited_outputs for answer in answers)][: len(answers)]
        due = [at for at, count in enumerate(awaited) if count == outputs]
        if due:
            return next((at for at in due if at not in play.given), due[-1])
        where = f"scenario {self._scenario.name}, turn {play.index + 1}"
        if outputs > awaited[-1]:
            if self._scenario.on_exhausted == "repeat_last":
                return len(answers) - 1
            return Refusal("replay_exhausted", f"{where}: all answers of this turn ({len(answers)}) were given")
        known = ", ".join(map(str, sorted(set(awaited))))
        return Refusal(
            "replay_out_of_step", f"{where}: the request brings {outputs} tool outputs, answers exist for {known}"
        )


def _outputs_of(play: _Play, asked: Asked) -> int:
    """Tool outputs that belong to this turn."""
    return asked.outputs - play.outputs_before


def _fits(turn: Turn, asked: Asked) -> bool:
    if turn.thread != "any" and (turn.thread == "resumed") != asked.resumed:
        return False
    return turn.match is None or re.search(turn.match, asked.prompt) is not None


def _demand(turn: Turn) -> str:
    demands = [] if turn.thread == "any" else [f"a {turn.thread} thread"]
    if turn.match is not None:
        demands.append(f"a prompt that matches {turn.match!r}")
    return " and ".join(demands)
