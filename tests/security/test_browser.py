"""Browsers: in by a one-time link only; and what pages of other origins, ports and names can do: nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.cookies import SimpleCookie

import httpx2
import pytest

from cody.tokens import Caller
from server.auth import LINK_LIFETIME_S, MAX_LINKS, SESSION_LIFETIME_S, Sessions, Unauthorized
from tests.security.asking import START
from tests.server.cody_server import DEADLINE_S, CodyServer

UNKNOWN = "/api/runs/6f2c1a52-7c62-4bde-9b53-25a1a6b1c111"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def link(client: httpx2.Client) -> str:
    answer = client.post("/api/session/link")
    assert answer.status_code == 201
    return str(answer.json()["url"])


@pytest.fixture
def browser(server: CodyServer, client: httpx2.Client) -> Iterator[httpx2.Client]:
    """A browser that came in by a link."""
    with httpx2.Client(base_url=server.url, timeout=30) as opened:
        assert opened.get(link(client)).status_code == 303
        yield opened


def test_a_link_becomes_a_session_once(server: CodyServer, client: httpx2.Client, stranger: httpx2.Client) -> None:
    url = link(client)
    assert url.startswith(f"{server.url}/enter?code=")
    entered = stranger.get(url)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie: SimpleCookie = SimpleCookie(entered.headers["set-cookie"])
    (name,) = cookie
    assert name == f"cody_session_{server.port}"
    made = cookie[name]
    assert (made["httponly"], made["samesite"], made["path"], made["domain"]) == (True, "Strict", "/", "")
    assert int(made["max-age"]) == SESSION_LIFETIME_S
    assert stranger.get("/api/runs").status_code == 200
    with httpx2.Client(base_url=server.url, timeout=DEADLINE_S) as second:
        again = second.get(url)
        assert again.status_code == 401
        assert "used already" in again.json()["error"]["message"]
        assert "set-cookie" not in again.headers


def test_a_program_that_looks_at_a_link_first_does_not_use_it_up(
    client: httpx2.Client, stranger: httpx2.Client
) -> None:
    url = link(client)
    assert stranger.head(url).status_code == 405
    assert stranger.get(url).status_code == 303


def test_links_and_sessions_end_by_themselves() -> None:
    now = 1000.0
    sessions = Sessions(1, clock=lambda: now)
    late, good = sessions.link(Caller("ci", "admin")), sessions.link(Caller("ci", "admin"))
    now += LINK_LIFETIME_S
    value, caller = sessions.enter(good)
    assert caller == Caller("session:ci", "control")
    now += 0.001
    with pytest.raises(Unauthorized):
        sessions.enter(late)
    now += SESSION_LIFETIME_S - 0.001
    assert sessions.find(value) == caller
    now += 0.001
    assert sessions.find(value) is None


def test_links_are_few_and_sessions_end_with_their_token() -> None:
    sessions = Sessions(1)
    first = sessions.link(Caller("ci", "read"))
    own, other = sessions.link(Caller("ci", "read")), sessions.link(Caller("ops", "read"))
    value, _ = sessions.enter(own)
    sessions.end_those_of("ci")
    assert sessions.find(value) is None
    with pytest.raises(Unauthorized):
        sessions.enter(first)
    assert sessions.enter(other)[1] == Caller("session:ops", "read")
    oldest = sessions.link(Caller("ci", "read"))
    for _ in range(MAX_LINKS):
        sessions.link(Caller("ci", "read"))
    with pytest.raises(Unauthorized):
        sessions.enter(oldest)


def test_a_session_may_steer_and_not_administer(
    server: CodyServer, client: httpx2.Client, browser: httpx2.Client
) -> None:
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert browser.post(f"{UNKNOWN}/cancel", headers=own).status_code == 404
    for method, path in [("GET", "/api/tokens"), ("GET", "/api/audit"), ("POST", "/api/tokens/local/rotate")]:
        assert browser.request(method, path, headers=own).status_code == 403
    # One that could make links would never end.
    assert browser.post("/api/session/link", headers=own).status_code == 403
    entries = client.get("/api/audit").json()["entries"]
    entered = [one for one in entries if one["action"] == "GET /enter"]
    assert entered
    assert {(one["who"], one["status"]) for one in entered} == {("session:local", 303)}


def test_a_session_ends_when_it_is_left_and_with_its_token(
    server: CodyServer, client: httpx2.Client, browser: httpx2.Client
) -> None:
    kept = dict(browser.cookies)
    left = browser.post("/api/session/leave", headers={"Origin": server.url})
    assert left.status_code == 204
    assert "max-age=0" in left.headers["set-cookie"].lower()
    assert httpx2.get(f"{server.url}/api/runs", cookies=kept, timeout=DEADLINE_S).status_code == 401
    token = client.post("/api/tokens", json={"name": "screen", "scope": "read"}).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.url, timeout=DEADLINE_S) as other:
        other.get(other.post("/api/session/link", headers=bearer).json()["url"])
        assert other.get("/api/runs").status_code == 200
        assert other.post(f"{UNKNOWN}/cancel", headers={"Origin": server.url}).status_code == 403
        client.delete("/api/tokens/screen")
        assert other.get("/api/runs").status_code == 401


def test_nobody_can_choose_a_session(server: CodyServer, client: httpx2.Client) -> None:
    """A value planted in the browser before the sign-in is no session, neither before nor after."""
    name = f"cody_session_{server.port}"
    with httpx2.Client(base_url=server.url, cookies={name: "planted-by-someone-else"}, timeout=DEADLINE_S) as victim:
        assert victim.get("/api/runs").status_code == 401
        entered = victim.get(link(client))
        cookie: SimpleCookie = SimpleCookie(entered.headers["set-cookie"])
        assert cookie[name].value != "planted-by-someone-else"
    planted = {"Cookie": f"{name}=planted-by-someone-else"}
    assert httpx2.get(f"{server.url}/api/runs", headers=planted, timeout=DEADLINE_S).status_code == 401


def test_the_cookie_of_another_port_or_a_second_one_is_no_session(
    server: CodyServer, client: httpx2.Client, stranger: httpx2.Client
) -> None:
    stranger.get(link(client))
    (value,) = dict(stranger.cookies).values()
    name = f"cody_session_{server.port}"

    def status(cookie: str) -> int:
        return httpx2.get(f"{server.url}/api/runs", headers={"Cookie": cookie}, timeout=DEADLINE_S).status_code

    assert status(f"{name}={value}") == 200
    assert status(f"cody_session_{server.port + 1}={value}") == 401
    assert status(f"{name}={value}x") == 401
    assert status(f'{name}="{value}; {name}={value}') == 401
    two = [("Cookie", f"{name}={value}"), ("Cookie", f"{name}=other")]
    assert httpx2.get(f"{server.url}/api/runs", headers=two, timeout=DEADLINE_S).status_code == 401
    for first, second in ((value, "other"), ("other", value), (value, value), (value, "")):
        assert status(f"{name}={first}; {name}={second}") == 401
    assert status(f"{name.upper()}={value}") == 401
    assert status(f"x={name}={value}") == 401


@pytest.mark.parametrize(
    "other", ['prefs={"a":1}', "flag", "path=/", "expires=x", "=", "", 'open="', "a=b,c", "b@d=1", "k=ünï", "a=b==c"]
)
def test_cookies_of_other_programs_on_this_machine_keep_nobody_out(
    server: CodyServer, client: httpx2.Client, stranger: httpx2.Client, other: str
) -> None:
    """A browser sends the cookies of all ports of a host, and other programs' may be of any form."""
    stranger.get(link(client))
    (value,) = dict(stranger.cookies).values()
    own = f"cody_session_{server.port}={value}"
    for cookies in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};{other}", f"a=b; {other}; {own} ; c=d"):
        headers = {b"Cookie": cookies.strip().encode()}
        assert httpx2.get(f"{server.url}/api/runs", headers=headers, timeout=DEADLINE_S).status_code == 200, cookies


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io:{port}", "localhost:1", "[::ffff:7f00:1]:{port}"]
)
def test_a_name_that_leads_here_is_no_name_of_ours(
    server: CodyServer, browser: httpx2.Client, client: httpx2.Client, host: str
) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1 now, so that to the browser we are its origin."""
    given = {"Host": host.format(port=server.port)}
    for one in (browser, client):
        for path in ("/healthz", "/api/runs", "/enter?code=x", "/"):
            answer = one.get(path, headers=given)
            assert answer.status_code == 403
            assert "runs" not in answer.text
    assert client.post(START, json={}, headers=given).status_code == 403


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_of_another_page_changes_nothing(
    server: CodyServer, browser: httpx2.Client, client: httpx2.Client, content_type: str
) -> None:
    """What a page may send without asking first, with the cookie that a browser would add."""
    body = json.dumps({"action": "cancel"})
    before = client.get("/api/audit?limit=1").json()
    for origin in (
        "http://evil.example",
        "null",
        f"http://localhost:{server.port + 1}",
        f"http://127.0.0.1:{server.port + 1}",
    ):
        headers = {"Content-Type": content_type, "Origin": origin}
        assert browser.post(f"{UNKNOWN}/control", content=body, headers=headers).status_code == 403
    without = browser.post(f"{UNKNOWN}/control", content=body, headers={"Content-Type": content_type})
    assert without.status_code == 403
    own = {"Content-Type": content_type, "Origin": server.url}
    assert browser.post(f"{UNKNOWN}/control", content=body, headers=own).status_code == 415
    after = client.get("/api/audit?limit=1").json()
    assert [one["status"] for one in after["entries"]] == [415]
    assert before != after


@pytest.mark.parametrize("site", ["same-site", "cross-site", "other"])
@pytest.mark.parametrize("mode", ["cors", "no-cors", "websocket", None])
def test_a_page_on_another_port_reads_nothing(browser: httpx2.Client, site: str, mode: str | None) -> None:
    """Such requests carry the cookie, since ports are no sites, and no Origin: scripts, images."""
    headers = {"Sec-Fetch-Site": site} | ({"Sec-Fetch-Mode": mode} if mode else {})
    for path in ("/api/runs", "/metrics", f"{UNKNOWN}/stream"):
        assert browser.get(path, headers=headers).status_code == 403
    assert browser.get("/api/runs", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}).is_success
    assert browser.get("/api/runs", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).is_success


def test_no_answer_may_be_framed_read_or_run_elsewhere(browser: httpx2.Client, stranger: httpx2.Client) -> None:
    for answer in (
        browser.get("/api/runs"),
        browser.get("/nothing"),
        stranger.get("/api/runs"),
        stranger.get("/api/runs", headers={"Accept": "text/html"}),
        stranger.get("/healthz", headers={"Host": "evil.example"}),
    ):
        headers = answer.headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(
    "broken",
    [
        "GARBAGE\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /api/runs HTTP/1.1\r\nHOST Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST /api/runs HTTP/1.1\r\nHOST Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics",
        "POST /api/runs HTTP/1.1\r\nHOST Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET /api/runs HTTP/1.1\r\nHOST Authorization : Bearer x\r\n\r\n",
        "GET /api/runs HTTP/1.1\r\nHOST X: folded\r\n line\r\n\r\n",
        "GET /api/runs HTTP/1.1\r\nHOST X: a\0b\r\n\r\n",
        "GET /api/runs HTTP/1.1\nHOST \n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_refused_with_the_same_headers(
    server: CodyServer, broken: str
) -> None:
    """A request that hides another one behind it, from a proxy or a browser."""
    request = broken.replace("HOST ", f"Host: 127.0.0.1:{server.port}\r\n{server.auth_line}")
    status, headers, body = server.raw(request.encode())
    assert status == 400
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert (headers["cache-control"], headers["connection"]) == ("no-store", "close")
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert b"HTTP/1.1" not in body, "one answer, to one request"


@pytest.mark.parametrize("path", ["/", "/healthz", f"{UNKNOWN}/stream"])
def test_a_web_socket_is_not_opened(
    server: CodyServer, browser: httpx2.Client, stranger: httpx2.Client, path: str
) -> None:
    """The same-origin policy does not hold for web sockets: another page may open one, and read it."""
    foreign = browser.get(path, headers={**WEBSOCKET, "Origin": "http://evil.example"})
    assert foreign.status_code == 403
    for one in (browser, stranger):
        answer = one.get(path, headers={**WEBSOCKET, "Origin": server.url})
        assert answer.status_code in {200, 401, 404, 503}
        assert "upgrade" not in answer.headers


def test_a_person_without_a_session_is_told_how_to_get_one(stranger: httpx2.Client, client: httpx2.Client) -> None:
    navigating = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for path in ("/", "/api/runs", "/enter?code=wrong"):
        answer = stranger.get(path, headers=navigating)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "cody dashboard" in answer.text
        assert not re.search(r"<script|<style|style=|\bon\w+=|<form|<input|https?://", answer.text)
    assert stranger.head("/", headers=navigating).content == b""
    for headers in ({"Accept": "*/*"}, {"Accept": "application/json"}, {**navigating, "Authorization": "Bearer x"}):
        assert stranger.get("/api/runs", headers=headers).headers["content-type"] == "application/json"
    assert stranger.post("/api/runs", json={}, headers=navigating).headers["content-type"] == "application/json"
    assert client.get("/nothing", headers=navigating).headers["content-type"] == "application/json"


def test_the_dashboard_may_load_its_own_files_and_nothing_else(browser: httpx2.Client) -> None:
    """Built or not: the policy is that of the page, once, and has no way for code that stands in a text."""
    page = browser.get("/")
    assert page.headers["content-type"].startswith("text/html")
    (policy,) = page.headers.get_list("content-security-policy")
    rules = dict(rule.partition(" ")[::2] for rule in policy.split("; "))
    assert (rules["default-src"], rules["frame-ancestors"], rules["base-uri"]) == ("'none'", "'none'", "'none'")
    assert {rule for name, rule in rules.items() if name.endswith("-src")} <= {"'none'", "'self'"}
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
