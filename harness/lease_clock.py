"""When an agent must be dead so that no other worker can have started one. Pure."""

from __future__ import annotations

NS_PER_MS = 1_000_000
RENEWALS_PER_TTL = 3
MARGIN_SHARE = 10
"""A tenth of the TTL lies between the last moment an agent may live and the moment the lease can expire."""
LEAST_MARGIN_NS = 350 * NS_PER_MS
"""For the kernel's timer that kills a frozen guard 250 ms after the agent's time is over; short leases get a fifth."""


def deadlines(renewed_before_ns: int, *, ttl_ms: int, grace_s: float) -> tuple[int, int]:
    """(soft, hard): when the agent is asked to end, and when it is killed, unless the lease is renewed again.

    Counted from before the renewing call was sent: Redis counts its TTL from a later moment, so `hard` comes first
    whatever the call took. The grace is cut to a third of the TTL: a lease must leave time to work in.
    """
    ttl_ns = ttl_ms * NS_PER_MS
    life_ns = ttl_ns - max(ttl_ns // MARGIN_SHARE, min(LEAST_MARGIN_NS, ttl_ns // 5))
    end_ns = min(int(grace_s * 1e9), ttl_ns // 3, life_ns - ttl_ns // 2)
    return renewed_before_ns + life_ns - end_ns, renewed_before_ns + life_ns
