"""Every answer has one shape, whatever is sent to a real server: never a 500 from input."""

from __future__ import annotations

import json
import socket
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.server.cody_server import DEADLINE_S, CodyServer

START = "/api/runs/continuous"
UNKNOWN = "/api/runs/6f2c1a52-7c62-4bde-9b53-25a1a6b1c111"
JSON = {"Content-Type": "application/json"}
VALID: dict[str, Any] = {"epicId": "current-epic", "config": {"workingDir": f"{tempfile.gettempdir()}/nowhere/at/all"}}


@pytest.fixture(autouse=True)
def _server_has_no_faults(server: CodyServer) -> Iterator[None]:
    """Whatever was sent, nothing was unexpected, and the server still answers."""
    yield
    with server.client() as client:
        assert client.get("/healthz").status_code == 200
    assert "Traceback" not in server.stderr
    assert "request.failed" not in server.stderr


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error of an answer that has the one shape."""
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert set(error) <= {"code", "message", "details"}
    assert error["message"]
    assert error["message"].isprintable()
    assert_secured(answer.headers)
    return dict(error)


def assert_secured(headers: Any) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "cache-control" in headers
    assert not [name for name in headers if name.lower().startswith("access-control-")]


def test_every_route_answers_with_the_security_headers(client: httpx2.Client) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/api/runs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert_secured(answer.headers)
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/runs/",
        "/healthz/",
        "/api/runs/not-a-run",
        "/api/runs/" + "a" * 10_000,
        "/api/runs/%00%0a%1b[2J",
        "/api/runs/..%2f..%2fetc%2fpasswd",
        "/api/runs/%ff",
        f"{UNKNOWN}x",
        f"{UNKNOWN}/turns/0",
        f"{UNKNOWN}/turns/-1",
        f"{UNKNOWN}/turns/1.0",
        f"{UNKNOWN}/turns/{'9' * 5_000}",
        f"{UNKNOWN}/turns/x/output",
        UNKNOWN,
        f"{UNKNOWN}/status",
        f"{UNKNOWN}/turns",
        f"{UNKNOWN}/turns/1",
        f"{UNKNOWN}/turns/1/output",
        f"{UNKNOWN}/prompt",
        f"{UNKNOWN}/stream",
    ],
)
def test_what_is_not_there_is_404(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    error = error_of(answer)
    assert error["code"] == "not_found"
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", START, "POST"),
        ("POST", "/api/runs", "GET, HEAD"),
        ("DELETE", UNKNOWN, "GET, HEAD"),
        ("PUT", f"{UNKNOWN}/control", "POST"),
        ("GET", f"{UNKNOWN}/pause", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("HEAD", START, "POST"),
        ("PATCH", f"{UNKNOWN}/stream", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client: httpx2.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert error_of(answer)["code"] == "method_not_allowed"


def test_head_has_the_headers_and_no_body(client: httpx2.Client) -> None:
    for path in ("/healthz", "/api/runs"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))
    assert client.head("/nope").status_code == 404


@pytest.mark.parametrize("path", [START, f"{UNKNOWN}/control"])
@pytest.mark.parametrize("raw", [b"", b"{", b"NaN", b'"\xff"', b"[" * 100_000, b"[]", b"null", b'{"a":1e999}'])
def test_what_is_no_valid_body_is_400(client: httpx2.Client, path: str, raw: bytes) -> None:
    answer = client.post(path, content=raw, headers=JSON)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_request"


def test_wrong_fields_are_named(client: httpx2.Client) -> None:
    answer = client.post(START, json={"epicId": "a/b", "config": {"workingDir": "/r", "maxTurns": 0, "x": 1}})
    assert answer.status_code == 400
    fields = [one["field"] for one in error_of(answer)["details"]["fields"]]
    assert fields == ["epicId", "config.maxTurns", "config.x"]


def test_a_valid_request_for_a_folder_that_is_not_there_names_the_field(client: httpx2.Client) -> None:
    answer = client.post(START, json=VALID)
    assert answer.status_code == 400
    assert "workingDir" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/jsonp",
        "application/json, text/plain",
    ],
)
@pytest.mark.parametrize("path", [START, f"{UNKNOWN}/control", f"{UNKNOWN}/cancel"])
def test_only_json_is_taken(server: CodyServer, content_type: str | None, path: str) -> None:
    kind = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    status, headers, body = server.raw(
        f"POST {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{server.auth_line}{kind}Content-Length: 2\r\n"
        "Connection: close\r\n\r\n{}".encode()
    )
    assert status == 415
    assert json.loads(body)["error"]["code"] == "unsupported_media_type"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("content_type", ["application/json;charset=UTF-8", 'Application/JSON; charset="utf-8"'])
def test_json_in_utf8_may_say_so(client: httpx2.Client, content_type: str) -> None:
    answer = client.post(START, content=json.dumps(VALID), headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert "workingDir" in error_of(answer)["message"]


def test_a_compressed_body_is_refused(client: httpx2.Client) -> None:
    answer = client.post(START, content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("action", ["pause", "resume", "cancel"])
def test_a_control_path_needs_no_body(client: httpx2.Client, action: str) -> None:
    ways: list[dict[str, Any]] = [{}, {"headers": JSON}, {"json": {}}, {"json": {"reason": "why"}}]
    for options in ways:
        answer = client.post(f"{UNKNOWN}/{action}", **options)
        assert answer.status_code == 404, options
    assert client.post(f"{UNKNOWN}/{action}", json={"why": 1}).status_code == 400
    assert client.post(f"{UNKNOWN}/control").status_code == 415


def test_a_body_announced_too_large_is_refused_before_it_is_sent(server: CodyServer) -> None:
    request = (
        f"POST {START} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{server.auth_line}"
        "Content-Type: application/json\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    status, _, body = server.raw(request.encode())
    assert status == 413
    assert json.loads(body)["error"]["code"] == "payload_too_large"


def test_a_body_without_end_is_refused_at_the_limit(server: CodyServer) -> None:
    """Chunked: no length is announced, and the answer comes while the client still sends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        head = f"POST {START} HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}{server.auth_line}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        for _ in range(17):
            connection.sendall(chunk)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(OSError, match=r"reset|pipe"):  # it does not listen for ever
            connection.sendall(chunk * 1_024)


def test_a_body_of_the_largest_size_is_read(client: httpx2.Client) -> None:
    body = json.dumps(VALID).encode()
    assert client.post(START, content=body.ljust(1 << 20), headers=JSON).status_code == 400
    assert client.post(START, content=body.ljust((1 << 20) + 1), headers=JSON).status_code == 413


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1.5",
        "limit=abc",
        "limit=" + "9" * 5_000,
        "limit=",
        "limit=1&limit=1",
        "status=nope",
        "epicId=",
        "cursor=not-a-cursor",
        "cursor=",
        "page=2",
        "limit=%ff",
    ],
)
def test_wrong_parameters_are_400_and_named(client: httpx2.Client, query: str) -> None:
    answer = client.get(f"/api/runs?{query}")
    assert answer.status_code == 400
    error = error_of(answer)
    if "%" not in query:
        assert query.partition("=")[0] in error["message"]
    assert len(error["message"]) < 300


def test_parameters_that_a_path_does_not_have_are_400(client: httpx2.Client) -> None:
    for path in ("/healthz?x=1", f"{UNKNOWN}?limit=1", f"{UNKNOWN}/stream?form=0"):
        answer = client.get(path)
        assert answer.status_code == 400, path
        assert "not a known parameter" in error_of(answer)["message"]
    assert client.post(f"{UNKNOWN}/cancel?now=1").status_code == 400


def test_foreign_hosts_and_origins_are_refused(server: CodyServer, client: httpx2.Client) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.port}"},
        {"Origin": "http://evil.example"},
    ):
        for method, path in (("GET", "/healthz"), ("GET", "/nope"), ("POST", f"{UNKNOWN}/cancel")):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 403
            assert error_of(answer)["code"] == "forbidden"
    assert client.get("/healthz", headers={"Origin": server.url}).status_code == 200
    assert client.get("/healthz", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_a_preflight_gets_nothing(server: CodyServer, client: httpx2.Client) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options(START, headers=asked)
    assert answer.status_code == 403
    assert_secured(answer.headers)


def test_what_is_not_http_gets_an_error_of_the_same_shape(server: CodyServer) -> None:
    for request in (
        b"NONSENSE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Header\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        status, headers, body = server.raw(request)
        assert status == 400
        assert json.loads(body)["error"]["code"] == "invalid_request"
        assert headers["x-content-type-options"] == "nosniff"


def test_endless_headers_are_refused(server: CodyServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        answer = b""
        try:
            for _ in range(4_096):
                connection.sendall(b"x" * 65_536)
        except OSError:  # it has closed: 256 MiB were more than it took
            pass
        else:
            raise AssertionError("the server took 256 MiB of headers")
        try:
            answer = connection.recv(65_536)
        except ConnectionResetError:
            return
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_http_1_0_and_pipelined_requests_are_answered(server: CodyServer) -> None:
    host = f"Host: localhost:{server.port}\r\n{server.auth_line}".encode()
    assert server.raw(b"GET /healthz HTTP/1.0\r\n" + host + b"Connection: close\r\n\r\n")[0] == 200
    both = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\nGET /nope HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    _, _, rest = server.raw(both)
    assert b"HTTP/1.1 404 " in rest


def test_an_upgrade_is_not_taken(client: httpx2.Client) -> None:
    asked = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert client.get("/healthz", headers=asked).status_code == 200


def test_metrics_count_requests_by_route(client: httpx2.Client) -> None:
    def counted() -> float:
        wanted = 'cody_http_requests_total{method="GET",route="/api/runs/{run_id:uuid}/prompt",status="404"}'
        found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(wanted)]
        return float(found[0].split()[-1]) if found else 0.0

    before = counted()
    for _ in range(3):
        client.get(f"/api/runs/{uuid.uuid4()}/prompt")
    assert counted() == before + 3
    text = client.get("/metrics").text
    assert "cody_open_streams 0.0" in text
    assert "cody_active_runs 0.0" in text
    assert "process_resident_memory_bytes" in text


def test_readiness_names_its_checks(client: httpx2.Client) -> None:
    answer = client.get("/readyz").json()
    assert answer["ready"] is True
    assert answer["checks"]["redis"].startswith("ok")
    assert answer["checks"]["disk"].startswith("ok")
