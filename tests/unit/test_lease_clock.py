"""The agent is dead before its lease can expire, whatever the renewing call took."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.guard import BACKSTOP_NS
from harness.lease_clock import NS_PER_MS, deadlines


@given(st.integers(0, 2**62), st.integers(500, 600_000), st.floats(0, 600))
def test_asked_to_end_then_killed_then_the_lease_may_expire(before_ns: int, ttl_ms: int, grace_s: float) -> None:
    soft, hard = deadlines(before_ns, ttl_ms=ttl_ms, grace_s=grace_s)
    expires_at_the_earliest = before_ns + ttl_ms * NS_PER_MS
    assert before_ns < soft <= hard < expires_at_the_earliest
    # The margin is for a guard that is scheduled late; and most of the lease is there to be worked in.
    assert expires_at_the_earliest - hard >= ttl_ms * NS_PER_MS // 10
    assert soft - before_ns >= ttl_ms * NS_PER_MS // 2


def test_a_short_grace_is_given_whole() -> None:
    soft, hard = deadlines(0, ttl_ms=15_000, grace_s=2)
    assert hard - soft == 2_000 * NS_PER_MS


@given(st.integers(1_750, 600_000))
def test_the_kernels_timer_for_a_frozen_guard_is_within_the_lease_too(ttl_ms: int) -> None:
    _, hard = deadlines(0, ttl_ms=ttl_ms, grace_s=5)
    assert hard + BACKSTOP_NS < ttl_ms * NS_PER_MS
