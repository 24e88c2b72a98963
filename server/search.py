"""The archive over HTTP: full-text search, and runs and threads as files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog import get_logger

from cody.errors import NotFound
from cody.pipeline.search_text import MAX_QUERY_CHARS, SearchPage
from server.connection import connection_of
from server.grants import Granted
from server.operations import Answer, Operation, Parameter
from server.outlet import ClientGone, Outlet
from server.problems import invalid_fields, printable
from server.query import Query, text, whole_number
from server.routes import Endpoint, json_answer

if TYPE_CHECKING:
    from cody.pipeline.archive import Archive

log = get_logger()

FOUND_BY_DEFAULT = 20
FOUND_AT_MOST = 100

_THREAD_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.:-]{0,127}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_FORMAT = Parameter(
    "format",
    {"type": "string", "enum": ["jsonl", "md"], "default": "jsonl"},
    "`jsonl` for programs, `md` (Markdown) for people.",
)
_FILE = Answer("The file, streamed.", media_type="application/jsonl", or_types=("text/markdown",))
SEARCH = Operation(
    "search",
    "Messages, commands, outputs and log tails with all words and quoted phrases of the query, newest first.",
    {200: Answer("One page.", SearchPage)},
    query=(
        Parameter(
            "q", {"type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARS}, "Words; no operators.", required=True
        ),
        Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many."),
        Parameter("cursor", {"type": "string", "minLength": 1, "maxLength": 512}, "The nextCursor of the page before."),
        Parameter("runId", {"type": "string", "format": "uuid"}, "Only what belongs to this run."),
    ),
)
EXPORT_RUN = Operation("exportRun", "A run as one file.", {200: _FILE}, query=(_FORMAT,), errors=(404,))
EXPORT_THREAD = Operation("exportThread", "A thread as one file.", {200: _FILE}, query=(_FORMAT,), errors=(404,))


class SearchEndpoints:
    """`archive` gives the opened archive; it raises ArchiveUnavailable, or whatever says why there is none."""

    def __init__(self, archive: Callable[[], Awaitable[Archive]]) -> None:
        self._archive = archive

    def table(self) -> list[Endpoint]:
        known, format = frozenset({"q", "limit", "cursor", "runId"}), frozenset({"format"})
        run, thread = "/api/runs/{run_id:uuid}/export", "/api/v2/threads/{thread_id}/export"
        return [
            Endpoint("GET", "/api/search", self.search, known, operation=SEARCH),
            Endpoint("GET", run, self.export_run, format, streams=True, operation=EXPORT_RUN),
            Endpoint("GET", thread, self.export_thread, format, streams=True, operation=EXPORT_THREAD),
        ]

    async def search(self, request: Request, query: Query) -> Response:
        asked = query.get("q", "")
        if not 0 < len(asked) <= MAX_QUERY_CHARS:
            raise invalid_fields([("q", f"must have 1 to {MAX_QUERY_CHARS} characters")])
        run_id = query.get("runId")
        if run_id is not None and _UUID.fullmatch(run_id) is None:
            raise invalid_fields([("runId", "must be the id of a run")])
        limit = whole_number(query, "limit", default=FOUND_BY_DEFAULT, at_least=1, at_most=FOUND_AT_MOST)
        archive = await self._archive()
        return json_answer(await archive.search(asked, limit=limit, cursor=text(query, "cursor"), run_id=run_id))

    async def export_run(self, request: Request, query: Query) -> ASGIApp:
        from cody.pipeline.export import MEDIA_TYPES, export_run

        run_id, format = str(request.path_params["run_id"]), _format(query)
        pieces = await export_run(await self._archive(), run_id, format)
        return Granted(FileAnswer(pieces, MEDIA_TYPES[format], f"run-{run_id}.{format}"))

    async def export_thread(self, request: Request, query: Query) -> ASGIApp:
        from cody.pipeline.export import MEDIA_TYPES, export_thread

        thread_id, format = request.path_params["thread_id"], _format(query)
        if _THREAD_ID.fullmatch(thread_id) is None:
            raise NotFound(f"there is no thread {printable(thread_id)}")
        pieces = await export_thread(await self._archive(), thread_id, format)
        return Granted(FileAnswer(pieces, MEDIA_TYPES[format], f"thread-{thread_id.replace(':', '_')}.{format}"))


class FileAnswer:
    """An answer of unknown length, piece by piece; an ASGI application. A slow reader holds one piece in memory."""

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str, name: str) -> None:
        self._pieces = pieces
        self._headers = [
            (b"content-type", media_type.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii")),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        outlet = Outlet(send, connection_of(scope))
        try:
            async for piece in self._pieces:
                await outlet.write(piece)
            await outlet.write(b"", last=True)
        except ClientGone:
            log.debug("export.client_gone")


def _format(query: Query) -> Literal["jsonl", "md"]:
    match query.get("format", "jsonl"):
        case "jsonl":
            return "jsonl"
        case "md":
            return "md"
        case _:
            raise invalid_fields([("format", "must be one of jsonl, md")])
