"""Run ids as people give them: whole, or any beginning that only one run has."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cody.client import CodyClient
from cody.contracts.run import RunSummary
from cody.errors import InvalidRequest, NotFound

MIN_CHARS = 4
MAX_PAGES = 20
"""Of 100 runs each: who has more than 2,000 can give the whole id."""
CANDIDATES_SHOWN = 5

_WHOLE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


async def find_run_id(client: CodyClient, given: str) -> str:
    """The id of the run that is meant.

    Raises NotFound when there is none, InvalidRequest when there are several (it lists them) or `given` is too short.
    """
    wanted = given.strip().lower()
    if _WHOLE.match(wanted):
        return wanted
    if len(wanted) < MIN_CHARS:
        raise InvalidRequest(f"{given!r} is too short for a run id: give at least {MIN_CHARS} characters of it")
    found: list[RunSummary] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.runs(limit=100, cursor=cursor)
        found += [run for run in page.runs if run.run_id.startswith(wanted)]
        cursor = page.next_cursor
        if cursor is None:
            break
    return choose(given, found)


def choose(given: str, found: Sequence[RunSummary]) -> str:
    """The one run among those that begin with `given`; raises as `find_run_id` does."""
    match found:
        case []:
            raise NotFound(f"no run begins with {given!r}: `cody runs` lists them")
        case [run]:
            return run.run_id
        case _:
            lines = [f"  {run.run_id}  {run.status}, epic {run.epic_id}" for run in found[:CANDIDATES_SHOWN]]
            more = [f"  and {len(found) - CANDIDATES_SHOWN} more"] if len(found) > CANDIDATES_SHOWN else []
            raise InvalidRequest("\n".join([f"{given!r} is the beginning of {len(found)} runs:", *lines, *more]))
