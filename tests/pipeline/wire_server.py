"""A provider on loopback: plays answers byte for byte over HTTP to the real SDKs, and keeps what it was asked.

    async with WireServer(sse("openai", "message"), ...) as wire:   # one reply for each request, in order
        ...  wire.url ...
    assert wire.requests[0].body["model"] == ...

What a network does to an answer is part of a reply: odd pieces, an early end, a cut, a reset, silence.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "wire"
_PIECES = (1, 7, 2, 64, 3, 331, 5)
"""Sizes of the pieces that a body is sent in: they part lines, JSON and UTF-8 sequences."""
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}

Ending = Literal["whole", "early", "cut", "reset", "silence"]


@dataclass(frozen=True, slots=True)
class Reply:
    """`ending`: the whole body; or after `sent` bytes of it an HTTP end as if it were whole, a closed connection, a reset
    one, or nothing more while the connection stays open."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "text/event-stream; charset=utf-8"),)
    ending: Ending = "whole"
    sent: int | None = None

    def broken(self, ending: Ending, *, after: bytes) -> Reply:
        """The same reply, ending after the event that has these bytes."""
        return replace(self, ending=ending, sent=self.body.index(b"\n\n", self.body.index(after)) + 2)

    def torn(self, ending: Ending, *, at: bytes) -> Reply:
        """The same reply, ending right after these bytes: in the midst of an event."""
        return replace(self, ending=ending, sent=self.body.index(at) + len(at))


@dataclass(frozen=True, slots=True)
class WireRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def sse(provider: str, name: str) -> Reply:
    return Reply((FIXTURES / provider / f"{name}.sse").read_bytes())


def http_error(provider: str, name: str, *headers: tuple[str, str]) -> Reply:
    """The refusal in `error_NAME.json`; its status is what NAME begins with."""
    body = (FIXTURES / provider / f"error_{name}.json").read_bytes()
    return Reply(body, int(name[:3]), (("content-type", "application/json"), *headers))


class WireServer:
    """Listens while its context is open; a request past the last reply is refused. `port`: a reserved one."""

    def __init__(self, *replies: Reply, port: int = 0) -> None:
        self._replies = replies
        self._port = port
        self._server: asyncio.Server | None = None
        self.requests: list[WireRequest] = []
        self.closed_by_client = asyncio.Event()
        """Set when a client went away from a reply that had not ended."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await _request(reader))
            position = len(self.requests) - 1
            reply = self._replies[position] if position < len(self._replies) else Reply(b"no reply left", 400)
            await self._play(reply, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_by_client.set()
        finally:
            writer.close()

    async def _play(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}\r\n"
        headers = (*reply.headers, ("transfer-encoding", "chunked"), ("connection", "close"))
        writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n").encode())
        for piece in _pieces(reply.body[: reply.sent]):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        match reply.ending:
            case "whole" | "early":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case "cut":
                pass
            case "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "silence":
                await reader.read()
                self.closed_by_client.set()


def _pieces(body: bytes) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(_PIECES):
        if at >= len(body):
            return
        yield body[at : at + size]
        at += size


async def _request(reader: asyncio.StreamReader) -> WireRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    lines = [line.partition(":") for line in head[1:] if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return WireRequest(method, path, headers, json.loads(body) if body else {})
