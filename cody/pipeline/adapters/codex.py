"""`codex exec --json`: the lines of a turn as payloads of a Response, so that a turn of a run is an answer too. Pure.

Source: stdout of codex 0.169.0 and 0.163.0. The format has no version, so reading is lenient: a line that is no JSON
object (text, a fragment) and events and items of unknown types say nothing, and nothing that can be on a line raises.
A turn that prints neither turn.completed nor turn.failed (a signal, a crash) ends by `end()`, in an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from cody.contracts.responses import FINISH_STOP, ErrorItem, FunctionCall, Message, Reasoning, Usage
from cody.contracts.stream_events import ItemDone, ItemStart, Payload, ResponseDone, ResponseError, ResponseStart
from cody.pipeline.adapters.base import Translator, whole_item
from cody.pipeline.adapters.codex_items import (
    MESSAGE_END_BYTES,
    capped,
    output_of,
    plan_call,
    tool_call,
    tool_output,
)
from cody.pipeline.json_values import count_of, object_of, text_of
from cody.pipeline.problems import AGENT_FAILED, AGENT_WARNING, problem

NO_TOKENS = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)


class CodexAdapter(Translator[bytes]):
    """Translates one turn: feed it each line of stdout, with or without its newline.

    Codex counts tokens from the thread's beginning. `thread_usage` is its count before this turn (of a resumed thread:
    `thread_usage` of the adapter before), and what turn.completed says after it.
    """

    def __init__(self, opening: ResponseStart, *, thread_usage: Usage = NO_TOKENS) -> None:
        super().__init__(opening)
        self.thread_usage = thread_usage
        self._running: dict[str, FunctionCall] = {}
        self._plan = ""
        self._unnamed = 0

    def _translate(self, chunk: bytes) -> Iterator[Payload]:
        data = _json_object(chunk)
        match text_of(data.get("type")):
            case "item.started" | "item.updated":
                yield from self._begin(object_of(data.get("item")))
            case "item.completed":
                yield from self._finish(object_of(data.get("item")))
            case "error":
                # Not the end: codex may retry, and the turn may still complete.
                yield from self._warn(f"error_{self._next()}", data)
            case "turn.completed":
                yield from self._close()
                usage = self._spent(object_of(data.get("usage")))
                yield ResponseDone(
                    response_id=self.response_id, status="complete", usage=usage, finish_reason=FINISH_STOP
                )
            case "turn.failed":
                yield from self._close()
                message = text_of(object_of(data.get("error")).get("message")) or "codex did not say why"
                yield ResponseError(response_id=self.response_id, error=problem(AGENT_FAILED, message, retryable=True))

    def _begin(self, item: dict[str, Any]) -> Iterator[Payload]:
        if item.get("type") == "todo_list":
            yield from self._revise(item)
            return
        id = self._id(item)
        call = tool_call(item, id)
        if call is not None and id not in self._running:
            self._running[id] = call
            yield ItemStart(item_id=id, item_type="function_call", name=call.name, arguments=call.arguments)

    def _finish(self, item: dict[str, Any]) -> Iterator[Payload]:
        id = self._id(item)
        text = capped(text_of(item.get("text")), MESSAGE_END_BYTES)
        match text_of(item.get("type")):
            case "agent_message":
                yield from whole_item(Message(id=id, content=text))
            case "reasoning":
                yield from whole_item(Reasoning(id=id, content=text))
            case "todo_list":
                yield from self._revise(item)
            case "error":
                yield from self._warn(id, item)
            case _:
                yield from self._finish_call(item, id)

    def _finish_call(self, item: dict[str, Any], id: str) -> Iterator[Payload]:
        call = tool_call(item, id)
        if call is None:
            return
        yield from self._begin(item | {"id": id})
        del self._running[id]
        yield ItemDone(item_id=id, final_item=call)
        yield from whole_item(tool_output(item, id))

    def _revise(self, item: dict[str, Any]) -> Iterator[Payload]:
        """One call a revision: codex gives all of them the same id, and repeats the last when the turn ends."""
        call = plan_call(item, f"{self._id(item)}_{self._next()}")
        if call.arguments != self._plan:
            self._plan = call.arguments
            yield from whole_item(call)
            yield from whole_item(output_of(call.id, "Plan updated", success=True))

    def _warn(self, id: str, data: dict[str, Any]) -> Iterator[Payload]:
        message = capped(text_of(data.get("message")), MESSAGE_END_BYTES)
        yield from whole_item(ErrorItem(id=id, origin="system", code=AGENT_WARNING, message=message))

    def _close(self) -> Iterator[Payload]:
        """The outputs of calls that had not ended when the turn did: codex never reports one."""
        for id, call in self._running.items():
            yield ItemDone(item_id=id, final_item=call)
            yield from whole_item(output_of(id, "", success=False))
        self._running.clear()

    def _spent(self, usage: dict[str, Any]) -> Usage | None:
        if not usage:
            return None
        before = self.thread_usage
        prompt, completion = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
        self.thread_usage = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
        # A count that fell is that of a new thread, whatever was to be resumed.
        new_thread = prompt < before.prompt_tokens or completion < before.completion_tokens
        start = NO_TOKENS if new_thread else before
        return Usage(
            prompt_tokens=prompt - start.prompt_tokens,
            completion_tokens=completion - start.completion_tokens,
            total_tokens=prompt + completion - start.prompt_tokens - start.completion_tokens,
        )

    def _id(self, item: dict[str, Any]) -> str:
        return text_of(item.get("id")) or f"unnamed_{self._next()}"

    def _next(self) -> int:
        self._unnamed += 1
        return self._unnamed


def _json_object(line: bytes) -> dict[str, Any]:
    if not line.startswith(b"{"):
        return {}
    try:
        return object_of(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {}
