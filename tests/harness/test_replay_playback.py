"""Which answer comes next: turns by prompt, answers by tool outputs, sessions apart, requests asked again."""

from __future__ import annotations

import json
from typing import Any

from harness.replay.asked import Asked, read_request
from harness.replay.playback import MAX_SESSIONS, Playback, Refusal, Step
from harness.replay.scenario import Scenario
from harness.replay.scenario_file import parse_scenario

_SAY = {"type": "message", "text": "ok"}
_CALL = {"type": "function_call", "name": "exec_command", "arguments": {"cmd": "true"}}
_WEB = {"type": "raw", "item": {"type": "web_search_call", "status": "completed"}}
_ERROR = {"error": {"status": 500}}


def _scenario(*turns: list[dict[str, Any]], **fields: Any) -> Scenario:
    data = {"name": "test", "turns": [{"responses": answers} for answers in turns], **fields}
    return parse_scenario(json.dumps(data), origin="test")


def _items(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items)}


def _asked(turn_id: str, outputs: int = 0, *, before: int = 0, prompt: str = "go", resumed: bool = False) -> Asked:
    """A request of codex; `outputs` of this turn, `before` of turns before."""
    return Asked(
        thread_id="thread",
        turn_key=turn_id,
        has_turn_id=True,
        prompt=prompt,
        outputs=before + outputs,
        outputs_before_prompt=before,
        resumed=resumed,
        model="gpt-5.5",
        stream=True,
    )


def _next(playback: Playback, asked: Asked, session: str = "s") -> tuple[int, int] | str:
    """Turn and answer that were given, or the code of the refusal. Each answer reaches its end at once."""
    match playback.next(session, asked):
        case Refusal() as refusal:
            return refusal.code
        case Step() as step:
            playback.completed(step)
            return step.turn, step.answer


def test_answers_follow_the_tool_outputs_of_the_turn() -> None:
    playback = Playback(_scenario([_items(_CALL, _CALL), _items(_SAY, _CALL), _items(_SAY)]))
    given = [_next(playback, _asked("a", outputs)) for outputs in (0, 2, 3)]
    assert given == [(1, 0), (1, 1), (1, 2)]


def test_a_request_asked_again_gets_the_same_answer() -> None:
    playback = Playback(_scenario([_items(_CALL), _items(_CALL), _items(_SAY)]))
    given = [_next(playback, _asked("a", outputs)) for outputs in (0, 1, 1, 0, 2, 2)]
    assert given == [(1, 0), (1, 1), (1, 1), (1, 0), (1, 2), (1, 2)]


def test_after_an_error_the_same_request_gets_what_follows_it() -> None:
    playback = Playback(_scenario([_items(_CALL), _ERROR, _ERROR, _items(_SAY)]))
    given = [_next(playback, _asked("a", outputs)) for outputs in (0, 1, 1, 1, 1)]
    assert given == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 3)]


def test_only_calls_that_arrived_before_a_cut_are_awaited() -> None:
    cut = {"items": [_CALL, _CALL], "drop": 1}
    playback = Playback(_scenario([cut, _items(_SAY)]))
    assert [_next(playback, _asked("a", outputs)) for outputs in (0, 1)] == [(1, 0), (1, 1)]


def test_calls_that_the_provider_makes_itself_are_not_awaited() -> None:
    raw_call = {"type": "raw", "item": {"type": "local_shell_call", "call_id": "recorded", "action": {}}}
    playback = Playback(_scenario([_items(_WEB, raw_call), _items(_SAY)]))
    assert [_next(playback, _asked("a", outputs)) for outputs in (0, 1)] == [(1, 0), (1, 1)]


def test_outputs_that_fit_no_answer_are_refused_with_those_that_do() -> None:
    playback = Playback(_scenario([_items(_CALL, _CALL), _items(_CALL), _items(_SAY)]))
    refusal = playback.next("s", _asked("a", 1))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "replay_out_of_step"
    assert "brings 1 tool outputs, answers exist for 0, 2, 3" in refusal.message


def test_a_turn_with_more_rounds_than_answers_is_exhausted() -> None:
    playback = Playback(_scenario([_items(_CALL)]))
    assert [_next(playback, _asked("a", outputs)) for outputs in (0, 1)] == [(1, 0), "replay_exhausted"]
    again = Playback(_scenario([_items(_CALL)], on_exhausted="repeat_last"))
    assert [_next(again, _asked("a", outputs)) for outputs in (0, 1, 2)] == [(1, 0), (1, 0), (1, 0)]


def test_each_new_turn_gets_the_next_one_of_the_scenario() -> None:
    playback = Playback(_scenario([_items(_CALL), _items(_SAY)], [_items(_SAY)]))
    given = [
        _next(playback, asked) for asked in (_asked("a"), _asked("a", 1), _asked("b"), _asked("a", 1), _asked("c"))
    ]
    assert given == [(1, 0), (1, 1), (2, 0), (1, 1), "replay_exhausted"]


def test_a_resumed_thread_counts_only_the_outputs_of_its_new_turn() -> None:
    playback = Playback(_scenario([_items(_CALL), _items(_SAY)], [_items(_CALL), _items(_SAY)]))
    first = [_next(playback, _asked("a", outputs)) for outputs in (0, 1)]
    second = [_next(playback, _asked("b", outputs, before=1, resumed=True)) for outputs in (0, 1)]
    assert first + second == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_turns_that_overlap_keep_their_own_place() -> None:
    playback = Playback(_scenario([_items(_CALL), _items(_SAY)], [_items(_CALL), _items(_SAY)]))
    given = [_next(playback, asked) for asked in (_asked("a"), _asked("b"), _asked("b", 1), _asked("a", 1))]
    assert given == [(1, 0), (2, 0), (2, 1), (1, 1)]


def test_sessions_share_nothing() -> None:
    playback = Playback(_scenario([_items(_SAY)], [_items(_SAY)]))
    given = [_next(playback, _asked(turn), session) for turn, session in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert given == [(1, 0), (1, 0), (2, 0)]


def test_the_number_of_sessions_is_bounded() -> None:
    playback = Playback(_scenario([_items(_SAY)]))
    for number in range(MAX_SESSIONS):
        assert _next(playback, _asked("a"), f"session {number}") == (1, 0)
    assert _next(playback, _asked("a"), "one too many") == "replay_too_many_sessions"
    assert _next(playback, _asked("a"), "session 0") == (1, 0)


def test_the_last_turn_repeats_when_the_scenario_says_so() -> None:
    playback = Playback(_scenario([_items(_SAY)], [_items(_CALL), _items(_SAY)], on_exhausted="repeat_last"))
    given = [_next(playback, asked) for asked in (_asked("a"), _asked("b"), _asked("c"), _asked("c", 1), _asked("d"))]
    assert given == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]


def test_an_unfinished_turn_is_left_behind_or_given_again() -> None:
    turns = ([_items(_CALL), _items(_SAY)], [_items(_SAY)])
    left = Playback(_scenario(*turns))
    assert [_next(left, _asked("a")), _next(left, _asked("b"))] == [(1, 0), (2, 0)]
    again = Playback(_scenario(*turns, unfinished="again"))
    assert _next(again, _asked("a")) == (1, 0)
    step = again.next("s", _asked("b"))
    assert isinstance(step, Step)
    assert (step.turn, step.content) == (2, again.next("s", _asked("a")).content), "the first turn's answer"  # type: ignore[union-attr]
    assert _next(again, _asked("b", 1)) == (2, 1)
    assert _next(again, _asked("c")) == (3, 0)
    assert _next(again, _asked("d")) == "replay_exhausted"


def test_turns_wait_for_a_prompt_that_matches() -> None:
    turns = [{"match": "second", "responses": [_items(_CALL)]}, {"responses": [_items(_SAY)]}]
    playback = Playback(parse_scenario(json.dumps({"name": "m", "turns": turns}), origin="m"))
    other = playback.next("s", _asked("a", prompt="first"))
    matching = playback.next("s", _asked("b", prompt="the second one"))
    assert isinstance(other, Step)
    assert isinstance(matching, Step)
    assert (other.content.awaited_outputs, matching.content.awaited_outputs) == (0, 1)


def test_a_client_without_turn_ids_is_followed_by_its_history() -> None:
    playback = Playback(_scenario([_items(_CALL), _items(_SAY)], [_items(_SAY)], [_items(_SAY)]))
    user: dict[str, Any] = {"role": "user", "content": "go"}
    call: dict[str, Any] = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output: dict[str, Any] = {"type": "function_call_output", "call_id": "c", "output": "x"}
    said: dict[str, Any] = {"role": "assistant", "content": "ok"}
    histories: list[Any] = ["go", [user, call, output], [user, call, output, said, user], "go"]
    given = [_next(playback, read_request({}, json.dumps({"input": history}).encode())) for history in histories]
    assert given == [(1, 0), (1, 1), (2, 0), (3, 0)], "the same prompt after a finished turn is a new turn"
