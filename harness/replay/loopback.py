"""Serving on a loopback address, and on nothing else: whoever believes what is served here runs commands."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from cody.errors import ConfigurationError
from harness.replay.wire import error_object

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A history with several outputs of codex' largest size (1 MiB each) fits."""
_POLL_S = 0.01
_CLOSE_WITHIN_S = 2
"""Streams end by themselves when a server closes; this bounds a client that reads nothing."""


class ConnectionCut(Exception):
    """Raised in the middle of an answer to cut the connection: uvicorn then closes the socket as it is."""


class Refused(Exception):
    """The request is not answered. `code` is stable, the message is for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self._status = status
        self._code = code

    def response(self) -> Response:
        body = error_object(str(self), kind="invalid_request_error", code=self._code)
        return Response(body, status_code=self._status, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """The body of a request from a program on this machine; raises Refused for a web page, and for one too large."""
    if "origin" in request.headers:
        # A web page that found the port: it must neither read what is served nor use up a scenario's turns.
        raise Refused(403, "replay_forbidden", "requests from web pages are refused")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "replay_encoding", "compressed bodies are not supported")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, "replay_too_large", f"the body exceeds {MAX_BODY_BYTES} bytes")
    return bytes(body)


def origin(host: str, port: int) -> str:
    """`http://127.0.0.1:8000`, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def listening(app: ASGIApp, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` while the context is open, and give its origin; port 0 takes a free one.

    Raises ConfigurationError when the address is not a loopback address or cannot be had.
    """
    with _bound(host, port) as listener:
        address, bound_port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_WITHIN_S,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_no_planned_cut)
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not task.done():
                await asyncio.sleep(_POLL_S)
            yield origin(address, bound_port)
        finally:
            server.should_exit = True
            await task


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigurationError(f"{host!r} is not an IP address: use 127.0.0.1 or ::1") from None
    if not address.is_loopback:
        raise ConfigurationError(f"{host} is not a loopback address: replay listens on 127.0.0.1 or ::1 only")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # With the protocol left at 0, asyncio sets no TCP_NODELAY on what it accepts: 40 ms more for each answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((str(address), port))
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen on {host} port {port}: {error}") from None
        yield listener


def _is_no_planned_cut(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ConnectionCut))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to the process that this server is a guest in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
