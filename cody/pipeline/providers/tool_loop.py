"""One answer over several requests: the model calls tools, Cody runs them, the model goes on from their outputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from cody.contracts.responses import FINISH_TOOL_CALLS, FunctionCall, FunctionCallOutput, OutputItem, Usage
from cody.contracts.stream_events import ItemDone, ItemStart, Payload, ResponseDone, ResponseStart, UsageUpdate
from cody.pipeline.adapters.base import whole_item
from cody.pipeline.model_request import ModelRequest
from cody.pipeline.providers.driving import Provider

log = structlog.get_logger(__name__)

MAX_REQUESTS = 20
"""Of one answer: a model that calls tools in circles stops here, with its last calls unanswered."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    output: str
    success: bool = True


RunTool = Callable[[FunctionCall], Awaitable[ToolResult]]


async def stream_with_tools(
    provider: Provider, request: ModelRequest, run_tool: RunTool, *, max_requests: int = MAX_REQUESTS
) -> AsyncGenerator[Payload]:
    """The payloads of one Response, outputs of the tools among them; usage is the sum of all requests."""
    spent: Usage | None = None
    for number in range(1, max_requests + 1):
        begun: dict[str, OutputItem | None] = {}  # in the order in which they began; None = not done
        done: ResponseDone | None = None
        async with aclosing(provider.stream(request)) as payloads:
            async for payload in payloads:
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
        for call in calls:
            output = await _output(call, run_tool)
            items.append(output)
            for payload in whole_item(output):
                yield payload
        request = request.going_on(items)


def _unanswered(items: list[OutputItem]) -> list[FunctionCall]:
    answered = {item.call_id for item in items if isinstance(item, FunctionCallOutput)}
    return [item for item in items if isinstance(item, FunctionCall) and item.call_id not in answered]


async def _output(call: FunctionCall, run_tool: RunTool) -> FunctionCallOutput:
    try:
        result = await run_tool(call)
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
