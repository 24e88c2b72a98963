"""The dashboard's files, as the build left them in server/static: its page at every address it has, and what it loads.

No path of a request ever reaches the disk: names are looked up in what was found there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from structlog import get_logger

from cody.errors import NotFound
from server.problems import printable
from server.query import Query
from server.routes import Endpoint

log = get_logger()

STATIC_FOLDER = Path(__file__).with_name("static")
PAGE = "index.html"
PAGES: Mapping[str, frozenset[str]] = {
    "/": frozenset({"status", "q", "sort"}),
    "/new": frozenset({"from"}),
    "/health": frozenset(),
    "/runs/{run_id:uuid}": frozenset({"tab", "turn"}),
}
"""Addresses of the dashboard, with the parameters that its links carry."""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No string of a log can become markup or code, whatever the page's own code does with it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".json": "application/json",
}
"""What the dashboard is made of. A file of another kind is not served."""

FOR_EVER = "private, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
HASHED_FOLDER = "assets/"
"""Vite puts the hash of their content into the names of these files."""

NOT_BUILT = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Cody</title>
<h1>The dashboard is not built</h1>
<p>This server runs from source. Build its dashboard with <code>make dashboard</code>, then load this page again.</p>
<p>The API and the command line work without it: <code>cody --help</code></p>
</html>
"""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, ready to be sent."""

    content: bytes
    media_type: str
    caching: str
    etag: str

    def answer(self, request: Request, *, status: int = 200) -> Response:
        """The file, or 304 when the client has this very one."""
        headers = {
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "cache-control": self.caching,
            "etag": self.etag,
        }
        if status == 200 and _has(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.content, status, headers, self.media_type)


def _has(if_none_match: str, etag: str) -> bool:
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return etag in given or "*" in given


def static_file(name: str, content: bytes) -> StaticFile:
    """A file of the dashboard by its name relative to the static folder; raises KeyError for a type nobody named."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    caching = FOR_EVER if name.startswith(HASHED_FOLDER) else ASK_AGAIN
    return StaticFile(content, TYPES[os.path.splitext(name)[1]], caching, etag)


def read_folder(folder: Path) -> dict[str, StaticFile]:
    """Every regular file below the folder that the dashboard may load, by its relative name; links are left out."""
    found: dict[str, StaticFile] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix in TYPES:
            name = path.relative_to(folder).as_posix()
            found[name] = static_file(name, path.read_bytes())
    return found


class StaticEndpoints:
    """The dashboard. A build that comes while the server runs is taken up with the next page that is asked for."""

    def __init__(self, folder: Path = STATIC_FOLDER) -> None:
        self._folder = folder
        self._files: Mapping[str, StaticFile] = {}
        self._built_ns = 0

    def table(self) -> list[Endpoint]:
        pages = [Endpoint("GET", path, self.page, parameters) for path, parameters in PAGES.items()]
        return [
            *pages,
            Endpoint("GET", "/favicon.svg", self.favicon),
            Endpoint("GET", "/assets/{name}", self.asset),
        ]

    async def page(self, request: Request, query: Query) -> Response:
        """The page, which finds out from its address what to show; 503 with what to do while it is not built."""
        page = (await self._current()).get(PAGE)
        if page is None:
            return static_file(PAGE, NOT_BUILT.encode()).answer(request, status=503)
        return page.answer(request)

    async def favicon(self, request: Request, query: Query) -> Response:
        return await self._named(request, "favicon.svg")

    async def asset(self, request: Request, query: Query) -> Response:
        return await self._named(request, f"{HASHED_FOLDER}{request.path_params['name']}")

    async def _named(self, request: Request, name: str) -> Response:
        found = (await self._current()).get(name)
        if found is None:
            raise NotFound(f"the dashboard has no file {printable(name)}: load its page again")
        return found.answer(request)

    async def _current(self) -> Mapping[str, StaticFile]:
        built_ns = _changed_ns(self._folder / PAGE)
        if built_ns != self._built_ns:
            self._files = await asyncio.to_thread(read_folder, self._folder)
            self._built_ns = built_ns
            log.info("dashboard.loaded", files=len(self._files))
        return self._files


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
