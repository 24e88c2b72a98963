"""Who gets in by a token: nobody without, each as far as its scope goes, and no longer than it counts."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import stat
import textwrap
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cody.errors import ConfigurationError, Conflict
from cody.settings import Settings
from cody.tokens import SCOPES, TokenStore
from harness.service import RunService
from server.app import parts_of, table_of
from server.auth import PUBLIC
from server.routes import Endpoint
from server.site import Site
from server.streams import OpenStreams
from tests.security.asking import START, start_body
from tests.security.conftest import Launch
from tests.server.cody_server import DEADLINE_S, CodyServer

RUN = f"/api/runs/{uuid.uuid4()}"


def table() -> list[Endpoint]:
    """Everything that a server answers to."""
    settings = Settings()
    service = RunService(settings, None)
    return table_of(service, parts_of(service, Site("127.0.0.1", 1), OpenStreams(service, keepalive_s=1), settings))


def concrete(path: str) -> str:
    return (
        path.replace("{run_id:uuid}", str(uuid.uuid4()))
        .replace("{number}", "1")
        .replace("{name}", "x")
        .replace("{source_id}", "x")
        .replace("{job_id}", "x")
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def make(client: httpx2.Client) -> Iterator[Any]:
    """Makes tokens, which are gone after the test."""
    made: list[str] = []

    def create(scope: str) -> str:
        name = f"t-{uuid.uuid4()}"
        answer = client.post("/api/tokens", json={"name": name, "scope": scope})
        assert answer.status_code == 201
        made.append(name)
        return str(answer.json()["token"])

    yield create
    for name in made:
        client.delete(f"/api/tokens/{name}")


def test_only_two_routes_ask_nobody_who_they_are() -> None:
    assert {one.path for one in table() if one.scope is None} == PUBLIC == {"/healthz", "/enter"}


def test_no_route_answers_a_stranger(stranger: httpx2.Client) -> None:
    """Nor says which routes there are."""
    asked = [(one.method, concrete(one.path)) for one in table() if one.path not in PUBLIC]
    for method, path in [
        *asked,
        ("GET", "/nothing/here"),
        ("PUT", "/api/runs"),
        ("OPTIONS", RUN),
        ("HEAD", "/metrics"),
    ]:
        answer = stranger.request(method, path, json={} if method in {"POST", "DELETE"} else None)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == 'Bearer realm="cody"'
        if method != "HEAD":
            assert answer.json()["error"]["code"] == "unauthorized"
    assert stranger.get("/healthz").status_code == 200
    assert stranger.get("/enter").status_code == 400


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic TOKEN",
        "TOKEN",
        "Bearer TOKENx",
        "Bearer TOKEN TOKEN",
        "Bearer \xff",
        "Bearer TOKEN, Bearer TOKEN",
        "Bearer " + "x" * 20_000,
    ],
)
def test_what_is_no_token_is_refused(server: CodyServer, stranger: httpx2.Client, value: str) -> None:
    given = value.replace("TOKEN", server.token).encode("latin-1")
    assert stranger.get("/api/runs", headers=[(b"Authorization", given)]).status_code == 401


def test_two_authorization_headers_are_refused(server: CodyServer, stranger: httpx2.Client) -> None:
    given = f"Bearer {server.token}"
    assert stranger.get("/api/runs", headers=[("Authorization", given)] * 2).status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token", "key", "code", "authorization"])
def test_a_token_in_the_url_lets_nobody_in_and_is_logged_nowhere(
    server: CodyServer, stranger: httpx2.Client, client: httpx2.Client, name: str
) -> None:
    assert stranger.get(f"/api/runs?{name}={server.token}").status_code == 401
    assert stranger.get(f"http://{server.token}@127.0.0.1:{server.port}/api/runs").status_code == 401
    with_header = client.get(f"/api/runs?{name}={server.token}")
    assert with_header.status_code == 400
    assert server.token not in with_header.text
    assert '"request.answered"' in server.stderr
    assert server.token not in server.stderr


def test_each_scope_goes_as_far_as_it_says(stranger: httpx2.Client, make: Any, workspace: Path) -> None:
    calls = [
        ("read", "GET", "/api/runs", None),
        ("read", "GET", "/metrics", None),
        ("read", "GET", "/openapi.json", None),
        ("control", "POST", START, start_body(workspace)),
        ("control", "POST", "/api/runs/preview", start_body(workspace)),
        ("control", "POST", f"{RUN}/control", {"action": "cancel"}),
        ("control", "POST", f"{RUN}/pause", None),
        ("admin", "GET", "/api/tokens", None),
        ("admin", "POST", "/api/tokens", {"name": "local", "scope": "read"}),
        ("admin", "POST", "/api/tokens/nobody/rotate", None),
        ("admin", "DELETE", "/api/tokens/nobody", None),
        ("admin", "GET", "/api/audit", None),
    ]
    for scope in SCOPES:
        token = make(scope)
        for needed, method, path, body in calls:
            answer = stranger.request(method, path, json=body, headers=bearer(token))
            allowed = SCOPES.index(scope) >= SCOPES.index(needed)
            assert (answer.status_code != 403) == allowed, (scope, method, path, answer.text)
            if not allowed:
                assert f"needs scope {needed}" in answer.json()["error"]["message"]


def test_a_token_counts_until_it_is_rotated_or_revoked(client: httpx2.Client, stranger: httpx2.Client) -> None:
    first = client.post("/api/tokens", json={"name": "ci", "scope": "read"}).json()["token"]
    assert stranger.get("/api/runs", headers=bearer(first)).status_code == 200
    second = client.post("/api/tokens/ci/rotate").json()
    assert second["scope"] == "read"
    assert stranger.get("/api/runs", headers=bearer(first)).status_code == 401
    assert stranger.get("/api/runs", headers=bearer(second["token"])).status_code == 200
    assert client.post("/api/tokens", json={"name": "ci", "scope": "admin"}).status_code == 409
    assert client.delete("/api/tokens/ci").status_code == 204
    assert stranger.get("/api/runs", headers=bearer(second["token"])).status_code == 401
    assert client.delete("/api/tokens/ci").status_code == 404
    assert client.delete("/api/tokens/local").status_code == 409


def test_the_local_token_can_be_rotated_and_the_cli_finds_the_new_one(launched: Launch) -> None:
    server = launched()
    before = server.token
    with server.client() as old:
        made = old.post("/api/tokens/local/rotate").json()["token"]
        assert old.get("/api/runs").status_code == 401
    assert before != made == server.token
    with server.client() as new:
        assert new.get("/api/runs").status_code == 200


def test_cody_token_takes_the_place_of_the_local_one(launched: Launch) -> None:
    first = launched()
    kept = first.token
    assert first.end() == 0
    own = "a-token-of-the-operators-own"
    second = launched(CODY_TOKEN=own)
    with httpx2.Client(base_url=second.url, timeout=DEADLINE_S) as http:
        assert http.get("/api/tokens", headers=bearer(own)).status_code == 200
        assert http.get("/api/runs", headers=bearer(kept)).status_code == 401


def test_the_state_folder_has_hashes_and_nobody_else_can_read_it(server: CodyServer, client: httpx2.Client) -> None:
    value = client.post("/api/tokens", json={"name": "hashed", "scope": "read"}).json()["token"]
    for name in ("token", "tokens.json", "audit.jsonl", "server.json", "tokens.lock"):
        found = (server.state_dir / name).stat()
        assert stat.S_IMODE(found.st_mode) == 0o600, name
    assert stat.S_IMODE(server.state_dir.stat().st_mode) == 0o700
    kept = (server.state_dir / "tokens.json").read_text()
    assert value not in kept
    assert server.token not in kept
    assert value not in client.get("/api/tokens").text


def test_a_token_file_that_others_can_read_stops_the_start(launched: Launch) -> None:
    first = launched()
    assert first.end() == 0
    os.chmod(first.state_dir / "token", 0o644)
    second = launched()
    assert second.url == ""
    assert second.wait() == 1
    assert "chmod 600" in second.stderr


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_state_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put tokens of their own there."""
    tmp_path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod go-w"):
        TokenStore(tmp_path).prepare()
    assert not (tmp_path / "token").exists()
    tmp_path.chmod(0o755)
    TokenStore(tmp_path).prepare()


def test_what_is_in_a_state_folder_that_others_can_look_into_is_for_nobody_else(launched: Launch, folder: Path) -> None:
    state = folder / "state"
    state.mkdir()
    state.chmod(0o755)
    server = launched()
    assert server.url
    for path in state.iterdir():
        with contextlib.suppress(FileNotFoundError):  # SQLite takes its own away as it likes
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path.name
    assert server.end() == 0
    state.chmod(0o777)
    refused = launched()
    assert (refused.url, refused.wait()) == ("", 1)
    assert "chmod go-w" in refused.stderr


def test_many_changes_at_once_lose_no_token(tmp_path: Path) -> None:
    """Each change replaces the whole file: without a lock the last one would undo the others."""
    stores = [TokenStore(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: stores[number % 4].create(f"n{number}", "read"), range(40)))
    assert {one.name for one in TokenStore(tmp_path).records()} == {f"n{number}" for number in range(40)}
    with pytest.raises(Conflict):
        stores[0].create("n1", "read")


def test_secrets_are_compared_in_constant_time() -> None:
    """Every token is looked at, each by compare_digest: neither `==` nor a way out before the last one."""
    source = ast.parse(textwrap.dedent(inspect.getsource(TokenStore.whose)))
    loops = [node for node in ast.walk(source) if isinstance(node, ast.For)]
    assert len(loops) == 1
    assert not [node for node in ast.walk(loops[0]) if isinstance(node, ast.Return | ast.Break)]
    compared = [node for node in ast.walk(source) if isinstance(node, ast.Compare)]
    assert {ast.unparse(node) for node in compared} <= {"record.name == LOCAL"}
    calls = [ast.unparse(node.func) for node in ast.walk(source) if isinstance(node, ast.Call)]
    assert calls.count("hmac.compare_digest") == 2


def test_every_change_is_in_the_audit_log(
    server: CodyServer, client: httpx2.Client, stranger: httpx2.Client, make: Any, workspace: Path
) -> None:
    token = make("control")
    started = stranger.post(START, json=start_body(workspace, "import time; time.sleep(60)"), headers=bearer(token))
    run_id = started.json()["runId"]
    stranger.post(f"/api/runs/{run_id}/cancel", headers=bearer(token))
    stranger.post("/api/tokens", json={"name": "evil", "scope": "admin"}, headers=bearer(token))
    client.get("/api/runs")
    entries = client.get("/api/audit?limit=3").json()["entries"]
    (denied, cancelled, begun) = entries
    assert {one["who"] for one in entries} == {begun["who"]}
    assert begun["who"].startswith("t-")
    assert (begun["action"], begun["runId"], begun["status"]) == (f"POST {START}", run_id, 202)
    assert (cancelled["action"], cancelled["runId"]) == ("POST /api/runs/{run_id:uuid}/cancel", run_id)
    assert (denied["action"], denied["status"], denied["scope"]) == ("POST /api/tokens", 403, "control")
    assert all(one["source"].startswith("127.0.0.1:") and one["ts"].endswith("Z") for one in entries)
    client.post("/api/tokens", json={"name": "named", "scope": "read"})
    client.post("/api/tokens", json={"name": "no name\n", "scope": "read"})
    client.delete("/api/tokens/named")
    removed, nameless, made = client.get("/api/audit?limit=3").json()["entries"]
    assert [one.get("token") for one in (removed, nameless, made)] == ["named", None, "named"]
    assert [one["status"] for one in (removed, nameless, made)] == [204, 400, 201]
    lines = [json.loads(line) for line in (server.state_dir / "audit.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["action"].startswith("GET /api")]
