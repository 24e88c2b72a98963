"""The API of Responses: asking a model, following its answer, reading it back, aborting it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from cody.contracts.submit import AbortRequest, SubmitRequest
from cody.errors import NotFound
from cody.store.events import Frame
from harness.service import RunService
from server import response_operations as operations
from server.auth import caller_of
from server.body import json_body, optional_json_body
from server.limits import Counted, Limits
from server.operations import JSON
from server.query import Query, text, whole_number
from server.routes import Endpoint, json_answer
from server.sse import EventStream
from server.streams import OpenStreams
from server.traced import Spanned

V2 = "/api/v2"
LISTED_BY_DEFAULT = 20
LISTED_AT_MOST = 100


class ResponseEndpoints:
    def __init__(self, service: RunService, streams: OpenStreams, limits: Limits) -> None:
        self._service = service
        self._streams = streams
        self._limits = limits

    def table(self) -> list[Endpoint]:
        response = f"{V2}/responses/{{run_id}}"
        return [
            Endpoint("POST", f"{V2}/submit", self.submit, scope="control", operation=operations.SUBMIT),
            Endpoint(
                "GET",
                f"{V2}/stream/{{run_id}}",
                self.stream,
                frozenset({"from"}),
                streams=True,
                operation=operations.STREAM,
            ),
            Endpoint("GET", response, self.response, operation=operations.RESPONSE),
            Endpoint("POST", f"{response}/abort", self.abort, scope="control", operation=operations.ABORT),
            Endpoint(
                "GET", f"{V2}/threads", self.threads, frozenset({"limit", "cursor"}), operation=operations.THREADS
            ),
            Endpoint(
                "GET", "/api/threads", self.threads, frozenset({"limit", "cursor"}), operation=operations.ALL_THREADS
            ),
            Endpoint("GET", f"{V2}/threads/{{thread_id}}", self.thread, operation=operations.THREAD),
        ]

    async def submit(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, SubmitRequest)
        answer = await self._service.pipeline.submit(asked, traceparent=request.headers.get("traceparent"))
        return json_answer(answer, 202, {"Location": f"{V2}/responses/{answer.run_id}"})

    async def stream(self, request: Request, query: Query) -> ASGIApp:
        """The header wins: it is what a browser sends when it comes back, to the same URL as before."""
        response_id = _response_id(request)
        start = request.headers.get("last-event-id") or query.get("from", "0")
        pipeline = self._service.pipeline
        try:
            position = await pipeline.tail.open(response_id, start)
        except NotFound:
            trimmed = await pipeline.trimmed(response_id)
            if trimmed is None:
                raise
            raise trimmed from None

        def follow() -> AsyncIterator[list[Frame]]:
            return pipeline.tail.follow(response_id, position)

        closed = self._limits.open_stream(caller_of(request.scope).name)
        stream = EventStream(response_id, follow, self._streams)
        return Counted(Spanned(stream, "response.stream", position.trace, response_id=response_id), closed)

    async def response(self, request: Request, query: Query) -> Response:
        found = await self._service.pipeline.response(_response_id(request))
        return Response(found.model_dump_json(exclude_none=True), media_type=JSON)

    async def abort(self, request: Request, query: Query) -> Response:
        asked = await optional_json_body(request, AbortRequest)
        return json_answer(await self._service.pipeline.abort(_response_id(request), asked.reason))

    async def threads(self, request: Request, query: Query) -> Response:
        limit = whole_number(query, "limit", default=LISTED_BY_DEFAULT, at_least=1, at_most=LISTED_AT_MOST)
        return json_answer(await self._service.pipeline.threads(limit=limit, cursor=text(query, "cursor")))

    async def thread(self, request: Request, query: Query) -> Response:
        found = await self._service.pipeline.thread(str(request.path_params["thread_id"]))
        return Response(found.model_dump_json(by_alias=True, exclude_none=True), media_type=JSON)


def _response_id(request: Request) -> str:
    return str(request.path_params["run_id"])
