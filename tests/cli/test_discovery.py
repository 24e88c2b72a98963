"""Which server gets this user's token: the one that wrote `server.json`, and no other program on its port."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from cody.cli import exits
from cody.client.discovery import ServerFile, find_server, proves_itself, read_server_file
from cody.client.folder_token import token_for
from cody.proof import MAX_NONCE, is_proof, proof_of
from cody.settings import Settings, load_settings
from tests.answering_thread import answering
from tests.cli.command_line import CommandLine
from tests.server.cody_server import CodyServer

RUN = '{"runs": [], "nextCursor": null}'


class Impostor(ThreadingHTTPServer):
    """Answers like a Cody on a port that one had; remembers what it is sent. `key`: what it takes for the key.

    `late_s`: how long each answer takes.
    """

    daemon_threads = True

    def __init__(self, port: int, key: str | None, url: str | None, late_s: float) -> None:
        super().__init__(("127.0.0.1", port), _Answering)
        self.key = key
        self.late_s = late_s
        self.sent: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers_for = url or self.url


class _Answering(BaseHTTPRequestHandler):
    server: Impostor

    def do_GET(self) -> None:
        self.server.sent.append((self.path, self.headers["authorization"]))
        time.sleep(self.server.late_s)
        answer = RUN
        if self.path.startswith("/healthz"):
            nonce = parse_qs(urlsplit(self.path).query).get("nonce", [""])[0]
            proof = {"proof": proof_of(self.server.key, self.server.answers_for, nonce)} if self.server.key else {}
            answer = json.dumps({"status": "ok", "version": "0.1.0", **proof})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def impostor(
    port: int = 0, *, key: str | None = None, url: str | None = None, late_s: float = 0.0
) -> Iterator[Impostor]:
    with answering(Impostor(port, key, url, late_s)) as made:
        yield made


def settings(state_dir: Path, **given: object) -> Settings:
    return load_settings(state_dir=state_dir, **{"port": 0, **given})


def stale_file(state_dir: Path, url: str, key: str | None) -> None:
    """What a server leaves that is killed; the process is alive, as one with a number that was given again would be."""
    content = {"url": url, "pid": os.getpid(), "version": "0.1.0", "startedAt": "2026-01-01T00:00:00.000Z"}
    (state_dir / "server.json").write_text(json.dumps({**content, **({"proofKey": key} if key else {})}))
    (state_dir / "token").write_text("cody_the-token-of-this-folder")


@pytest.mark.parametrize("kept", ["k" * 43, None])
@pytest.mark.parametrize("guessed", ["g" * 43, "", None])
async def test_who_took_the_port_of_a_killed_server_gets_no_token(
    tmp_path: Path, kept: str | None, guessed: str | None
) -> None:
    with impostor(key=guessed) as other:
        stale_file(tmp_path, other.url, kept)
        port = other.server_address[1]
        for given in (settings(tmp_path), settings(tmp_path, port=port)):
            assert await find_server(given) is None
            assert token_for(given, other.url) is None
        # A URL that was given is asked for runs, without the token.
        alone = CommandLine(tmp_path, tmp_path)
        assert alone("runs", CODY_URL=other.url).returncode == exits.OK
        assert alone("runs", code=None).returncode == exits.UNREACHABLE
        assert any(path.startswith("/api/runs") for path, _ in other.sent)
        assert [token for _, token in other.sent if token] == []


async def test_an_answer_for_another_server_is_none_for_this_one(server: CodyServer, tmp_path: Path) -> None:
    """Who passes the question on to the server that does have the key has an answer for that one's address."""
    written = read_server_file(server.state_dir / "server.json")
    assert written is not None
    with impostor(key=written.proof_key, url=server.url) as other:
        assert await proves_itself(written)
        assert not await proves_itself(written.model_copy(update={"url": other.url}))


async def test_the_server_of_the_folder_gets_the_token(server: CodyServer) -> None:
    given = settings(server.state_dir)
    assert await find_server(given) == server.url
    assert token_for(given, f"{server.url}/") == server.token
    assert token_for(given, "http://127.0.0.1:1") is None


async def test_a_server_on_an_overloaded_machine_is_not_taken_for_gone(tmp_path: Path) -> None:
    with impostor(key="k" * 43, late_s=4.0) as slow:
        stale_file(tmp_path, slow.url, "k" * 43)
        assert await find_server(settings(tmp_path)) == slow.url
        assert token_for(settings(tmp_path), slow.url) is not None


def test_the_key_is_in_the_file_only(server: CodyServer) -> None:
    written = read_server_file(server.state_dir / "server.json")
    assert written is not None
    assert written.proof_key is not None
    assert written.proof_key not in repr(written)
    with server.client() as client:
        told = client.get("/healthz", params={"nonce": "n" * MAX_NONCE}).json()
        assert is_proof(told["proof"], written.proof_key, server.url, "n" * MAX_NONCE)
        assert written.proof_key not in json.dumps(told)
        for wrong in ("", "n" * (MAX_NONCE + 1)):
            assert client.get("/healthz", params={"nonce": wrong}).status_code == 400
    assert written.proof_key not in server.stderr


async def test_a_key_that_is_empty_is_none(tmp_path: Path) -> None:
    with impostor(key="") as other:
        (tmp_path / "server.json").write_text(json.dumps({"url": other.url, "pid": 1, "proofKey": ""}))
        assert read_server_file(tmp_path / "server.json") is None
        assert not await proves_itself(ServerFile(url=other.url, pid=1))


@pytest.mark.parametrize("given", [None, 1, "", "ünï", "\ud800", ["x"]])
def test_whatever_is_no_proof_is_none(given: object) -> None:
    assert not is_proof(given, "key", "http://127.0.0.1:1", "nonce")


def test_a_server_says_nothing_of_a_nonce_that_nobody_gave(server: CodyServer) -> None:
    assert "proof" not in httpx2.get(f"{server.url}/healthz").json()
