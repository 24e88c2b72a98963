"""The API of the sync engine: records that other Codys send, their jobs, and what arrived."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from cody.errors import InvalidRequest
from cody.sync.contracts import Adapter, JobSnapshot, Readable
from cody.sync.errors import SyncError, SyncErrorCode
from cody.sync.wire import AppendAnswer, JobsAnswer, job_answer, snake_keys, source_answer
from server import sync_operations as operations
from server.body import json_body, optional_json_body
from server.grants import Granted
from server.problems import Problem
from server.query import Query, text, whole_number
from server.routes import Endpoint, Handler
from server.sync_operations import AppendChunk, Nothing, SealSource, StartSource
from server.waiting import Awaited

SYNC = "/api/sync"
SOURCE = f"{SYNC}/sources/{{source_id}}"
JOB = f"{SYNC}/jobs/{{job_id}}"
OF_CONVERSATION = frozenset({"conversationId"})

STATUS_BY_CODE: Mapping[SyncErrorCode, int] = {
    "source_not_found": 404,
    "job_not_found": 404,
    "backend_unavailable": 503,
}
"""All others say that the request, well-formed as it is, does not fit what is there or what was announced: 409."""


class SyncEngine(Adapter, Readable, Protocol):
    """What is behind the routes."""


class SyncEndpoints:
    """`engine`: called for every request, so that a server that nobody syncs with opens no database."""

    def __init__(self, engine: Callable[[], Awaitable[SyncEngine]]) -> None:
        self._engine = engine

    def table(self) -> list[Endpoint]:
        return [
            Endpoint("POST", f"{SYNC}/sources", canonical(self.start), scope="control", operation=operations.START),
            Endpoint("POST", f"{SOURCE}/chunks", canonical(self.append), scope="control", operation=operations.APPEND),
            Endpoint("POST", f"{SOURCE}/seal", canonical(self.seal), scope="control", operation=operations.SEAL),
            Endpoint("GET", f"{SYNC}/jobs", canonical(self.jobs), OF_CONVERSATION, operation=operations.JOBS),
            Endpoint("GET", JOB, canonical(self.job), frozenset({"waitMs"}), streams=True, operation=operations.JOB),
            Endpoint("POST", f"{JOB}/cancel", canonical(self.cancel), scope="control", operation=operations.CANCEL),
            Endpoint(
                *("GET", f"{SYNC}/record", canonical(self.record), OF_CONVERSATION),
                streams=True,
                operation=operations.RECORD,
            ),
        ]

    async def start(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, StartSource)
        engine = await self._engine()
        return _answer(source_answer(await engine.start(asked.conversation_id, asked.thread_id)), 201)

    async def append(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, AppendChunk)
        payload = base64.b64decode(asked.payload)
        engine = await self._engine()
        added = await engine.append(_id(request), asked.index, payload, asked.message_count, asked.byte_size)
        return _answer(AppendAnswer(appended=added))

    async def seal(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, SealSource)
        engine = await self._engine()
        # The contract's type is the model; engines take its JSON object too, and fail the source when it is none.
        manifest: Any = snake_keys(asked.manifest)
        return _job(await engine.seal(_id(request), manifest, asked.checksum, asked.expected_message_count))

    async def jobs(self, request: Request, query: Query) -> Response:
        engine = await self._engine()
        found = await engine.list(_conversation_id(query))
        return _answer(JobsAnswer(jobs=tuple(job_answer(job) for job in found)))

    async def job(self, request: Request, query: Query) -> ASGIApp:
        """The job; with `waitMs` once it has ended, or as it is after so long."""
        wait_ms = whole_number(query, "waitMs", default=0, at_least=0, at_most=operations.WAIT_AT_MOST_MS)
        engine = await self._engine()

        async def waited(request: Request, query: Query) -> Response:
            try:
                return _job(await engine.wait_for_terminal(_id(request), wait_ms / 1000))
            except SyncError as error:
                if error.code != "timeout":
                    raise
            return _job(await engine.get(_id(request)))

        if wait_ms:
            return Granted(Awaited(lambda: canonical(waited)(request, query)))
        return _job(await engine.get(_id(request)))

    async def cancel(self, request: Request, query: Query) -> Response:
        await optional_json_body(request, Nothing)
        engine = await self._engine()
        return _job(await engine.cancel(_id(request)))

    async def record(self, request: Request, query: Query) -> ASGIApp:
        """The verified record of a conversation, byte for byte. An answer that breaks off was replaced meanwhile."""
        engine = await self._engine()
        pieces = engine.read(_conversation_id(query))
        first = await anext(pieces, b"")  # before the first byte is the last moment to refuse
        return Granted(StreamingResponse(_with(first, pieces), media_type="application/octet-stream"))


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def canonical(handler: Handler) -> Handler:
    """The handler, answering the sync's own errors under their own codes."""

    async def handle(request: Request, query: Query) -> ASGIApp:
        try:
            return await handler(request, query)
        except SyncError as error:
            problem = Problem(STATUS_BY_CODE.get(error.code, 409), error.code, error.message)
            return Response(problem.body, problem.status, media_type="application/json")

    return handle


def _id(request: Request) -> str:
    return str(next(iter(request.path_params.values())))


def _conversation_id(query: Query) -> str:
    found = text(query, "conversationId")
    if found is None:
        raise InvalidRequest("conversationId: is required", details={"fields": [{"field": "conversationId"}]})
    return found


def _job(job: JobSnapshot) -> Response:
    return _answer(job_answer(job))


def _answer(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(by_alias=True), status, media_type="application/json")
