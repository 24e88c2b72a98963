"""The dashboard's files over HTTP: their types, their caching, what their page may load, and that nothing else is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request

from server.static_files import StaticEndpoints, read_folder
from tests.server.cody_server import CodyServer, running_server


@pytest.fixture(scope="module")
def server(dashboard: Path) -> Iterator[CodyServer]:
    """One for all of them: none changes anything."""
    with running_server("page") as started:
        yield started


@pytest.fixture
def client(server: CodyServer) -> httpx2.Client:
    return server.client()


def test_every_address_of_the_page_gives_the_page(client: httpx2.Client, dashboard: Path) -> None:
    with client:
        run = "/runs/0b8f4f9e-0a4e-4a57-9f0e-5b8f0e6e7a11"
        for path in ("/", "/?status=running&q=x&sort=-tokens", "/new?from=1", "/health", run, f"{run}?tab=logs&turn=3"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert answer.text == (dashboard / "index.html").read_text(encoding="utf-8")
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache"


def test_the_page_may_load_its_own_files_and_nothing_else(client: httpx2.Client) -> None:
    with client:
        answer = client.get("/")
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policies[0]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"<script(?![^>]* src=)|<style|style=|https?://", answer.text)


def test_hashed_files_are_kept_for_ever_and_others_asked_for_again(client: httpx2.Client) -> None:
    with client:
        names = re.findall(r'(?:src|href)="(/[^"]+)"', client.get("/").text)
        kinds = {}
        for name in names:
            answer = client.get(name)
            assert answer.status_code == 200, name
            kinds[name.rsplit(".", 1)[1]] = answer.headers["content-type"]
            assert ("immutable" in answer.headers["cache-control"]) == name.startswith("/assets/")
            again = client.get(name, headers={"If-None-Match": f'"other", {answer.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == answer.headers["etag"]
            assert client.get(name, headers={"If-None-Match": '"other"'}).status_code == 200
        assert kinds == {
            "svg": "image/svg+xml",
            "js": "text/javascript; charset=utf-8",
            "css": "text/css; charset=utf-8",
        }


@pytest.mark.parametrize(
    "path",
    [
        "/assets/..%2f..%2fapp.py",
        "/assets/%2e%2e/index.html",
        "/assets/..",
        "/assets/x.js",
        "/assets/%00",
        "/assets//etc/passwd",
        "/../../server/app.py",
        "/.built-from",
        "/runs/1",
        "/index.html/",
    ],
)
def test_nothing_else_is_there(server: CodyServer, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.token}\r\n"
    status, _, body = server.raw(f"{head}Connection: close\r\n\r\n".encode())
    assert status == 404, body


def test_without_a_session_there_is_no_page(server: CodyServer) -> None:
    with httpx2.Client(base_url=server.url) as stranger:
        assert stranger.get("/").status_code == 401
        assert stranger.get("/favicon.svg").status_code == 401


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.js"
    secret.write_text("secret")
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("page")
    (static / "assets" / "x.js").symlink_to(secret)
    (static / "assets" / "notes.txt").write_text("of no type that is served")
    assert list(read_folder(static)) == ["index.html"]


async def test_a_build_is_taken_up_by_the_server_that_runs(tmp_path: Path) -> None:
    endpoints = StaticEndpoints(tmp_path)
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    missing = await endpoints.page(request, {})
    assert missing.status_code == 503
    assert b"make dashboard" in bytes(missing.body)
    (tmp_path / "index.html").write_text("built")
    built = await endpoints.page(request, {})
    assert (built.status_code, bytes(built.body)) == (200, b"built")
