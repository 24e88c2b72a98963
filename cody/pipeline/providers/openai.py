"""OpenAI's Responses API, and servers that speak it: a request out, the payloads of a Response back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

import openai
from openai import AsyncOpenAI, AsyncStream, Omit, omit
from openai.types.responses import FunctionToolParam, ResponseInputItemParam, ResponseStreamEvent
from openai.types.shared_params import Reasoning

from cody.contracts.responses import ErrorInfo, FunctionCall, FunctionCallOutput, Message
from cody.contracts.stream_events import Payload
from cody.pipeline.adapters.openai import OpenAIAdapter
from cody.pipeline.adapters.openai_problems import NEVER_RETRY, problem_of_code
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

PROVIDER_ID = "openai"
BASE_URL = "https://api.openai.com/v1"

_T = TypeVar("_T")


class OpenAIProvider:
    """A Provider on one connection pool. `timeout_s`: the longest silence that is borne."""

    def __init__(self, *, api_key: str, base_url: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._client = AsyncOpenAI(
            api_key=api_key, base_url=base_url or BASE_URL, timeout=timeouts(timeout_s), max_retries=0
        )

    def stream(self, request: ModelRequest) -> AsyncGenerator[Payload]:
        return stream_openai(self._client, request)

    async def aclose(self) -> None:
        await self._client.close()


def stream_openai(client: AsyncOpenAI, request: ModelRequest) -> AsyncGenerator[Payload]:
    """The answer to `request`, asked for once, whatever retries the client is set to."""
    once = client.with_options(max_retries=0)

    async def open_stream() -> AsyncStream[ResponseStreamEvent]:
        effort = request.reasoning_effort
        return await once.responses.create(
            model=request.opening.model_id,
            input=openai_input(request),
            instructions=_given(request.instructions),
            tools=[_tool(tool) for tool in request.tools] or omit,
            max_output_tokens=_given(request.max_output_tokens),
            reasoning=omit if effort is None else Reasoning(effort=effort, summary="auto"),
            store=False,
            stream=True,
        )

    return drive(OpenAIAdapter(request.opening), open_stream, openai_problem, client.api_key)


def openai_input(request: ModelRequest) -> list[ResponseInputItemParam]:
    """The request's history and prompt as the API's input. Pure."""
    items = [_input_item(item) for item in sendable(request.history)]
    if request.prompt:
        items.append({"type": "message", "role": "user", "content": request.prompt})
    return items


def openai_problem(error: Exception, *, answering: bool) -> ErrorInfo | None:
    """See Explain. Pure."""
    match error:
        case openai.APIStatusError():
            code = error.code or error.type
            return http_problem(
                error.status_code,
                error.message,
                provider_code=code,
                request_id=error.request_id,
                retry_after_s=retry_after_s(error.response.headers),
                retryable=False if code in NEVER_RETRY else None,
            )
        case openai.APIConnectionError():
            timed_out = isinstance(error, openai.APITimeoutError)
            return connection_problem(timed_out=timed_out, answering=answering, message=said(error))
        case openai.APIError():
            # An event with an `error` in it, which the SDK raises instead of handing it on.
            return problem_of_code(text_of(error.code) or text_of(error.type), error.message)
        case _:
            return None


def _input_item(item: Said) -> ResponseInputItemParam:
    match item:
        case Message(origin="user", content=content):
            return {"type": "message", "role": "user", "content": content}
        case Message(origin="system", content=content):
            return {"type": "message", "role": "system", "content": content}
        case Message(content=content):
            return {"type": "message", "role": "assistant", "content": content}
        case FunctionCall():
            # Without its id: with one, the API asks for the reasoning item that came before it.
            return {
                "type": "function_call",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutput():
            return {"type": "function_call_output", "call_id": item.call_id, "output": item.output}


def _tool(tool: Tool) -> FunctionToolParam:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": False,
    }


def _given(value: _T | None) -> _T | Omit:
    return omit if value is None else value
