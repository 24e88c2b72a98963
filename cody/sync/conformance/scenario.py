"""A scenario: one promise of the contract, and the play that would show it broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cody.sync.conformance.kit import Kit

Play = Callable[[Kit], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Played on an adapter of its own; `play` raises ContractBroken."""

    name: str
    promise: str
    needs_bench: bool
    play: Play


def public(play: Play) -> Scenario:
    """A scenario that the seven methods are enough for."""
    return _scenario(play, needs_bench=False)


def with_bench(play: Play) -> Scenario:
    """A scenario that injects faults or steps the clock: for adapters that show their bench."""
    return _scenario(play, needs_bench=True)


def _scenario(play: Play, *, needs_bench: bool) -> Scenario:
    name = getattr(play, "__name__", "")
    return Scenario(name, (play.__doc__ or name).splitlines()[0], needs_bench, play)
