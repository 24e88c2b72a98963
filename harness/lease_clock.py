"""When an agent must be dead so that no other worker can have started one. Pure."""

from __future__ import annotations

NS_PER_MS = 1_000_000
RENEWALS_PER_TTL = 3
MARGIN_SHARE = 10
"""A tenth of the TTL lies between the last moment an agent may live and the moment the lease can expire."""


def deadlines(renewed_before_ns: int, *, ttl_ms: int, grace_s: float) -> tuple[int, int]:
    """(soft, hard): when the agent is asked to end, and when it is killed, unless the lease is renewed again.

    Counted from before the renewing call was sent: Redis counts its TTL from a later moment, so `hard` comes first
    whatever the call took. The grace is cut to a third of the TTL: a lease must leave time to work in.
    """
    ttl_ns = ttl_ms * NS_PER_MS
    hard = renewed_before_ns + ttl_ns - ttl_ns // MARGIN_SHARE
    return hard - min(int(grace_s * 1e9), ttl_ns // 3), hard
