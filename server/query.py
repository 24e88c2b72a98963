"""Query strings: each parameter known, given once, and of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args
from urllib.parse import parse_qsl

from cody.contracts.run import RunStatus
from cody.errors import InvalidRequest
from server.problems import invalid_fields, printable

MAX_PARAMETERS = 20
MAX_TEXT = 512
MAX_OFFSET = 2**63 - 1

Query = Mapping[str, str]


def query_of(raw: bytes, known: frozenset[str]) -> Query:
    """The parameters by name; raises InvalidRequest for unknown or repeated ones and for what is not UTF-8."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise InvalidRequest("query: not percent-encoded UTF-8") from None
    except ValueError:
        raise InvalidRequest(f"query: more than {MAX_PARAMETERS} parameters") from None
    names = [name for name, _ in pairs]
    allowed = ", ".join(sorted(known)) or "none"
    problems = [
        (printable(name), f"is not a known parameter (known: {allowed})" if name not in known else "is given twice")
        for place, name in enumerate(names)
        if name not in known or name in names[:place]
    ]
    if problems:
        raise invalid_fields(problems)
    return dict(pairs)


def whole_number(query: Query, name: str, *, default: int, at_least: int, at_most: int) -> int:
    """A parameter as an integer within bounds; raises InvalidRequest."""
    text = query.get(name)
    if text is None:
        return default
    # The length first: int() of a very long text is slow, and refuses with an error of its own.
    if text.isascii() and text.isdigit() and len(text) <= 19 and at_least <= int(text) <= at_most:
        return int(text)
    raise invalid_fields([(name, f"must be an integer from {at_least} to {at_most}")])


def text(query: Query, name: str, *, at_most: int = MAX_TEXT) -> str | None:
    """A parameter as it is, not empty and not endless; raises InvalidRequest."""
    value = query.get(name)
    if value is None or 0 < len(value) <= at_most:
        return value
    raise invalid_fields([(name, f"must have 1 to {at_most} characters")])


def run_status(query: Query, name: str) -> RunStatus | None:
    """A parameter as a status of a run; raises InvalidRequest."""
    known: tuple[RunStatus, ...] = get_args(RunStatus)
    value = query.get(name)
    if value is None:
        return None
    for status in known:
        if status == value:
            return status
    raise invalid_fields([(name, f"must be one of {', '.join(known)}")])
