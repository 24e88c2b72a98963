"""The Response that a stream makes: what each event does, and that nothing happens twice."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.responses import (
    ErrorInfo,
    ErrorItem,
    FunctionCall,
    Message,
    Response,
    ScriptExecution,
    ScriptExecutionOutput,
    Usage,
)
from cody.contracts.stream_events import (
    Heartbeat,
    ItemCancelled,
    ItemDelta,
    ItemDone,
    ItemError,
    ItemStart,
    Payload,
    ResponseDone,
    ResponseError,
    ScriptExecutionDone,
    ScriptExecutionError,
    ScriptExecutionStart,
    StreamEvent,
    TurnAbortedByUser,
    UsageUpdate,
)
from cody.errors import CodyError
from cody.pipeline.reducer import fold, reduce
from cody.pipeline.refusals import (
    EventBeforeStart,
    EventRefused,
    ItemClosed,
    ResponseEnded,
    UnknownItem,
    WrongResponse,
)
from cody.pipeline.response_state import MAX_REMEMBERED, Marks, ReducerState
from tests.pipeline.events import START, event_of, stream_of
from tests.pipeline.strategies import answers, repeated

RUN = START.response_id
BEGUN = ItemStart(item_id="m", item_type="message")
HELLO = Message(id="m", content="Hello")
DONE = ResponseDone(response_id=RUN, status="complete", finish_reason="stop")
BOOM = ErrorInfo(code="provider_error", message="boom")
ENDS: list[Payload] = [
    DONE,
    ResponseError(response_id=RUN, error=BOOM),
    TurnAbortedByUser(turn_id="turn-1", reason=""),
]


def made(*payloads: Payload) -> Response:
    """The Response of a stream in which nothing is refused."""
    return folded(stream_of([START, *payloads])).response


def folded(events: list[StreamEvent]) -> ReducerState:
    result = fold(None, events)
    assert not result.refused
    assert result.state is not None
    return result.state


def after(*payloads: Payload) -> ReducerState:
    return folded(stream_of([START, *payloads]))


def late(payload: Payload, run_id: str = RUN) -> StreamEvent:
    return event_of(payload, 1000, run_id)


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def test_response_start_opens_the_response() -> None:
    response = made()
    assert (response.id, response.turn_id, response.thread_id) == (RUN, "turn-1", "thread-1")
    assert (response.model_id, response.provider_id) == ("model-1", "provider-1")
    assert response.status == "in_progress"
    assert response.created_at == response.updated_at == START.created_at


def test_response_start_takes_a_queued_response_up() -> None:
    queued = made().model_copy(update={"status": "queued"})
    state = reduce(ReducerState(response=queued), event_of(START, 5))
    assert state.response.status == "in_progress"
    with pytest.raises(EventBeforeStart):
        reduce(ReducerState(response=queued), event_of(BEGUN, 6))


def test_deltas_are_seen_as_they_come() -> None:
    pieces = [ItemDelta(item_id="m", delta_content=piece) for piece in ("Hel", "lo")]
    assert made(BEGUN, pieces[0]).output_items == (Message(id="m", content="Hel"),)
    assert made(BEGUN, *pieces).output_items == (HELLO,)


@pytest.mark.parametrize(
    ("item_type", "field"),
    [
        ("message", "content"),
        ("reasoning", "content"),
        ("function_call", "arguments"),
        ("function_call_output", "output"),
        ("script_execution", "code"),
        ("script_execution_output", "result"),
        ("error", "message"),
    ],
)
def test_each_type_has_a_place_for_its_deltas(item_type: str, field: str) -> None:
    start = ItemStart.model_validate({"item_id": "x", "item_type": item_type, "initial_content": None})
    response = made(start, *(ItemDelta(item_id="x", delta_content=piece) for piece in ("a", "b")))
    (item,) = response.output_items
    assert item.type == item_type
    assert getattr(item, field) == "ab"


def test_item_start_tells_what_it_knows_of_a_call_or_a_script() -> None:
    call = ItemStart(item_id="c", item_type="function_call", name="add", arguments='{"a":')
    script = ItemStart(item_id="s", item_type="script_execution", code="1 + 1")
    assert made(call, script).output_items == (
        FunctionCall(id="c", name="add", arguments='{"a":', call_id="c"),
        ScriptExecution(id="s", code="1 + 1"),
    )


def test_the_final_item_wins_over_its_deltas() -> None:
    final = FunctionCall(id="m", name="add", arguments="{}", call_id="call-7", correlation_id="turn-1")
    done = ItemDone(item_id="m", final_item=final)
    assert made(BEGUN, ItemDelta(item_id="m", delta_content="Hel"), done).output_items == (final,)


def test_items_stand_in_the_order_in_which_they_began() -> None:
    second = ItemStart(item_id="n", item_type="reasoning")
    response = made(BEGUN, second, ItemDelta(item_id="n", delta_content="x"), ItemDone(item_id="m", final_item=HELLO))
    assert [item.id for item in response.output_items] == ["m", "n"]


def test_a_broken_item_keeps_its_text_and_tells_why() -> None:
    response = made(BEGUN, ItemDelta(item_id="m", delta_content="Hel"), ItemError(item_id="m", error=BOOM))
    assert response.output_items == (
        Message(id="m", content="Hel"),
        ErrorItem(id="m_error", origin="system", correlation_id="m", code="provider_error", message="boom"),
    )
    assert response.status == "in_progress"


def test_a_cancelled_item_keeps_its_text_and_tells_why() -> None:
    response = made(BEGUN, ItemDelta(item_id="m", delta_content="Hel"), ItemCancelled(item_id="m", reason="enough"))
    message, error = response.output_items
    assert message == Message(id="m", content="Hel")
    assert isinstance(error, ErrorItem)
    assert (error.code, error.message) == ("cancelled", "enough")


def test_a_script_and_its_output() -> None:
    start = ScriptExecutionStart(script_id="s", code="1 + 1")
    done = ScriptExecutionDone(script_id="s", item_id="o", result="2")
    failed = ScriptExecutionError(script_id="s", item_id="o", error=BOOM)
    script = ScriptExecution(id="s", code="1 + 1")
    assert made(start, done).output_items == (
        script,
        ScriptExecutionOutput(id="o", origin="system", script_id="s", result="2", success=True),
    )
    assert made(start, failed).output_items == (
        script,
        ScriptExecutionOutput(id="o", origin="system", script_id="s", result="", success=False, error=BOOM),
    )


def test_response_done_tells_status_usage_and_reason() -> None:
    done = ResponseDone(response_id=RUN, status="complete", usage=usage(3, 4), finish_reason="max_output_tokens")
    response = made(BEGUN, done)
    assert response.is_terminal
    assert (response.status, response.usage, response.finish_reason) == ("complete", usage(3, 4), "max_output_tokens")


def test_usage_is_cumulative_and_the_last_word_is_response_dones() -> None:
    updates = [UsageUpdate(usage=usage(*counts)) for counts in ((10, 1), (10, 5))]
    assert made(*updates).usage == made(*reversed(updates)).usage == usage(10, 5)
    assert made(*updates, DONE).usage == usage(10, 5)
    assert made(*updates, DONE.model_copy(update={"usage": usage(9, 4)})).usage == usage(9, 4)


def test_an_error_ends_the_response_and_closes_what_was_open() -> None:
    state = after(BEGUN, ItemDelta(item_id="m", delta_content="Hel"), ResponseError(response_id=RUN, error=BOOM))
    assert (state.response.status, state.response.error) == ("error", BOOM)
    assert state.response.output_items == (Message(id="m", content="Hel"),)
    assert state.open_items == ()


def test_an_abort_ends_the_response_and_closes_what_was_open() -> None:
    state = after(BEGUN, TurnAbortedByUser(turn_id="turn-1", reason="changed my mind"))
    assert state.response.status == "aborted"
    assert state.response.error == ErrorInfo(code="aborted_by_user", message="changed my mind")
    assert state.open_items == ()


def test_time_runs_with_the_events_and_never_back() -> None:
    state = after(BEGUN)
    beaten = reduce(state, late(Heartbeat()))
    assert beaten.response.updated_at == START.created_at + 1000
    behind = event_of(ItemDelta(item_id="m", delta_content="x"), 3)
    assert reduce(beaten, behind).response.updated_at == START.created_at + 1000


@pytest.mark.parametrize(
    "payload",
    [BEGUN, ItemDelta(item_id="m", delta_content="x"), DONE, Heartbeat(), UsageUpdate(usage=usage(1, 1))],
)
def test_nothing_comes_before_response_start(payload: Payload) -> None:
    with pytest.raises(EventBeforeStart) as caught:
        reduce(None, event_of(payload, 0))
    assert isinstance(caught.value, CodyError)
    assert caught.value.code == "event_before_start"
    assert caught.value.details["event_id"] == str(UUID(int=1))
    assert fold(None, [event_of(payload, 0)]).state is None


@pytest.mark.parametrize(
    "payload",
    [
        ItemDelta(item_id="x", delta_content="x"),
        ItemDone(item_id="x", final_item=Message(id="x", content="")),
        ItemError(item_id="x", error=BOOM),
        ItemCancelled(item_id="x"),
        ScriptExecutionDone(script_id="x", item_id="y", result=""),
        ScriptExecutionError(script_id="x", item_id="y", error=BOOM),
    ],
)
def test_an_item_that_was_not_started_is_refused_by_name(payload: Payload) -> None:
    with pytest.raises(UnknownItem) as caught:
        reduce(after(BEGUN), late(payload))
    assert caught.value.details["item_id"] == "x"


@pytest.mark.parametrize(
    "event",
    [
        event_of(Heartbeat(), 9, "resp-2"),
        event_of(START.model_copy(update={"response_id": "resp-2"}), 9),
        event_of(DONE.model_copy(update={"response_id": "resp-2"}), 9),
        event_of(ResponseError(response_id="resp-2", error=BOOM), 9),
        event_of(TurnAbortedByUser(turn_id="turn-2", reason=""), 9),
    ],
)
def test_another_responses_events_are_refused(event: StreamEvent) -> None:
    with pytest.raises(WrongResponse):
        reduce(after(BEGUN), event)


def test_an_item_ends_once() -> None:
    state = after(BEGUN, ItemDone(item_id="m", final_item=HELLO))
    assert reduce(state, late(ItemDone(item_id="m", final_item=HELLO))) is state
    assert reduce(state, late(ItemDelta(item_id="m", delta_content="!"))) is state
    for other in (ItemDone(item_id="m", final_item=Message(id="m", content="Bye")), ItemError(item_id="m", error=BOOM)):
        with pytest.raises(ItemClosed):
            reduce(state, late(other))


@pytest.mark.parametrize("end", ENDS)
def test_after_the_end_only_what_changes_nothing_is_taken(end: Payload) -> None:
    state = after(BEGUN, end)
    for told in (START, BEGUN, Heartbeat(), UsageUpdate(usage=usage(9, 9)), ItemDelta(item_id="m", delta_content="x")):
        assert reduce(state, late(told)) is state
    news = [ItemStart(item_id="n", item_type="message"), ItemDone(item_id="m", final_item=HELLO), *ENDS]
    for payload in news:
        with pytest.raises(ResponseEnded):
            reduce(state, late(payload))


@pytest.mark.parametrize("end", ENDS)
def test_the_event_that_ended_the_response_may_come_again(end: Payload) -> None:
    stream = stream_of([START, end])
    state = folded(stream)
    assert reduce(state, stream[-1]) is state


def test_a_batch_goes_on_after_what_it_refuses() -> None:
    stray = ItemDelta(item_id="x", delta_content="x")
    result = fold(None, stream_of([Heartbeat(), START, stray, BEGUN, DONE, BEGUN, DONE]))
    assert [type(refused.error) for refused in result.refused] == [EventBeforeStart, UnknownItem, ResponseEnded]
    assert result.state is not None
    assert result.state.response.status == "complete"


def test_an_open_item_remembers_its_deltas_until_it_ends() -> None:
    deltas = [ItemDelta(item_id="m", delta_content="x")] * 3
    state = after(BEGUN, *deltas)
    assert [item.item_id for item in state.open_items] == ["m"]
    assert fold(state, stream_of([START, BEGUN, *deltas])).state is state
    assert reduce(state, late(ItemDone(item_id="m", final_item=HELLO))).open_items == ()


def test_what_an_open_item_remembers_is_bounded() -> None:
    marks = Marks()
    for number in range(MAX_REMEMBERED + 10):
        assert marks.add(UUID(int=number))
    packed = marks.packed()
    assert len(packed) <= MAX_REMEMBERED * 8 * 4 / 3 + 4
    kept = Marks(packed)
    assert not kept.add(UUID(int=MAX_REMEMBERED + 9))
    assert not kept.add(UUID(int=10)), "the newest are kept"
    assert kept.add(UUID(int=9)), "the oldest are forgotten"


@settings(deadline=None)
@given(answers().flatmap(lambda stream: st.tuples(st.just(stream), repeated(stream))))
def test_no_repetition_changes_anything(drawn: tuple[list[StreamEvent], list[StreamEvent]]) -> None:
    stream, delivered = drawn
    assert folded(delivered) == folded(stream)


@settings(deadline=None)
@given(answers())
def test_one_by_one_and_stored_in_between_is_the_same_as_in_one_batch(stream: list[StreamEvent]) -> None:
    state: ReducerState | None = None
    for event in stream:
        state = reduce(state, event)
        state = ReducerState.model_validate_json(state.model_dump_json())
    assert state == folded(stream)
    assert fold(state, stream).state is state


@settings(deadline=None)
@given(answers())
def test_a_finished_item_is_its_final_item_whatever_its_deltas_were(stream: list[StreamEvent]) -> None:
    ended = [event.payload for event in stream if isinstance(event.payload, ItemDone)]
    items = {item.id: item for item in folded(stream).response.output_items}
    assert [items[done.item_id] for done in ended] == [done.final_item for done in ended]


@settings(deadline=None)
@given(answers())
def test_a_refused_event_changes_nothing(stream: list[StreamEvent]) -> None:
    state = folded(stream)
    strays: list[Payload] = [ItemDelta(item_id="stray", delta_content="x"), ItemCancelled(item_id="stray")]
    for stray in strays:
        with pytest.raises(EventRefused):
            reduce(state, late(stray))
        assert fold(state, [late(stray)]).state is state
    assert state.response.is_terminal == (state.ended_by is not None)
    assert not (state.response.is_terminal and state.open_items), "what has ended has nothing in progress"
