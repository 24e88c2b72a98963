"""The raw log: every byte, and where each stream's bytes are in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.contracts.run_events import Stream
from harness.turn_log import TurnLog

CHUNKS = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=40)), max_size=60)


@given(CHUNKS)
def test_it_holds_all_bytes_in_their_order_and_finds_each(
    chunks: list[tuple[Stream, bytes]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = TurnLog(Path(folder) / "output.log")
        sent: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        for stream, chunk in chunks:
            log.append(stream, chunk)
            sent[stream] += chunk
        raw = log.path.read_bytes()
        assert raw == b"".join(chunk for _, chunk in chunks)
        assert log.size == len(raw)
        for stream, whole in sent.items():
            for offset in range(len(whole)):
                at = log.offset_of(stream, offset)
                assert raw[at : at + 1] == whole[offset : offset + 1]
        log.close()
        log.close()


def test_a_full_disk_is_counted_and_stops_nothing() -> None:
    log = TurnLog(Path("/dev/full"))
    log.append("stdout", b"x" * 1_000)
    log.append("stderr", b"y" * 10)
    assert (log.lost_bytes, log.size) == (1_010, 0)
    log.close()


def test_it_does_not_write_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep")
    (tmp_path / "output.log").symlink_to(target)
    with pytest.raises(OSError, match=r"output\.log"):
        TurnLog(tmp_path / "output.log")
    assert target.read_text() == "keep"
    assert os.path.islink(tmp_path / "output.log")
