"""What hypothesis draws: items, payloads, events, and whole streams as a publisher would send them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cody.contracts.responses import (
    ErrorInfo,
    ErrorItem,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    Reasoning,
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
    ResponseStart,
    ScriptExecutionDone,
    ScriptExecutionError,
    ScriptExecutionStart,
    StreamEvent,
    TurnAbortedByUser,
    UsageUpdate,
    stream_event,
)
from tests.pipeline.events import START, TRACE, stream_of

text = st.text(max_size=20)
ids = st.text(min_size=1, max_size=8)
counts = st.integers(0, 10**12)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
errors = st.builds(
    ErrorInfo, code=ids, message=text, details=st.none() | st.dictionaries(text, json_values, max_size=3)
)
usages = st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, total_tokens=counts)


def items(id: st.SearchStrategy[str] = ids) -> st.SearchStrategy[OutputItem]:
    common: dict[str, Any] = {
        "id": id,
        "origin": st.sampled_from(("user", "agent", "system")),
        "correlation_id": st.none() | ids,
    }
    return st.one_of(
        st.builds(Message, content=text, **common),
        st.builds(Reasoning, content=text, **common),
        st.builds(FunctionCall, name=text, arguments=text, call_id=ids, **common),
        st.builds(FunctionCallOutput, call_id=ids, output=text, success=st.booleans(), **common),
        st.builds(ScriptExecution, code=text, **common),
        st.builds(
            ScriptExecutionOutput,
            script_id=ids,
            result=text,
            success=st.booleans(),
            error=st.none() | errors,
            **common,
        ),
        st.builds(ErrorItem, code=ids, message=text, details=st.none(), **common),
    )


item_dones = items().map(lambda item: ItemDone(item_id=item.id, final_item=item))
item_types = st.sampled_from(
    (
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "script_execution",
        "script_execution_output",
        "error",
    )
)
maybe = st.none() | text
response_dones = st.builds(
    ResponseDone,
    response_id=ids,
    status=st.sampled_from(("complete", "error", "aborted")),
    usage=st.none() | usages,
    finish_reason=maybe,
)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(
        ResponseStart,
        response_id=ids,
        turn_id=ids,
        thread_id=ids,
        agent_id=st.none() | ids,
        model_id=ids,
        provider_id=ids,
        created_at=counts,
    ),
    st.builds(
        ItemStart,
        item_id=ids,
        item_type=item_types,
        initial_content=maybe,
        name=maybe,
        arguments=maybe,
        code=maybe,
    ),
    st.builds(ItemDelta, item_id=ids, delta_content=text),
    item_dones,
    st.builds(ItemError, item_id=ids, error=errors),
    st.builds(ItemCancelled, item_id=ids, reason=maybe),
    st.builds(ScriptExecutionStart, script_id=ids, code=text),
    st.builds(ScriptExecutionDone, script_id=ids, item_id=ids, result=text, success=st.booleans()),
    st.builds(ScriptExecutionError, script_id=ids, item_id=ids, error=errors),
    response_dones,
    st.builds(ResponseError, response_id=ids, error=errors),
    st.builds(UsageUpdate, usage=usages),
    st.just(Heartbeat()),
    st.builds(TurnAbortedByUser, turn_id=ids, reason=text),
)
events: st.SearchStrategy[StreamEvent] = st.builds(
    stream_event, payloads, event_id=st.uuids(), timestamp=counts, trace_context=st.just(TRACE), run_id=ids
)
responses = st.builds(
    Response,
    id=ids,
    turn_id=ids,
    thread_id=ids,
    agent_id=st.none() | ids,
    model_id=ids,
    provider_id=ids,
    created_at=counts,
    updated_at=counts,
    status=st.sampled_from(("queued", "in_progress", "complete", "error", "aborted")),
    output_items=st.lists(items(), max_size=4).map(tuple),
    usage=st.none() | usages,
    finish_reason=maybe,
    error=st.none() | errors,
)


@st.composite
def item_payloads(draw: st.DrawFn, id: str) -> list[Payload]:
    """All events of one item: done, broken off, cancelled, a script, or still open at the end."""
    if draw(st.booleans()) and draw(st.booleans()):
        ending: Payload = draw(
            st.builds(ScriptExecutionDone, script_id=st.just(id), item_id=st.just(f"{id}_output"), result=text)
            | st.builds(ScriptExecutionError, script_id=st.just(id), item_id=st.just(f"{id}_output"), error=errors)
        )
        return [ScriptExecutionStart(script_id=id, code=draw(text)), ending]
    final = draw(items(st.just(id)))
    start = ItemStart(item_id=id, item_type=final.type, initial_content=draw(maybe), name=draw(maybe))
    deltas = [ItemDelta(item_id=id, delta_content=piece) for piece in draw(st.lists(text, max_size=4))]
    endings: list[list[Payload]] = [
        [ItemDone(item_id=id, final_item=final)],
        [ItemError(item_id=id, error=draw(errors))],
        [ItemCancelled(item_id=id, reason=draw(maybe))],
        [],
    ]
    return [start, *deltas, *draw(st.sampled_from(endings))]


@st.composite
def answers(draw: st.DrawFn) -> list[StreamEvent]:
    """A valid stream: items side by side, usage and heartbeats among them, with or without an end."""
    lanes = [draw(item_payloads(f"item-{number}")) for number in range(draw(st.integers(0, 4)))]
    lanes.append(draw(st.lists(st.builds(UsageUpdate, usage=usages) | st.just(Heartbeat()), max_size=3)))
    said: list[Payload] = [START]
    while lanes := [lane for lane in lanes if lane]:
        said.append(draw(st.sampled_from(lanes)).pop(0))
    ends: list[list[Payload]] = [
        [draw(response_dones).model_copy(update={"response_id": START.response_id})],
        [ResponseError(response_id=START.response_id, error=draw(errors))],
        [TurnAbortedByUser(turn_id=START.turn_id, reason=draw(text))],
        [],
    ]
    return stream_of([*said, *draw(st.sampled_from(ends))])


@st.composite
def repeated(draw: st.DrawFn, stream: list[StreamEvent]) -> list[StreamEvent]:
    """The stream as an at-least-once transport may deliver it: single events again, and replays from any point."""
    delivered: list[StreamEvent] = []
    for seen, event in enumerate(stream, start=1):
        delivered.append(event)
        delivered += draw(st.lists(st.sampled_from(stream[:seen]), max_size=2))
        if draw(st.booleans()) and draw(st.booleans()):
            delivered += stream[draw(st.integers(0, seen - 1)) : seen]
    return delivered + stream[: draw(st.integers(0, len(stream)))]
