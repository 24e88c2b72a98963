"""Which Host and Origin headers mean: a program of this machine, or a page of our own."""

from __future__ import annotations

import pytest

from cody.errors import Forbidden
from server.guards import with_security
from server.site import Site

HERE = Site("127.0.0.1", 8899)


def headers(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


@pytest.mark.parametrize("host", ["127.0.0.1:8899", "localhost:8899", "LOCALHOST:8899", "[::1]:8899"])
def test_own_hosts_pass_with_no_origin_or_their_own(host: str) -> None:
    HERE.check(headers(("host", host)))
    HERE.check(headers(("host", host), ("origin", f"http://{host.lower()}")))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost:80",
        "127.0.0.1:88990",
        "evil.example:8899",
        "localhost.evil.example:8899",
        "localhost.:8899",
        "evil@localhost:8899",
        "127.0.0.2:8899",
        "0.0.0.0:8899",
        "[::1%25lo]:8899",
        "",
        "\u00ff",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(Forbidden, match="Host"):
        HERE.check(headers(("host", host)))


def test_no_host_or_two_of_them_are_refused() -> None:
    for found in (headers(), headers(("host", "localhost:8899"), ("host", "localhost:8899"))):
        with pytest.raises(Forbidden, match="Host"):
            HERE.check(found)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://localhost:8899",
        "http://localhost",
        "http://localhost:8900",
        "http://127.0.0.1:8899",
        "http://localhost:8899/",
        "http://localhost:8899.evil.example",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    with pytest.raises(Forbidden, match="origin"):
        HERE.check(headers(("host", "localhost:8899"), ("origin", origin)))


def test_two_origins_are_refused() -> None:
    own = ("origin", "http://localhost:8899")
    with pytest.raises(Forbidden, match="origin"):
        HERE.check(headers(("host", "localhost:8899"), own, own))


def test_the_bound_address_is_a_host_of_its_own() -> None:
    Site("127.0.0.2", 8899).check(headers(("host", "127.0.0.2:8899")))
    Site("::1", 8899).check(headers(("host", "[::1]:8899")))
    assert Site("::1", 8899).url == "http://[::1]:8899"


def test_port_80_needs_no_port() -> None:
    site = Site("127.0.0.1", 80)
    site.check(headers(("host", "localhost"), ("origin", "http://localhost")))
    site.check(headers(("host", "localhost:80")))


def test_an_answer_keeps_the_caching_it_chose() -> None:
    chosen = with_security([(b"Cache-Control", b"no-cache")])
    assert [value for name, value in chosen if name.lower() == b"cache-control"] == [b"no-cache"]
    assert (b"cache-control", b"no-store") in with_security([])
