"""The OpenAI Responses API: its stream of events as payloads of a Response. Pure.

Source: the event types of openai-python 3.52; the SDK builds them without validation, so each field is looked at before
it is used. An event of an unknown type says nothing; one of a known type that lacks its fields ends the answer as
malformed. Only the deltas are needed to follow an answer, and only output_item.done or response.completed to have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai.types.responses import (
    ResponseCodeInterpreterCallCodeDeltaEvent,
    ResponseCompletedEvent,
    ResponseCustomToolCallInputDeltaEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseIncompleteEvent,
    ResponseMcpCallArgumentsDeltaEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseReasoningSummaryPartAddedEvent,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)

from cody.contracts.responses import FINISH_STOP, FINISH_TOOL_CALLS, ItemType, Usage
from cody.contracts.stream_events import (
    ItemDelta,
    ItemDone,
    ItemStart,
    Payload,
    ResponseDone,
    ResponseError,
    ResponseStart,
    UsageUpdate,
)
from cody.pipeline.adapters.base import Translator, whole_item
from cody.pipeline.adapters.openai_items import PART_BREAK, custom_input, read_item
from cody.pipeline.adapters.openai_problems import problem_of_code
from cody.pipeline.json_values import count_of, object_of, objects_of, text_of

_READ = frozenset(
    {
        "error",
        "response.code_interpreter_call_code.delta",
        "response.completed",
        "response.custom_tool_call_input.delta",
        "response.failed",
        "response.function_call_arguments.delta",
        "response.incomplete",
        "response.mcp_call_arguments.delta",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.refusal.delta",
    }
)


class OpenAIAdapter(Translator[ResponseStreamEvent]):
    """Translates one answer: feed it what `client.responses.create(stream=True)` yields."""

    def __init__(self, opening: ResponseStart) -> None:
        super().__init__(opening)
        self._begun: set[str] = set()
        self._done: set[str] = set()
        self._reasoned: set[str] = set()
        """Reasoning items that have text: the next part is set off from it."""
        self._awaits_output = False

    def _translate(self, chunk: ResponseStreamEvent) -> Iterator[Payload]:
        kind = getattr(chunk, "type", None)
        if not isinstance(kind, str):
            yield self._malformed("an event without a type")
            return
        if kind not in _READ:
            return
        match chunk:
            case ResponseOutputItemAddedEvent(item=item, output_index=int(index)):
                yield from self._begin(object_of(item), index)
            case ResponseOutputItemDoneEvent(item=item, output_index=int(index)):
                yield from self._finish(object_of(item), index)
            case (
                ResponseTextDeltaEvent(item_id=str(id), delta=str(text))
                | ResponseRefusalDeltaEvent(item_id=str(id), delta=str(text))
            ):
                yield from self._extend(id, "message", text)
            case (
                ResponseReasoningSummaryTextDeltaEvent(item_id=str(id), delta=str(text))
                | ResponseReasoningTextDeltaEvent(item_id=str(id), delta=str(text))
            ):
                self._reasoned.add(id)
                yield from self._extend(id, "reasoning", text)
            case ResponseReasoningSummaryPartAddedEvent(item_id=str(id)):
                if id in self._reasoned:
                    yield from self._extend(id, "reasoning", PART_BREAK)
            case (
                ResponseFunctionCallArgumentsDeltaEvent(item_id=str(id), delta=str(text))
                | ResponseMcpCallArgumentsDeltaEvent(item_id=str(id), delta=str(text))
            ):
                yield from self._extend(id, "function_call", text)
            case ResponseCustomToolCallInputDeltaEvent(item_id=str(id), delta=str(text)):
                yield from self._extend(id, "function_call", custom_input(text))
            case ResponseCodeInterpreterCallCodeDeltaEvent(item_id=str(id), delta=str(text)):
                yield from self._extend(id, "script_execution", text)
            case ResponseCompletedEvent(response=response) | ResponseIncompleteEvent(response=response):
                yield from self._complete(object_of(response))
            case ResponseFailedEvent(response=response):
                yield from self._failed(object_of(response))
            case ResponseErrorEvent(message=message, code=code):
                yield self._error(code, message)
            case _:
                yield self._malformed(f"an event of type {kind} that lacks what it needs")

    def _begin(self, data: dict[str, Any], index: int) -> Iterator[Payload]:
        id = _id(data, index)
        read = read_item(data, id)
        if read is not None and id not in self._begun:
            self._begun.add(id)
            yield read.start

    def _extend(self, id: str, kind: ItemType, text: str) -> Iterator[Payload]:
        if id not in self._begun:  # servers that only resemble OpenAI's leave output_item.added out
            self._begun.add(id)
            yield ItemStart(item_id=id, item_type=kind)
        if text and id not in self._done:
            yield ItemDelta(item_id=id, delta_content=text)

    def _finish(self, data: dict[str, Any], index: int) -> Iterator[Payload]:
        id = _id(data, index)
        read = read_item(data, id)
        if read is None or id in self._done:
            return
        yield from self._begin(data, index)
        self._done.add(id)
        self._awaits_output |= read.awaits_output
        yield ItemDone(item_id=id, final_item=read.items[0])
        for output in read.items[1:]:
            yield from whole_item(output)

    def _complete(self, response: dict[str, Any]) -> Iterator[Payload]:
        """The end of an answer that is complete, or was cut for a reason that the API tells."""
        for index, item in enumerate(objects_of(response.get("output"))):
            yield from self._finish(item, index)
        cut = text_of(object_of(response.get("incomplete_details")).get("reason"))
        if response.get("status") == "incomplete":
            reason = cut or "incomplete"
        else:
            reason = FINISH_TOOL_CALLS if self._awaits_output else FINISH_STOP
        yield ResponseDone(
            response_id=self.response_id,
            status="complete",
            usage=_usage(response.get("usage")),
            finish_reason=reason,
        )

    def _failed(self, response: dict[str, Any]) -> Iterator[Payload]:
        usage = _usage(response.get("usage"))
        if usage is not None:
            yield UsageUpdate(usage=usage)
        error = object_of(response.get("error"))
        yield self._error(error.get("code"), error.get("message"))

    def _error(self, code: object, message: object) -> ResponseError:
        error = problem_of_code(text_of(code), text_of(message) or "the provider gave up without saying why")
        return ResponseError(response_id=self.response_id, error=error)


def _id(data: dict[str, Any], index: int) -> str:
    """The API may leave the id of a call out."""
    return text_of(data.get("id")) or text_of(data.get("call_id")) or f"item_{index}"


def _usage(value: object) -> Usage | None:
    told = object_of(value)
    if not told:
        return None
    prompt, completion = count_of(told.get("input_tokens")), count_of(told.get("output_tokens"))
    total = count_of(told.get("total_tokens")) or prompt + completion
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
