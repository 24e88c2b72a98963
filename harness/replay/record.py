"""Recorder: a loopback proxy that passes requests on to an upstream's Responses API and keeps its answers.

The client's key goes upstream with the request and nowhere else: it is kept in no attribute, log or file, and where an
answer repeats it (an error that quotes the key), the file has `[redacted]`.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cody.errors import ConfigurationError
from harness.replay.asked import Asked, NotUnderstood, read_request
from harness.replay.loopback import ConnectionCut, Refused, listening, read_body
from harness.replay.recording import (
    AnswerReader,
    EventReader,
    Tape,
    answer_from_body,
    answer_from_error,
)
from harness.replay.scenario import Answer
from harness.replay.scenario_file import save_scenario

log = structlog.get_logger(__name__)

_TIMEOUT = httpx2.Timeout(600, connect=20)
"""Reading: models think for minutes between two events. Connecting: a wrong address shall not cost ten minutes."""
_NOT_PASSED_ON = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Hop-by-hop headers (RFC 9110), and those that both HTTP libraries set by themselves."""
_KEY_HEADERS = ("authorization", "api-key", "x-api-key", "cookie")


class Recorder:
    """Records while its context is open; `out` is written again after each answer, so a kill loses nothing before it.

    `upstream` is the address of an API, such as https://api.openai.com/v1. Raises ConfigurationError for an upstream
    that is no http(s) URL, an `out` that exists, and an address that is no loopback address.
    """

    def __init__(self, upstream: str, out: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        url = httpx2.URL(upstream)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
            raise ConfigurationError("the upstream must be an http or https URL without user, password and query")
        if out.exists() or not out.parent.is_dir():
            raise ConfigurationError(f"{out} exists, or its folder does not: name a new file in a folder that exists")
        self._upstream = upstream.rstrip("/")
        self._out = out
        self._address = (host, port)
        self._tape = Tape()
        self._stack = AsyncExitStack()
        self._origin = ""

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._client = await self._stack.enter_async_context(httpx2.AsyncClient(timeout=_TIMEOUT))
        routes = [Route("/v1/{path:path}", self._pass_on, methods=["GET", "POST"])]
        self._origin = await self._stack.enter_async_context(listening(Starlette(routes=routes), host=host, port=port))
        log.info("recording.started", url=self.base_url, upstream=self._upstream, out=str(self._out))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def base_url(self) -> str:
        """What a client takes as the API's address."""
        return f"{self._origin}/v1"

    async def _pass_on(self, request: Request) -> Response:
        try:
            return await self._answer(request, await read_body(request))
        except Refused as refused:
            return refused.response()

    async def _answer(self, request: Request, body: bytes) -> Response:
        path = request.path_params["path"]
        asked: Asked | None = None
        if request.method == "POST" and path == "responses":
            try:
                asked = read_request(request.headers, body)
            except NotUnderstood as problem:
                raise Refused(400, "record_not_understood", str(problem)) from None
            self._tape.begin(asked)
        asked_at_s = time.monotonic()
        try:
            answer = await self._client.send(self._forwarded(request, path, body), stream=True)
        except httpx2.TransportError as error:
            raise Refused(502, "record_upstream", f"{self._upstream} does not answer: {error!r}") from None
        return await self._passed_back(request, answer, asked, asked_at_s)

    def _forwarded(self, request: Request, path: str, body: bytes) -> httpx2.Request:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON]
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{self._upstream}/{path}{query}"
        return self._client.build_request(
            request.method, url, headers=[*headers, ("accept-encoding", "identity")], content=body
        )

    async def _passed_back(
        self, request: Request, answer: httpx2.Response, asked: Asked | None, asked_at_s: float
    ) -> Response:
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        if asked is not None and is_stream and answer.is_success:
            stream = self._recorded(request, answer, asked, AnswerReader(asked_at_s))
            return StreamingResponse(stream, status_code=answer.status_code, headers=headers)
        try:
            body = await answer.aread()
        except httpx2.TransportError as error:
            raise Refused(502, "record_upstream", f"{self._upstream} broke off: {error!r}") from None
        finally:
            await answer.aclose()
        if asked is not None and answer.is_error:
            self._keep(request, asked, answer_from_error(answer.status_code, answer.headers.items(), body))
        elif asked is not None and (whole := answer_from_body(body, time.monotonic() - asked_at_s)) is not None:
            self._keep(request, asked, whole)
        return Response(body, status_code=answer.status_code, headers=headers)

    async def _recorded(
        self, request: Request, answer: httpx2.Response, asked: Asked, reader: AnswerReader
    ) -> AsyncIterator[bytes]:
        """The upstream's stream, byte for byte; kept as soon as it is whole, for clients hang up at the last event."""
        events = EventReader()
        kept = False
        try:
            async for chunk in answer.aiter_bytes():
                for event in events.feed(chunk):
                    whole = reader.take(event, time.monotonic())
                    if whole is not None and not kept:
                        kept = True
                        self._keep(request, asked, whole)
                yield chunk
        except httpx2.TransportError as error:
            if not kept:
                self._keep(request, asked, reader.cut())
            raise ConnectionCut("the upstream cut the connection") from error
        else:
            if not kept:
                self._keep(request, asked, reader.cut())
        finally:
            await answer.aclose()

    def _keep(self, request: Request, asked: Asked, answer: Answer) -> None:
        secrets = [part for name in _KEY_HEADERS for part in request.headers.get(name, "").split()]
        self._tape.add(asked, answer, secrets)
        name = re.sub(r"[^a-z0-9_-]+", "_", self._out.stem.lower()).strip("_-")[:64] or "recording"
        scenario = self._tape.scenario(name, f"Recorded from {asked.model}.")
        if scenario is not None:
            save_scenario(scenario, self._out)
            log.info("recording.saved", out=str(self._out), turns=len(scenario.turns))
