"""The rules of a sync: limits, what a seal must prove, back-off."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.sync.contracts import Chunk, Manifest
from cody.sync.errors import SyncError
from cody.sync.policy import (
    MAX_COUNT,
    ManifestBuilder,
    Policy,
    checksum_fault,
    checksum_of,
    chunk_fault,
    counts_fault,
    id_fault,
    parse_manifest,
    record_fault,
    retry_delay_s,
)

payloads = st.lists(st.binary(max_size=40), max_size=8)


def chunks_of(parts: list[bytes]) -> list[Chunk]:
    return [
        Chunk(index=index, payload=part, message_count=index % 3, byte_size=len(part))
        for index, part in enumerate(parts)
    ]


def built(chunks: list[Chunk]) -> ManifestBuilder:
    builder = ManifestBuilder()
    assert list(builder.through(chunks)) == chunks
    return builder


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 10), st.floats(0.01, 1000))
def test_back_off_is_full_jitter_under_a_doubling_cap(failures: int, draw: float, base: float, cap: float) -> None:
    policy = Policy(retry_base_s=base, retry_cap_s=cap)
    delay = retry_delay_s(failures, policy, lambda: draw)
    ceiling = retry_delay_s(failures, policy, lambda: 1.0)
    assert delay == pytest.approx(draw * ceiling)
    assert ceiling <= cap
    assert ceiling <= retry_delay_s(failures + 1, policy, lambda: 1.0)
    assert retry_delay_s(1, policy, lambda: 1.0) == min(base, cap)
    if failures > 1 and ceiling < cap:
        assert ceiling == pytest.approx(2 * retry_delay_s(failures - 1, policy, lambda: 1.0))


@given(payloads)
def test_the_checksum_is_sha256_over_the_bytes_wherever_they_are_cut(parts: list[bytes]) -> None:
    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    assert checksum_of(parts) == whole == built(chunks_of(parts)).checksum


@given(payloads)
def test_a_manifest_counts_what_went_by(parts: list[bytes]) -> None:
    chunks = chunks_of(parts)
    assert built(chunks).manifest == Manifest(
        total_chunks=len(parts),
        message_count=sum(chunk.message_count for chunk in chunks),
        byte_size=sum(map(len, parts)),
    )


def test_a_manifest_is_not_built_over_a_gap() -> None:
    builder = ManifestBuilder()
    with pytest.raises(SyncError, match="chunk_index_gap"):
        builder.add(Chunk(index=1, payload=b"", message_count=0, byte_size=0))


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(0, 1000), st.integers(0, 1000))
def test_exactly_indices_without_a_gap_are_sealed(indices: set[int], messages: int, size: int) -> None:
    collected = Manifest(total_chunks=len(indices), message_count=messages, byte_size=size)
    fault = counts_fault("s", collected, max(indices), collected, messages)
    if indices == set(range(len(indices))):
        assert fault is None
    else:
        assert fault is not None
        assert fault.code == "chunk_index_gap"


counts = st.builds(
    Manifest, total_chunks=st.integers(1, 3), message_count=st.integers(0, 2), byte_size=st.integers(0, 2)
)


@given(counts, counts, st.none() | st.integers(0, 2))
def test_exactly_the_announced_counts_are_sealed(
    collected: Manifest, announced: Manifest, messages: int | None
) -> None:
    fault = counts_fault("s", collected, collected.total_chunks - 1, announced, messages)
    right = collected == announced and messages in (None, collected.message_count)
    assert (None if fault is None else fault.code) == (None if right else "manifest_invalid")


def test_nothing_is_not_sealed() -> None:
    nothing = Manifest(total_chunks=0, message_count=0, byte_size=0)
    fault = counts_fault("s", nothing, -1, nothing, 0)
    assert fault is not None
    assert fault.code == "source_invalid"


@given(st.binary(), st.text(max_size=70))
def test_only_the_very_digits_are_the_checksum(payload: bytes, said: str) -> None:
    right = checksum_of([payload])
    assert checksum_fault("s", right, right) is None
    for wrong in (right.upper(), f" {right}", right[:-1], said):
        if wrong != right:
            fault = checksum_fault("s", wrong, right)
            assert fault is not None
            assert fault.code == "checksum_mismatch"


@given(payloads.filter(bool), st.data())
def test_a_record_that_differs_anywhere_is_not_verified(parts: list[bytes], data: st.DataObject) -> None:
    sealed = built(chunks_of(parts))
    assert record_fault("j", sealed.manifest, sealed.checksum, built(chunks_of(parts))) is None
    arrived = chunks_of(parts)
    at = data.draw(st.integers(0, len(parts) - 1))
    match data.draw(st.sampled_from(["bytes", "count", "lost", "more"])):
        case "bytes":
            other = data.draw(st.binary().filter(lambda payload: payload != parts[at]))
            arrived[at] = replace(arrived[at], payload=other, byte_size=len(other))
        case "count":
            arrived[at] = replace(arrived[at], message_count=arrived[at].message_count + 1)
        case "lost":
            arrived.pop()
        case _:
            arrived.append(Chunk(index=len(parts), payload=b"", message_count=0, byte_size=0))
    fault = record_fault("j", sealed.manifest, sealed.checksum, built(arrived))
    assert fault is not None
    assert fault.code == "verification_failed"


GOOD = Chunk(index=3, payload=b"abc", message_count=1, byte_size=3)


@pytest.mark.parametrize(
    "chunk",
    [
        replace(GOOD, index=-1),
        replace(GOOD, index=10),
        replace(GOOD, index=True),
        replace(GOOD, index=1.0),  # type: ignore[arg-type]  # what a JSON client may send
        replace(GOOD, byte_size=2),
        replace(GOOD, byte_size="3"),  # type: ignore[arg-type]
        replace(GOOD, message_count=-1),
        replace(GOOD, message_count=MAX_COUNT + 1),
        replace(GOOD, payload="abc"),  # type: ignore[arg-type]
        replace(GOOD, payload=b"too long", byte_size=8),
    ],
)
def test_a_chunk_that_cannot_be_is_refused(chunk: Chunk) -> None:
    policy = Policy(max_chunk_bytes=5, max_chunks=10)
    fault = chunk_fault(chunk, policy)
    assert fault is not None
    assert fault.code == "source_invalid"
    assert chunk_fault(GOOD, policy) is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"total_chunks": 1, "message_count": 1},
        {"total_chunks": -1, "message_count": 1, "byte_size": 1},
        {"total_chunks": "1", "message_count": 1, "byte_size": 1},
        {"total_chunks": 1.0, "message_count": 1, "byte_size": 1},
        {"total_chunks": 1, "message_count": 1, "byte_size": 1, "more": 1},
    ],
)
def test_a_manifest_that_is_none_is_invalid(value: dict[str, object]) -> None:
    with pytest.raises(SyncError, match="manifest_invalid"):
        parse_manifest(value)


def test_a_manifest_may_come_as_its_json_object() -> None:
    manifest = Manifest(total_chunks=1, message_count=2, byte_size=3)
    assert parse_manifest(manifest.model_dump()) == parse_manifest(manifest) == manifest


@pytest.mark.parametrize("value", ["", "a" * 513, "a\nb", "a\x00", 7, None])
def test_an_id_is_short_printable_text(value: object) -> None:
    fault = id_fault("conversation_id", value)
    assert fault is not None
    assert fault.code == "source_invalid"
    assert id_fault("conversation_id", "a" * 512) is None
