"""Query strings: known names, once each, of their type."""

from __future__ import annotations

import pytest

from cody.errors import InvalidRequest
from server.query import Query, query_of, run_status, text, whole_number

KNOWN = frozenset({"limit", "status"})


def limit(query: Query) -> int:
    return whole_number(query, "limit", default=20, at_least=1, at_most=100)


def test_parameters_are_decoded() -> None:
    assert query_of(b"", KNOWN) == {}
    assert query_of(b"limit=5&status=a%20b%C3%A4", KNOWN) == {"limit": "5", "status": "a bä"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"x=1", r"^x: is not a known parameter \(known: limit, status\)$"),
        (b"limit=1&limit=1", r"^limit: is given twice$"),
        (b"limit=1&limi%74=2", r"^limit: is given twice$"),
        (b"%0a%1b=1", r"^\\n\\x1b: is not a known"),
        (b"status=%ff", "UTF-8"),
        (b"status=\xff", "UTF-8"),
        (b"&".join([b"x=1"] * 50), "parameters"),
    ],
)
def test_other_queries_are_refused(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        query_of(raw, KNOWN)


@pytest.mark.parametrize("given", ["0", "101", "-1", "1.0", "1e1", "", " 1", "+1", "0x5", "٣", "9" * 10_000])
def test_only_integers_within_the_bounds_are_numbers(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^limit: must be an integer from 1 to 100$"):
        limit({"limit": given})


def test_a_number_has_a_default() -> None:
    assert (limit({}), limit({"limit": "1"}), limit({"limit": "100"}), limit({"limit": "007"})) == (20, 1, 100, 7)


def test_a_status_is_one_of_the_table() -> None:
    assert run_status({"status": "paused"}, "status") == "paused"
    assert run_status({}, "status") is None
    for wrong in ("Paused", "", "ended"):
        with pytest.raises(InvalidRequest, match=r"^status: must be one of queued"):
            run_status({"status": wrong}, "status")


def test_text_is_neither_empty_nor_endless() -> None:
    assert text({"cursor": "abc"}, "cursor") == "abc"
    assert text({}, "cursor") is None
    for wrong in ("", "x" * 513):
        with pytest.raises(InvalidRequest, match=r"^cursor: "):
            text({"cursor": wrong}, "cursor")
