"""Anthropic's Messages API: a request out, the payloads of a Response back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

import anthropic
import orjson
from anthropic import AsyncAnthropic, AsyncStream, omit
from anthropic.types import (
    ContentBlockParam,
    MessageParam,
    RawMessageStreamEvent,
    ToolParam,
)

from cody.contracts.responses import ErrorInfo, FunctionCall, FunctionCallOutput, Message
from cody.contracts.stream_events import Payload
from cody.pipeline.adapters.anthropic import AnthropicAdapter
from cody.pipeline.adapters.anthropic_problems import problem_of_type
from cody.pipeline.json_values import text_of
from cody.pipeline.model_request import ModelRequest, Said, Tool, sendable
from cody.pipeline.problems import http_problem
from cody.pipeline.providers.driving import (
    DEFAULT_TIMEOUT_S,
    connection_problem,
    drive,
    retry_after_s,
    said,
    timeouts,
)

Role = Literal["user", "assistant"]

PROVIDER_ID = "anthropic"
BASE_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 16_384
"""The API asks for a limit; this one is within that of every current model, and has room for thinking."""


class AnthropicProvider:
    """A Provider on one connection pool. `timeout_s`: the longest silence that is borne."""

    def __init__(self, *, api_key: str, base_url: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._client = AsyncAnthropic(
            api_key=api_key, base_url=base_url or BASE_URL, timeout=timeouts(timeout_s), max_retries=0
        )

    def stream(self, request: ModelRequest) -> AsyncGenerator[Payload]:
        return stream_anthropic(self._client, request)

    async def aclose(self) -> None:
        await self._client.close()


def stream_anthropic(client: AsyncAnthropic, request: ModelRequest) -> AsyncGenerator[Payload]:
    """The answer to `request`, asked for once, whatever retries the client is set to."""
    once = client.with_options(max_retries=0)

    async def open_stream() -> AsyncStream[RawMessageStreamEvent]:
        # Only with a prompt: after the outputs of tools, the API wants the signed thinking before the calls back.
        effort = request.reasoning_effort if request.prompt else None
        return await once.messages.create(
            model=request.opening.model_id,
            messages=anthropic_messages(request),
            system=anthropic_system(request) or omit,
            tools=[_tool(tool) for tool in request.tools] or omit,
            max_tokens=request.max_output_tokens or DEFAULT_MAX_TOKENS,
            thinking=omit if effort is None else {"type": "adaptive", "display": "summarized"},
            output_config=omit if effort is None else {"effort": effort},
            stream=True,
        )

    return drive(AnthropicAdapter(request.opening), open_stream, anthropic_problem, client.api_key)


def anthropic_messages(request: ModelRequest) -> list[MessageParam]:
    """The request's history and prompt as messages of alternating roles. Pure."""
    turns: list[tuple[Role, list[ContentBlockParam]]] = []
    spoken = [(_role(item), _block(item)) for item in sendable(request.history) if not _is_system(item)]
    if request.prompt:
        spoken.append(("user", {"type": "text", "text": request.prompt}))
    for role, block in spoken:
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].append(block)
    return [_message(role, blocks) for role, blocks in turns]


def anthropic_system(request: ModelRequest) -> str:
    """The instructions, and what was said by the system in the thread: the API has one place for both. Pure."""
    told = [item.content for item in sendable(request.history) if isinstance(item, Message) and _is_system(item)]
    return "\n\n".join([request.instructions, *told] if request.instructions else told)


def anthropic_problem(error: Exception, *, answering: bool) -> ErrorInfo | None:
    """See Explain. Pure."""
    match error:
        case anthropic.APIStatusError(response=response) if error.status_code < 400:
            # An `error` event in the midst of a stream that began with 200.
            kind = text_of(error.type)
            return problem_of_type(kind, error.api_message or error.message, request_id=error.request_id)
        case anthropic.APIStatusError(response=response):
            return http_problem(
                error.status_code,
                error.api_message or error.message,
                provider_code=error.type,
                request_id=error.request_id,
                retry_after_s=retry_after_s(response.headers),
            )
        case anthropic.APIConnectionError():
            timed_out = isinstance(error, anthropic.APITimeoutError)
            return connection_problem(timed_out=timed_out, answering=answering, message=said(error))
        case _:
            return None


def _is_system(item: Said) -> bool:
    return isinstance(item, Message) and item.origin == "system"


def _message(role: Role, blocks: list[ContentBlockParam]) -> MessageParam:
    match role:
        case "user":
            return {"role": "user", "content": blocks}
        case "assistant":
            return {"role": "assistant", "content": blocks}


def _role(item: Said) -> Role:
    match item:
        case Message(origin="user") | FunctionCallOutput():
            return "user"
        case _:
            return "assistant"


def _block(item: Said) -> ContentBlockParam:
    match item:
        case Message():
            return {"type": "text", "text": item.content}
        case FunctionCall():
            return {"type": "tool_use", "id": item.call_id, "name": item.name, "input": _input(item.arguments)}
        case FunctionCallOutput():
            return {
                "type": "tool_result",
                "tool_use_id": item.call_id,
                "content": item.output,
                "is_error": not item.success,
            }


def _input(arguments: str) -> dict[str, object]:
    """The arguments as an object, which the API asks for; what the model wrote otherwise is kept as text."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _tool(tool: Tool) -> ToolParam:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
