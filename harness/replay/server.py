"""ReplayServer: HTTP around a scenario. `POST [/s/NAME]/v1/responses` plays, `GET [/s/NAME]/v1/models` is for SDKs.

Sessions, which never mix: a name in the path (`/s/NAME/v1`), else the client's key (only its digest is kept), else one
for all clients without either. So runs side by side on one server need either a URL or a key each.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from harness.replay.asked import Asked, NotUnderstood, read_request
from harness.replay.loopback import ConnectionCut, Refused, listening, read_body
from harness.replay.playback import Playback, Refusal, Step
from harness.replay.scenario import Scenario
from harness.replay.scenario_file import load_scenario
from harness.replay.wire import Stamp, beats, error_body, whole

log = structlog.get_logger(__name__)

KEPT_REQUESTS = 200
KEPT_PROMPT_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request that the server was asked. `turn` and `answer` tell what was given, as in Step; None = refused."""

    session: str
    thread_id: str | None
    resumed: bool
    model: str
    prompt: str
    outputs: int
    turn: int | None
    answer: int | None
    refusal: str | None
    """The code of the refusal."""


class ReplayServer:
    """Plays a scenario (itself, a bundled name, or a file) on a loopback address while its context is open.

    `delay_factor` multiplies all delays of the scenario: 0 = none, 1 = as written. Raises ScenarioError for the
    scenario and ConfigurationError for the address.
    """

    def __init__(
        self, scenario: Scenario | str | Path, *, host: str = "127.0.0.1", port: int = 0, delay_factor: float = 1.0
    ) -> None:
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        self._address = (host, port)
        self._delay_factor = delay_factor
        self._playback = Playback(self.scenario)
        self._requests: deque[SeenRequest] = deque(maxlen=KEPT_REQUESTS)
        self._keys = itertools.count(1)
        self._closing = asyncio.Event()
        self._stack = AsyncExitStack()
        self._origin = ""

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._origin = await self._stack.enter_async_context(listening(self._app(), host=host, port=port))
        log.info("replay.started", scenario=self.scenario.name, url=self.base_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()  # delayed streams end now; without it, closing waits for them
        await self._stack.aclose()

    @property
    def base_url(self) -> str:
        """What a client takes as the API's address: `http://127.0.0.1:PORT/v1`."""
        return f"{self._origin}/v1"

    def session_url(self, session: str) -> str:
        """The same for a session of its own, whatever key the client has. `session` is one path segment."""
        return f"{self._origin}/s/{session}/v1"

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The latest requests (at most KEPT_REQUESTS), oldest first."""
        return tuple(self._requests)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(f"{prefix}/v1/{name}", endpoint, methods=[method])
                for prefix in ("", "/s/{session}")
                for name, endpoint, method in (("responses", self._respond, "POST"), ("models", self._models, "GET"))
            ]
        )

    async def _models(self, request: Request) -> Response:
        model = {"id": "gpt-5.5", "object": "model", "created": 0, "owned_by": "cody-replay"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _respond(self, request: Request) -> Response:
        try:
            asked = read_request(request.headers, await read_body(request))
        except Refused as refused:
            return refused.response()
        except NotUnderstood as problem:
            return Refused(400, "replay_not_understood", f"replay: {problem}").response()
        session = _session(request)
        match self._playback.next(session, asked):
            case Refusal() as refusal:
                self._note(session, asked, refusal)
                return Refused(400, refusal.code, f"replay: {refusal.message}").response()
            case Step() as step:
                self._note(session, asked, step)
                return await self._play(step, asked)

    async def _play(self, step: Step, asked: Asked) -> Response:
        answer = step.content
        stamp = Stamp(f"{step.turn}_{step.answer}_{next(self._keys)}", int(time.time()), asked.model)
        await self._pause(answer.delay_ms)
        if answer.error is not None:
            self._playback.completed(step)
            headers = {"content-type": "application/json"}
            headers |= {name.lower(): value for name, value in answer.error.headers.items()}
            return Response(error_body(answer.error), status_code=answer.error.status, headers=headers)
        if asked.stream:
            return StreamingResponse(self._stream(step, stamp), media_type="text/event-stream; charset=utf-8")
        self._playback.completed(step)
        if answer.drop is not None:
            return StreamingResponse(_cut_at_once(), media_type="application/json")
        return Response(whole(answer, stamp), media_type="application/json")

    async def _stream(self, step: Step, stamp: Stamp) -> AsyncIterator[bytes]:
        for beat in beats(step.content, stamp):
            await self._pause(beat.pause_ms)
            if beat.last:
                # Before it is sent: the client's next request may be here before this line is reached again.
                self._playback.completed(step)
            if beat.data:
                yield beat.data
            if beat.cut:
                raise ConnectionCut(f"scenario {self.scenario.name} cuts turn {step.turn}, answer {step.answer}")

    async def _pause(self, delay_ms: int) -> None:
        """Wait as the scenario says; a closing server cuts the connection instead."""
        delay_s = delay_ms * self._delay_factor / 1000
        if delay_s > 0:
            try:
                await asyncio.wait_for(self._closing.wait(), delay_s)
            except TimeoutError:
                return
        if self._closing.is_set():
            raise ConnectionCut("the server closes")

    def _note(self, session: str, asked: Asked, outcome: Step | Refusal) -> None:
        given = outcome if isinstance(outcome, Step) else None
        refusal = outcome.code if isinstance(outcome, Refusal) else None
        self._requests.append(
            SeenRequest(
                session=session,
                thread_id=asked.thread_id,
                resumed=asked.resumed,
                model=asked.model,
                prompt=asked.prompt[:KEPT_PROMPT_CHARS],
                outputs=asked.outputs,
                turn=given.turn if given else None,
                answer=given.answer if given else None,
                refusal=refusal,
            )
        )
        facts = {"session": session, "thread_id": asked.thread_id}
        if given:
            log.info("replay.answered", turn=given.turn, answer=given.answer, **facts)
        else:
            log.warning("replay.refused", code=refusal, **facts)


def _session(request: Request) -> str:
    named = request.path_params.get("session")
    if isinstance(named, str):
        return f"path:{named}"
    key = request.headers.get("authorization")
    return "anonymous" if key is None else f"key:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


async def _cut_at_once() -> AsyncIterator[bytes]:
    yield b""
    raise ConnectionCut("the scenario cuts an answer that is no stream")
