"""The API of runs: each request checked, handed to the service, and its answer put on the wire."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from cody.contracts.run import ControlAction, ControlRequest, ReasonRequest, StartRunRequest
from cody.errors import NotFound
from harness.epic_log import log_name
from harness.service import RunService
from server import operations
from server.auth import caller_of
from server.body import json_body, optional_json_body
from server.limits import Counted, Limits
from server.output import OpenedLog, OutputAnswer
from server.problems import invalid_fields, printable
from server.query import MAX_OFFSET, Query, run_status, text, whole_number
from server.ranges import Part, from_header, from_offset
from server.routes import Endpoint, Handler, json_answer
from server.sse import EventStream
from server.streams import OpenStreams

RUNS = "/api/runs"
RUN = f"{RUNS}/{{run_id:uuid}}"
TURN = f"{RUN}/turns/{{number}}"
LISTED_BY_DEFAULT = 20
LISTED_AT_MOST = 100
MAX_IDEMPOTENCY_KEY = 255

_POSITION = re.compile(operations.STREAM_POSITION)
_TURN_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class RunEndpoints:
    def __init__(self, service: RunService, streams: OpenStreams, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._streams = streams

    def table(self) -> list[Endpoint]:
        return [
            Endpoint("POST", f"{RUNS}/continuous", self.start, scope="control", operation=operations.START),
            Endpoint("POST", f"{RUNS}/preview", self.preview, scope="control", operation=operations.PREVIEW),
            Endpoint(
                "GET", RUNS, self.page, frozenset({"limit", "status", "epicId", "cursor"}), operation=operations.LIST
            ),
            Endpoint("GET", RUN, self.snapshot, operation=operations.SNAPSHOT),
            Endpoint("GET", f"{RUN}/status", self.snapshot, operation=operations.STATUS),
            Endpoint("POST", f"{RUN}/control", self.control, scope="control", operation=operations.CONTROL),
            self._by_path("pause"),
            self._by_path("resume"),
            self._by_path("cancel"),
            Endpoint(
                "GET", f"{RUN}/stream", self.stream, frozenset({"from"}), streams=True, operation=operations.STREAM
            ),
            Endpoint("GET", f"{RUN}/turns", self.turns, operation=operations.TURNS),
            Endpoint("GET", TURN, self.turn, operation=operations.TURN),
            Endpoint(
                "GET", f"{TURN}/output", self.output, frozenset({"offset"}), streams=True, operation=operations.OUTPUT
            ),
            Endpoint(
                "GET",
                f"{TURN}/prompt",
                self.turn_prompt,
                frozenset({"offset"}),
                streams=True,
                operation=operations.TURN_PROMPT,
            ),
            Endpoint("GET", f"{RUN}/prompt", self.prompt, operation=operations.PROMPT),
            Endpoint("GET", f"{RUN}/logs/{{log}}", self.epic_log, operation=operations.EPIC_LOG),
        ]

    async def start(self, request: Request, query: Query) -> Response:
        key = _idempotency_key(request)
        answer = await self._service.start(await json_body(request, StartRunRequest), idempotency_key=key)
        return json_answer(answer, 202, {"Location": f"{RUNS}/{answer.run_id}"})

    async def preview(self, request: Request, query: Query) -> Response:
        """The prompt that such a run would begin with; starts nothing."""
        return json_answer(await self._service.preview(await json_body(request, StartRunRequest)))

    async def page(self, request: Request, query: Query) -> Response:
        found = await self._service.records.page(
            limit=whole_number(query, "limit", default=LISTED_BY_DEFAULT, at_least=1, at_most=LISTED_AT_MOST),
            status=run_status(query, "status"),
            epic_id=text(query, "epicId"),
            cursor=text(query, "cursor"),
        )
        return json_answer(found)

    async def snapshot(self, request: Request, query: Query) -> Response:
        return json_answer(await self._service.records.snapshot(_run_id(request)))

    async def control(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, ControlRequest)
        return json_answer(await self._service.control(_run_id(request), asked.action, asked.reason))

    def _by_path(self, action: ControlAction) -> Endpoint:
        operation = operations.control_by_path(action)
        return Endpoint("POST", f"{RUN}/{action}", self._action(action), scope="control", operation=operation)

    def _action(self, action: ControlAction) -> Handler:
        async def act(request: Request, query: Query) -> Response:
            asked = await optional_json_body(request, ReasonRequest)
            return json_answer(await self._service.control(_run_id(request), action, asked.reason))

        return act

    async def stream(self, request: Request, query: Query) -> ASGIApp:
        """The header wins: it is what a browser sends when it comes back, to the same URL as before."""
        run_id = _run_id(request)
        start = request.headers.get("last-event-id") or query.get("from", "0")
        if not _POSITION.match(query.get("from", "0")):
            raise invalid_fields([("from", "must be 0, $, or an event's id")])
        cursor = await self._service.open_stream(run_id, start)
        closed = self._limits.open_stream(caller_of(request.scope).name)
        return Counted(EventStream(run_id, lambda: self._service.follow(run_id, cursor), self._streams), closed)

    async def turns(self, request: Request, query: Query) -> Response:
        return json_answer(await self._service.records.turns(_run_id(request)))

    async def turn(self, request: Request, query: Query) -> Response:
        return json_answer(await self._service.records.turn(_run_id(request), _turn_number(request)))

    async def output(self, request: Request, query: Query) -> ASGIApp:
        return await _file_of_turn(request, query, self._service.output_file, "output")

    async def turn_prompt(self, request: Request, query: Query) -> ASGIApp:
        """What the turn was told; of one that was made again, what it was told the last time."""
        return await _file_of_turn(request, query, self._service.prompt_file, "prompt")

    async def prompt(self, request: Request, query: Query) -> Response:
        return json_answer(await self._service.prompt(_run_id(request)))

    async def epic_log(self, request: Request, query: Query) -> Response:
        """The names are the two that there are: no part of the path reaches the disk."""
        name = log_name(str(request.path_params["log"]))
        return json_answer(await self._service.epic_log(_run_id(request), name))


async def _file_of_turn(
    request: Request, query: Query, find: Callable[[str, int], Awaitable[Path]], what: str
) -> ASGIApp:
    """A file that is kept of a turn, from an offset or in part; raises NotFound, RangeNotSatisfiable."""
    ranged = request.headers.get("range")
    if ranged is not None and "offset" in query:
        raise invalid_fields([("offset", "give an offset or a Range header, not both")])
    offset = whole_number(query, "offset", default=0, at_least=0, at_most=MAX_OFFSET)
    opened = await OpenedLog.open(await find(_run_id(request), _turn_number(request)), what)
    try:
        part = _part(request, ranged, offset, opened.size)
    except BaseException:
        opened.close()
        raise
    return OutputAnswer(opened, part)


def _idempotency_key(request: Request) -> str | None:
    """Raises InvalidRequest when there are several, or one that is empty or endless."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) == 1 and 0 < len(given[0]) <= MAX_IDEMPOTENCY_KEY and given[0].isascii() and given[0].isprintable():
        return given[0]
    raise invalid_fields([("Idempotency-Key", f"must be given once, with 1 to {MAX_IDEMPOTENCY_KEY} ASCII characters")])


def _run_id(request: Request) -> str:
    return str(request.path_params["run_id"])


def _turn_number(request: Request) -> int:
    """Raises NotFound for everything that no turn can be called."""
    given: str = request.path_params["number"]
    if _TURN_NUMBER.fullmatch(given) is None:
        raise NotFound(f"there is no turn {printable(given)}: turns are numbered from 1")
    return int(given)


def _part(request: Request, ranged: str | None, offset: int, size: int) -> Part:
    # If-Range asks for the whole file unless it is unchanged; a log that grows has nothing to prove that with.
    if ranged is None or "if-range" in request.headers:
        return from_offset(offset, size)
    return from_header(ranged, size)
