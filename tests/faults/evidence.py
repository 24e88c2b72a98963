"""What the agents' own record and the stream say about a run: lifetimes, overlaps, lost and doubled marks. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Mark = tuple[int, int, int]
"""fence, turn, number"""
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One agent from its first to its last own line; it may have lived up to a beat (5 ms) longer."""

    fence: int
    turn: int
    pid: int
    begin_ns: int
    last_ns: int


def lifetimes(evidence: Path) -> list[Lifetime]:
    """All agents of a run in the order of their begin; a line that a kill cut off is left out."""
    seen: dict[tuple[int, int, int], list[int]] = {}
    text = evidence.read_text(encoding="utf-8") if evidence.exists() else ""
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        seen.setdefault((one["fence"], one["turn"], one["pid"]), []).append(one["ns"])
    made = [Lifetime(*who, min(instants), max(instants)) for who, instants in seen.items()]
    return sorted(made, key=lambda life: life.begin_ns)


def overlap_ms(lives: Sequence[Lifetime]) -> float:
    """How long two agents lived at the same time, at the most; 0 when no two ever did."""
    worst = 0
    for place, one in enumerate(lives):
        for other in lives[place + 1 :]:
            worst = max(worst, min(one.last_ns, other.last_ns) - max(one.begin_ns, other.begin_ns))
    return worst / NS_PER_MS


def marks(events: Iterable[Event]) -> list[Mark]:
    """The agent's numbered sentinels in the order of the stream."""
    return [
        (event["data"]["fence"], event["data"]["turn"], event["data"]["n"])
        for event in events
        if event["type"] == "custom" and event["name"] == "mark"
    ]


def lost(accepted: Iterable[Mark], kept: Sequence[Mark]) -> int:
    """Marks that a reader was given and that are not in the stream, and holes between marks of one agent."""
    have = set(kept)
    missing = set(accepted) - have
    last: dict[tuple[int, int], int] = {}
    for fence, turn, number in have:
        last[fence, turn] = max(number, last.get((fence, turn), 0))
    for (fence, turn), top in last.items():
        missing |= {(fence, turn, number) for number in range(top)} - have
    return len(missing)


def doubled(found: Sequence[Mark]) -> int:
    """Marks that are there more than once."""
    return sum(count - 1 for count in Counter(found).values())


def gaps(events: Sequence[Event]) -> int:
    """Breaks in the sequence numbers, which begin at 1."""
    return sum(event["seq"] != before for before, event in enumerate(events, start=1))
