"""When a guarded tree is asked to end and when it is killed: the pure half of the guard."""

from __future__ import annotations

SETTLE_NS = 100_000_000  # codex ends its own children just before its exit: those are no leftovers


class Ladder:
    """Causes and deadlines in, orders out. Instants are nanoseconds of CLOCK_BOOTTIME and are passed in.

    "wait" until there is a cause: a stop, the soft deadline, or descendants that outlive the agent. Then "term" until
    the grace of that cause is over, then "kill". The hard deadline means "kill" whatever else is going on.
    """

    def __init__(self, grace_ns: int) -> None:
        self.grace_ns = grace_ns
        self.cause = ""
        self._soft: int | None = None
        self._hard: int | None = None
        self._kill_at: int | None = None
        self._settled_at: int | None = None

    def deadline(self, soft: int, hard: int) -> None:
        """Replaces the deadline. An end under way goes on, and is still bounded by the new hard one."""
        self._soft, self._hard = soft, hard

    def stop(self, cause: str, now: int, grace_ns: int | None = None) -> None:
        """The first cause stands; another stop can only bring the kill forward."""
        at = now + (self.grace_ns if grace_ns is None else grace_ns)
        self.cause = self.cause or cause
        self._kill_at = at if self._kill_at is None else min(at, self._kill_at)

    def agent_exited(self, now: int) -> None:
        self._settled_at = now + SETTLE_NS

    def settled(self, now: int) -> bool:
        """Whether what still lives has outlived the agent by more than an orderly end takes."""
        return self._settled_at is not None and now >= self._settled_at

    def order(self, now: int) -> str:
        """What to do at this instant: "wait", "term" or "kill"."""
        if not self.cause and self._soft is not None and now >= self._soft:
            self.cause, self._kill_at = "deadline", self._hard
        if not self.cause and self.settled(now):
            self.stop("exited", now)
        kill_at = _earliest(self._kill_at, self._hard)
        if kill_at is not None and now >= kill_at:
            self.cause = self.cause or "deadline"
            return "kill"
        return "term" if self.cause else "wait"

    def next_instant(self, now: int) -> int | None:
        """When `order` or `settled` can next change by time alone; None if never."""
        return _earliest(
            None if self.settled(now) else self._settled_at,
            None if self.cause else self._soft,
            self._kill_at,
            self._hard,
        )


def _earliest(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)
