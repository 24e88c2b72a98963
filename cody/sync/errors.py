"""The canonical errors of a sync: one class, a closed union of codes.

Adapters map their own failures to these (`normalise`); callers see no others. Codes are contract, messages are for
people.
"""

from __future__ import annotations

from typing import Literal, TypeGuard, get_args

SyncErrorCode = Literal[
    "source_not_found",
    "source_not_collecting",
    "source_invalid",
    "chunk_conflict",
    "chunk_index_gap",
    "checksum_mismatch",
    "manifest_invalid",
    "job_not_found",
    "job_cancelled",
    "job_cancelled_replaced",
    "backend_unavailable",
    "lease_lost",
    "verification_failed",
    "timeout",
]

CODES: frozenset[SyncErrorCode] = frozenset(get_args(SyncErrorCode))
RETRYABLE: frozenset[SyncErrorCode] = frozenset({"backend_unavailable"})
"""The same call may work later; every other code says the same tomorrow."""


class SyncError(Exception):
    """What a sync refuses or fails with; `code` is one of CODES."""

    def __init__(self, code: SyncErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """True when the same call may work later."""
        return self.code in RETRYABLE


def is_sync_error_code(value: object) -> TypeGuard[SyncErrorCode]:
    """True for a canonical code; a guard for what comes over a wire or out of a table."""
    return isinstance(value, str) and value in CODES


def normalise(failure: Exception) -> SyncError:
    """The canonical error for any failure of a backend; a SyncError is handed back as it is.

    What nobody mapped is `backend_unavailable`: it is retried within the budget, and then the job fails and says what
    it was.
    """
    if isinstance(failure, SyncError):
        return failure
    said = str(failure)
    what = f"{type(failure).__name__}: {said}" if said else type(failure).__name__
    return SyncError("backend_unavailable", f"the backend failed ({what})")
