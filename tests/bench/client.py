"""A client of the server by plain sockets: what it adds to a measurement is next to nothing."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.stand import stream_request
from tests.server.cody_server import CodyServer

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Client:
    """One kept connection for JSON calls."""

    def __init__(self, server: CodyServer) -> None:
        self._server = server
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._server.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON; fails for any status of 400 and above."""
        raw = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost:{self._server.port}\r\n{self._server.auth_line}"
        if raw:
            head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
        if select.select([self._socket], [], [], 0)[0]:  # the server closed it: nothing was asked for a while
            self._connect()
        self._socket.sendall(f"{head}\r\n".encode() + raw)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head_bytes, _, content = answer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head_bytes)
        assert found is not None, head_bytes
        while len(content) < int(found[1]):
            content += self._receive()
        assert int(head_bytes.split()[1]) < 400, content
        return json.loads(content)

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        assert data, "the server closed the connection"
        return data

    def start(self, folder: Path, command: list[str] | None, **config: object) -> str:
        """A run of this command, or of another agent; its id."""
        (folder / ".cody-harness" / "current-epic").mkdir(parents=True, exist_ok=True)
        agent = {} if command is None else {"agent": "command", "command": command}
        given = {"workingDir": str(folder), "maxTurns": 1, **agent, **config}
        answer = self.call("POST", "/api/runs/continuous", {"epicId": "current-epic", "config": given})
        return str(answer["runId"])


def received(server: CodyServer, run_id: str, start: str = "0") -> Iterator[tuple[int, bytes]]:
    """What a reader of the run gets, piece by piece with the time (ns) of its arrival, to the end of the stream."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall(stream_request(server, run_id, start).encode())
        tail = b""
        while b"data: [DONE]" not in tail:
            data = connection.recv(1 << 20)
            now_ns = time.monotonic_ns()
            assert data, tail
            yield now_ns, data
            tail = (tail + data)[-64:]


def until(seen: Callable[[], object], what: str, deadline_s: float = 60) -> None:
    """Wait until it is true."""
    end_s = time.monotonic() + deadline_s
    while not seen():
        assert time.monotonic() < end_s, f"{what}: not within {deadline_s} s"
        time.sleep(0.005)
