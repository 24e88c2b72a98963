"""Every key that Cody has in Redis: its name, type, and what bounds it. Nothing else in the project spells a key."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

PREFIX = "codi:api"
INDEX = f"{PREFIX}:runs:index"
ACTIVE = f"{PREFIX}:runs:active"
QUEUED = f"{PREFIX}:runs:queued"
DOCKET = f"{PREFIX}:docket"
ARCHIVE_NEWS = f"{PREFIX}:archive:news"

RESPONSES_PREFIX = "codex"
RESPONSE_NEWS = f"{RESPONSES_PREFIX}:runs:news"
RESPONSES_ACTIVE = f"{RESPONSES_PREFIX}:runs:active"
DEAD_LETTERS = f"{RESPONSES_PREFIX}:dead-letters"

EVENTS_MAXLEN = 50_000
"""Approximate: Redis trims whole nodes, so a stream may hold some hundred entries more."""
UNARCHIVED_MAXLEN = 5 * EVENTS_MAXLEN
"""What the archive does not have yet is kept beyond that, up to so many."""
TURNS_KEPT = 10_000
"""Records of a run's turns, the newest; the archive has all."""
CTL_MAXLEN = 1_000
NEWS_MAXLEN = 100_000
"""Approximate. A notification that is trimmed costs nothing: the archive's sweep finds the run by its index."""
WAKE_TTL_S = 120
RESPONSE_EVENTS_KEPT = 1_000
"""Of those that the projector has acknowledged; one that it has not is never trimmed."""
DEAD_LETTERS_MAXLEN = 10_000
THREAD_RESPONSES_KEPT = 1_000
_RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")


def is_run_id(text: str) -> bool:
    """Whether this may be the id of a run: what someone else wrote into Redis may be anything."""
    return _RUN_ID.match(text) is not None


def events(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:events"


def control(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:ctl"


def meta(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:meta"


def lock(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:lock"


def subscribers(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:subscribers"


def turns(run_id: str) -> str:
    return f"{PREFIX}:run:{run_id}:turns"


def idempotency(key_sha256: str) -> str:
    return f"{PREFIX}:idempotency:{key_sha256}"


def wake(worker_id: str) -> str:
    return f"{PREFIX}:worker:{worker_id}:wake"


def response_events(response_id: str) -> str:
    return f"{RESPONSES_PREFIX}:run:{response_id}:events"


def response_publisher(response_id: str) -> str:
    return f"{RESPONSES_PREFIX}:run:{response_id}:publisher"


def response_projector(response_id: str) -> str:
    return f"{RESPONSES_PREFIX}:run:{response_id}:projector"


def thread_responses(thread_id: str) -> str:
    """Ids of threads come from providers and clients: a hash has no separators and one length."""
    return f"{RESPONSES_PREFIX}:thread:{hashlib.sha256(thread_id.encode()).hexdigest()}:responses"


def of_run(run_id: str) -> list[str]:
    """The keys that get a TTL when the run has ended; the lock has one of its own."""
    return [events(run_id), control(run_id), meta(run_id), subscribers(run_id), turns(run_id)]


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What a key must look like. `always_ttl`: it never lives without one; the others get theirs at the run's end."""

    pattern: re.Pattern[str]
    type: Literal["stream", "hash", "string", "zset"]
    always_ttl: bool
    bound: str
    max_entries: int | None = None


def _rule(
    shape: str,
    type: Literal["stream", "hash", "string", "zset"],
    bound: str,
    *,
    always_ttl: bool = False,
    max_entries: int | None = None,
) -> KeyRule:
    pattern = re.compile(re.escape(shape).replace("ID", "[0-9a-f-]{36}") + r"\Z")
    return KeyRule(pattern, type, always_ttl, bound, max_entries)


def _response_rule(name: str, type: Literal["stream", "string"], bound: str, *, always_ttl: bool = False) -> KeyRule:
    pattern = re.compile(re.escape(f"{RESPONSES_PREFIX}:run:") + r"[0-9A-Za-z_-]{1,64}" + re.escape(f":{name}") + r"\Z")
    return KeyRule(pattern, type, always_ttl, bound)


RULES: tuple[KeyRule, ...] = (
    _rule(
        f"{PREFIX}:run:ID:events",
        "stream",
        "MAXLEN ~ 50,000; of what the archive does not have yet, up to 250,000",
        max_entries=UNARCHIVED_MAXLEN + 5_000,
    ),
    _rule(f"{PREFIX}:run:ID:ctl", "stream", "MAXLEN ~ 1,000", max_entries=CTL_MAXLEN + 200),
    _rule(f"{PREFIX}:run:ID:meta", "hash", "a fixed set of fields", max_entries=64),
    _rule(f"{PREFIX}:run:ID:turns", "hash", "the newest 10,000 that the archive has", max_entries=TURNS_KEPT + 1_000),
    _rule(f"{PREFIX}:run:ID:lock", "string", "PX", always_ttl=True),
    _rule(f"{PREFIX}:run:ID:subscribers", "zset", "expired members are dropped at each read", always_ttl=True),
    _rule(f"{PREFIX}:worker:ID:wake", "stream", "MAXLEN 1", always_ttl=True, max_entries=2),
    _rule(
        INDEX, "zset", "ids of forgotten runs are dropped by the archive's sweep, and by a listing that comes upon them"
    ),
    _rule(ACTIVE, "zset", "runs that have not ended"),
    _rule(QUEUED, "zset", "runs that no host has taken yet"),
    _rule(ARCHIVE_NEWS, "stream", "MAXLEN ~ 100,000", max_entries=NEWS_MAXLEN + 5_000),
    _response_rule("events", "stream", "about 1,000 acknowledged events, and all that are not"),
    _response_rule("publisher", "string", "PX", always_ttl=True),
    _response_rule("projector", "string", "PX", always_ttl=True),
    _rule(RESPONSE_NEWS, "stream", "MAXLEN ~ 100,000", max_entries=NEWS_MAXLEN + 5_000),
    _rule(RESPONSES_ACTIVE, "zset", "responses that have not ended"),
    _rule(DEAD_LETTERS, "stream", "MAXLEN ~ 10,000", max_entries=DEAD_LETTERS_MAXLEN + 500),
    KeyRule(
        re.compile(re.escape(f"{RESPONSES_PREFIX}:thread:") + "[0-9a-f]{64}:responses\\Z"),
        "zset",
        True,
        "the newest 1,000",
        THREAD_RESPONSES_KEPT,
    ),
    KeyRule(re.compile(re.escape(f"{PREFIX}:idempotency:") + "[0-9a-f]{64}\\Z"), "hash", True, "TTL of a day"),
)


def rule_for(key: str) -> KeyRule | None:
    """The rule that a key falls under; None = a key that nobody declared."""
    return next((rule for rule in RULES if rule.pattern.match(key)), None)


def is_dockets(key: str) -> bool:
    """A key of the dispatcher's library, which bounds its own."""
    return key.startswith((f"{DOCKET}:", "docket:"))
