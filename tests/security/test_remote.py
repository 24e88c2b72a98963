"""Beyond loopback only when that was asked for, and then only by the names that were given."""

from __future__ import annotations

import json
import socket
from http.cookies import SimpleCookie
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest

from cody.client.discovery import candidates
from cody.errors import ConfigurationError, Forbidden
from cody.settings import Settings
from server.listening import NotLoopback, address_to_bind, is_loopback
from server.site import AllowedHost, Site
from tests.cli.command_line import CommandLine
from tests.security.conftest import Launch
from tests.server.cody_server import DEADLINE_S, CodyServer

ANOTHER = "127.0.0.2"
"""An address of this machine that a server on 127.0.0.1 does not have."""


def reached(server: CodyServer, path: str, host: str, *more: str, address: str = ANOTHER) -> tuple[int, str]:
    """The status and the head of the answer to a request that comes in by this address."""
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host.replace('PORT', str(server.port))}",
        *more,
        "Connection: close",
        "",
        "",
    )
    with socket.create_connection((address, server.port), timeout=DEADLINE_S) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    head = answer.partition(b"\r\n\r\n")[0].decode()
    return int(head.split(" ")[1]), head


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"])
def test_no_other_address_is_bound_without_the_flag(host: str) -> None:
    with pytest.raises(NotLoopback, match="--allow-remote"):
        address_to_bind(host, allow_remote=False)
    assert ip_address(address_to_bind(host, allow_remote=True)) == ip_address(host.strip("[]"))
    for own in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        assert is_loopback(address_to_bind(own, allow_remote=False))


@pytest.mark.parametrize("by_environment", [True, False])
def test_it_needs_a_flag(launched: Launch, by_environment: bool) -> None:
    server = launched(CODY_HOST="0.0.0.0") if by_environment else launched("--host", "0.0.0.0")
    assert server.url == ""
    assert server.wait() == 2
    (said,) = [line for line in server.stderr.splitlines() if not line.startswith("{")]
    assert said.startswith("cody: host '0.0.0.0' is not a loopback address")
    assert "--allow-remote" in said
    assert not (server.state_dir / "token").exists()


def test_a_name_is_no_address(launched: Launch) -> None:
    server = launched("--host", "cody.example", "--allow-remote")
    assert (server.url, server.wait()) == ("", 2)
    assert "'cody.example' is not an address of this machine" in server.stderr


def test_loopback_is_all_there_is_without_it(launched: Launch) -> None:
    server = launched("--allow-remote", "--allowed-host", "cody.example")
    assert server.url.startswith("http://127.0.0.1:")
    with pytest.raises(ConnectionRefusedError):
        reached(server, "/healthz", "cody.example:PORT")
    assert "server.open_to_the_network" not in server.stderr


@pytest.fixture
def remote(launched: Launch) -> CodyServer:
    return launched(
        *("--host", "0.0.0.0", "--allow-remote"),
        *("--allowed-host", "Cody.Example", "--allowed-host", "10.1.2.3:80", "--allowed-host", "https://proxy.example"),
    )


def test_others_come_in_by_the_names_that_were_given_and_with_a_token(remote: CodyServer) -> None:
    for host in (
        "cody.example:PORT",
        "CODY.EXAMPLE:PORT",
        "10.1.2.3",
        "10.1.2.3:80",
        "proxy.example",
        "localhost:PORT",
    ):
        assert reached(remote, "/api/runs", host)[0] == 401, host
        assert reached(remote, "/api/runs", host, remote.auth_line.strip())[0] == 200, host
    for host in (
        "evil.example:PORT",
        "cody.example",
        "cody.example:1",
        "127.0.0.2:PORT",
        "0.0.0.0:PORT",
        "10.1.2.3:PORT",
    ):
        for path in ("/healthz", "/api/runs", "/enter?code=x"):
            assert reached(remote, path, host, remote.auth_line.strip())[0] == 403, host
    assert '"server.open_to_the_network"' in remote.stderr


def test_a_page_is_our_own_by_the_name_it_was_opened_by(remote: CodyServer) -> None:
    auth = remote.auth_line.strip()
    for host, own in (
        ("cody.example:PORT", f"http://cody.example:{remote.port}"),
        ("10.1.2.3", "http://10.1.2.3"),
        ("proxy.example", "https://proxy.example"),
    ):
        assert reached(remote, "/api/runs", host, auth, f"Origin: {own}")[0] == 200
        for foreign in ("http://evil.example", "null", "http://proxy.example", f"http://127.0.0.1:{remote.port}"):
            assert reached(remote, "/api/runs", host, auth, f"Origin: {foreign}")[0] == 403, (host, foreign)


def test_programs_of_this_machine_find_it_as_ever(remote: CodyServer, tmp_path: Path) -> None:
    assert remote.url == f"http://127.0.0.1:{remote.port}"
    assert json.loads((remote.state_dir / "server.json").read_bytes())["url"] == remote.url
    cli = CommandLine(remote.state_dir, tmp_path)
    assert json.loads(cli("runs", "--json", CODY_HOST="0.0.0.0").stdout)["runs"] == []
    assert cli("dashboard").stdout.startswith(f"{remote.url}/enter?code=")
    assert candidates(Settings(host="0.0.0.0", port=7, state_dir=tmp_path)) == ["http://127.0.0.1:7"]
    assert candidates(Settings(host="::", port=7, state_dir=tmp_path)) == ["http://[::1]:7"]


def test_a_link_leads_to_the_name_that_it_was_asked_by_and_its_cookie_goes_no_other_way(remote: CodyServer) -> None:
    with remote.client() as client:
        proxied = {"Host": "proxy.example"}
        url = client.post("/api/session/link", headers=proxied).json()["url"]
        assert url.startswith("https://proxy.example/enter?code=")
        entered = client.get(url.removeprefix("https://proxy.example"), headers=proxied)
        cookie: SimpleCookie = SimpleCookie(entered.headers["set-cookie"])
        (made,) = cookie.values()
        assert (made["secure"], made["httponly"], made["samesite"]) == (True, True, "Strict")
        plain = client.post("/api/session/link", headers={"Host": f"localhost:{remote.port}"}).json()["url"]
        assert plain.startswith(f"{remote.url}/enter?code=")
        assert "secure" not in httpx2.get(plain, timeout=DEADLINE_S).headers["set-cookie"].lower()


def test_on_all_addresses_of_both_kinds(launched: Launch) -> None:
    server = launched("--host", "::", CODY_ALLOW_REMOTE="1", CODY_ALLOWED_HOSTS="a.example, b.example")
    assert server.url == f"http://[::1]:{server.port}"
    with server.client() as client:
        assert client.get("/api/runs").status_code == 200
    for host, status in (("a.example:PORT", 200), ("b.example:PORT", 200), ("c.example:PORT", 403)):
        assert reached(server, "/healthz", host)[0] == status


@pytest.mark.parametrize(
    "given",
    [
        "",
        "*",
        "*.example",
        "a b",
        "a/b",
        "user@a",
        "a:0",
        "a:65536",
        "a:x",
        "ftp://a",
        "https://",
        "[1]",
        "::1",
        "a\nb",
        "-a",
    ],
)
def test_what_is_no_name_stops_the_start(given: str) -> None:
    with pytest.raises(ConfigurationError, match="--allowed-host"):
        AllowedHost.parse(given)


def test_a_wrong_name_is_told(launched: Launch) -> None:
    server = launched("--allowed-host", "*.example")
    assert (server.url, server.wait()) == ("", 1)
    assert "without patterns" in server.stderr


def test_the_usual_port_may_be_left_out_and_another_may_not() -> None:
    site = Site(
        "127.0.0.1",
        8899,
        tuple(map(AllowedHost.parse, ("https://a.example", "https://b.example:8443", "[2001:db8::1]"))),
    )
    assert site.origins["a.example"] == site.origins["a.example:443"] == "https://a.example"
    assert site.origins["b.example:8443"] == "https://b.example:8443"
    assert site.origins["[2001:db8::1]:8899"] == "http://[2001:db8::1]:8899"
    for host in (b"b.example", b"a.example:8899", b"[2001:db8::1]", b"a.example:80"):
        with pytest.raises(Forbidden):
            site.check([(b"host", host)])
