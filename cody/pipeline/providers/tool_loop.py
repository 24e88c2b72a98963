"""One answer over several requests: the model calls tools, Cody runs them, the model goes on from their outputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog

from cody.contracts.responses import FINISH_TOOL_CALLS, FunctionCall, FunctionCallOutput, OutputItem, Usage
from cody.contracts.stream_events import ItemDone, ItemStart, Payload, ResponseDone, ResponseStart, UsageUpdate
from cody.contracts.tool_names import ToolName, ToolSandbox
from cody.pipeline.adapters.base import whole_item
from cody.pipeline.model_request import ModelRequest, Tool
from cody.pipeline.providers.driving import Provider
from cody.pipeline.providers.item_ids import ItemIds
from cody.pipeline.tracing import span
from cody.redaction import Redactor
from cody.settings import Settings

log = structlog.get_logger(__name__)

MAX_REQUESTS = 20
"""Of one answer: a model that calls tools in circles stops here, with its last calls unanswered."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    output: str
    success: bool = True


class Toolbox(Protocol):
    """The tools that Cody carries out for one answer."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model is offered."""

    async def run(self, call: FunctionCall) -> ToolResult:
        """The result of a call, also of one that is refused: the model is told. Cancelling ends what it started."""


class OpenToolbox(Protocol):
    def __call__(
        self,
        workspace: str,
        settings: Settings,
        *,
        sandbox: ToolSandbox = ...,
        allowed: Collection[ToolName] = ...,
        redactor: Redactor | None = ...,
    ) -> Toolbox:
        """The tools for a folder; may block. Raises Forbidden and InvalidRequest, which name the field."""


async def stream_with_tools(
    provider: Provider, request: ModelRequest, toolbox: Toolbox, *, max_requests: int = MAX_REQUESTS
) -> AsyncGenerator[Payload]:
    """The payloads of one Response, outputs of the tools among them; usage is the sum of all requests.

    The request's own tools are its caller's: once the model has called one of them, the answer ends with that call.
    """
    callers = {tool.name for tool in request.tools}
    request = request.model_copy(update={"tools": (*toolbox.tools, *request.tools)})
    spent: Usage | None = None
    ids = ItemIds()
    for number in range(1, max_requests + 1):
        ids.next_answer()
        begun: dict[str, OutputItem | None] = {}  # in the order in which they began; None = not done
        done: ResponseDone | None = None
        async with aclosing(provider.stream(request)) as payloads:
            async for told in payloads:
                payload = ids.unique(told)
                match payload:
                    case ResponseStart() if number > 1:
                        pass
                    case ResponseDone():
                        done = payload
                    case UsageUpdate(usage=usage):
                        yield UsageUpdate(usage=_sum(spent, usage))
                    case ItemStart(item_id=id):
                        begun[id] = None
                        yield payload
                    case ItemDone(item_id=id, final_item=item):
                        begun[id] = item
                        yield payload
                    case _:
                        yield payload
        if done is None:
            return  # it ended in an error, which was passed on
        spent = spent if done.usage is None else _sum(spent, done.usage)
        items = [item for item in begun.values() if item is not None]
        calls = _unanswered(items)
        if done.finish_reason != FINISH_TOOL_CALLS or not calls or number == max_requests:
            yield done.model_copy(update={"usage": spent})
            return
        own = [call for call in calls if call.name not in callers]
        for call in own:
            output = await _output(call, toolbox)
            items.append(output)
            for payload in whole_item(output):
                yield payload
        if len(own) < len(calls):
            yield done.model_copy(update={"usage": spent})
            return
        request = request.going_on(items)


def _unanswered(items: list[OutputItem]) -> list[FunctionCall]:
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    return [item for item in items if isinstance(item, FunctionCall) and item.call_id not in answered]


async def _output(call: FunctionCall, toolbox: Toolbox) -> FunctionCallOutput:
    known = call.name if any(tool.name == call.name for tool in toolbox.tools) else None
    try:
        with span("tool.run", tool=known) as recorded:
            result = await toolbox.run(call)
            recorded.set(success=result.success)
    except Exception:
        # The model is told and may go another way; the answer must not hang on one tool.
        log.exception("tool.failed", tool=call.name, call_id=call.call_id)
        result = ToolResult("the tool failed", success=False)
    return FunctionCallOutput(
        id=f"{call.id}_output",
        origin="system",
        call_id=call.call_id,
        output=result.output,
        success=result.success,
    )


def _sum(spent: Usage | None, usage: Usage) -> Usage:
    if spent is None:
        return usage
    return Usage(
        prompt_tokens=spent.prompt_tokens + usage.prompt_tokens,
        completion_tokens=spent.completion_tokens + usage.completion_tokens,
        total_tokens=spent.total_tokens + usage.total_tokens,
    )
