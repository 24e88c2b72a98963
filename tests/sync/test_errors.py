"""The closed union of codes, and the mapping of everything else into it."""

from __future__ import annotations

import pickle

import pytest

from cody.sync.errors import CODES, RETRYABLE, SyncError, SyncErrorCode, is_sync_error_code, normalise

CONTRACT = """
source_not_found source_not_collecting source_invalid chunk_conflict chunk_index_gap checksum_mismatch manifest_invalid
job_not_found job_cancelled job_cancelled_replaced backend_unavailable lease_lost verification_failed timeout
"""


def test_the_codes_are_those_of_the_contract() -> None:
    assert set(CONTRACT.split()) == CODES


def test_only_a_backend_that_is_away_is_worth_another_try() -> None:
    assert {"backend_unavailable"} == RETRYABLE
    assert {code for code in CODES if SyncError(code, "x").retryable} == RETRYABLE


@pytest.mark.parametrize("value", ["", "nonsense", "TIMEOUT", None, 7, ["timeout"], b"timeout"])
def test_the_guard_takes_nothing_else(value: object) -> None:
    assert not is_sync_error_code(value)
    assert all(is_sync_error_code(code) for code in CODES)


@pytest.mark.parametrize("failure", [ConnectionError("refused"), TimeoutError(), OSError(5, "disk"), KeyError("x")])
def test_a_backends_own_failure_is_backend_unavailable_and_says_what_it_was(failure: Exception) -> None:
    error = normalise(failure)
    assert error.code == "backend_unavailable"
    assert type(failure).__name__ in error.message


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_canonical_error_stays_what_it_is(code: SyncErrorCode) -> None:
    error = SyncError(code, "why")
    assert normalise(error) is error
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.message, str(again)) == (code, "why", f"{code}: why")
