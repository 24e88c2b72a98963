"""Lines out of chunks, and the sample of them that becomes events."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.contracts.run_events import (
    OUTPUT_EVENTS_PER_SECOND,
    OUTPUT_TEXT_MAX_BYTES,
    OutputDropped,
    RunEventBody,
    SubprocessOutput,
)
from harness.output import Line, LineSplitter, OutputThrottle

MEBIBYTE = 1024 * 1024


def split(splitter: LineSplitter, data: bytes, cuts: list[int]) -> list[Line]:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    fed = [line for a, b in pairwise(places) for line in splitter.feed(data[a:b])]
    return fed + splitter.flush()


def naive_split(data: bytes, max_line_bytes: int, kept_bytes: int) -> list[Line]:
    lines, offset = [], 0
    for raw in data.split(b"\n"):
        if offset < len(data) and len(raw) > max_line_bytes:
            lines.append(Line(raw[:kept_bytes], offset, truncated=True))
        elif offset < len(data):
            lines.append(Line(raw.removesuffix(b"\r"), offset))
        offset += len(raw) + 1
    return lines


pieces_of_output = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"\xff", b"long line"]), max_size=40)
cut_places = st.lists(st.integers(0, 200), max_size=20)


@given(pieces_of_output.map(b"".join), cut_places)
def test_lines_are_those_of_a_naive_split_however_the_chunks_fall(data: bytes, cuts: list[int]) -> None:
    assert split(LineSplitter(), data, cuts) == naive_split(data, len(data), len(data))


@given(pieces_of_output.map(b"".join), cut_places, st.integers(1, 12), st.integers(1, 12))
def test_lines_too_long_are_cut_alike_however_the_chunks_fall(
    data: bytes, cuts: list[int], max_line_bytes: int, kept_bytes: int
) -> None:
    lines = split(LineSplitter(max_line_bytes, kept_bytes), data, cuts)
    assert lines == naive_split(data, max_line_bytes, min(kept_bytes, max_line_bytes))


def test_a_line_of_a_mebibyte_arrives_whole() -> None:
    data = b"x" * MEBIBYTE + b"\ny\n"
    assert split(LineSplitter(), data, list(range(0, len(data), 65_536))) == [
        Line(b"x" * MEBIBYTE, 0),
        Line(b"y", MEBIBYTE + 1),
    ]


def test_a_line_too_long_is_told_when_it_is_known_and_the_next_one_is_whole() -> None:
    splitter = LineSplitter(max_line_bytes=100, kept_bytes=10)
    assert splitter.feed(b"ok\n" + b"x" * 90) == [Line(b"ok", 0)]
    assert splitter.feed(b"y" * 90) == [Line(b"x" * 10, 3, truncated=True)]
    assert splitter.feed(b"z" * 1000) == []
    assert splitter.feed(b"z\nnext\n") == [Line(b"next", splitter.position - 5)]
    assert splitter.flush() == []


def test_the_whole_of_one_big_chunk_is_cut_too() -> None:
    lines = LineSplitter(max_line_bytes=100, kept_bytes=10).feed(b"a\r\n" + b"x" * 101 + b"\n" + b"y" * 100 + b"\n")
    assert lines == [Line(b"a", 0), Line(b"x" * 10, 3, truncated=True), Line(b"y" * 100, 105)]


def test_a_line_of_50_megabytes_costs_less_than_8() -> None:
    chunk = b"x" * 65_536
    splitter = LineSplitter()
    tracemalloc.start()
    try:
        lines = [line for _ in range(50_000_000 // len(chunk)) for line in splitter.feed(chunk)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(len(line.data), line.truncated) for line in lines] == [(65_536, True)]
    assert peak < 8_000_000
    assert splitter.feed(b"\nnext\n") == [Line(b"next", splitter.position - 5)]


def test_a_long_line_in_tiny_chunks_costs_no_more_than_its_size() -> None:
    splitter = LineSplitter()
    tracemalloc.start()
    try:
        for number in range(200_000):
            splitter.feed(b"%03d" % (number % 1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert [len(line.data) for line in splitter.feed(b"\n")] == [600_000]


class Reader:
    """Feeds a throttle as a turn does: sets one timer by `next_due`, and notes when what was shown."""

    def __init__(self, throttle: OutputThrottle) -> None:
        self.throttle = throttle
        self.now = 0.0
        self.fed = 0
        self.seen: list[tuple[float, RunEventBody]] = []

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.throttle.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.note(self.throttle.due(self.now))
        self.now = until

    def line(self, data: bytes) -> None:
        self.note(self.throttle.add(data, self.fed, self.now))
        self.fed += len(data) + 1

    def finish(self) -> None:
        self.note(self.throttle.finish(self.now))

    def note(self, events: list[RunEventBody]) -> None:
        self.seen += [(self.now, event) for event in events]

    @property
    def shown(self) -> list[tuple[float, str]]:
        return [(at, event.text) for at, event in self.seen if isinstance(event, SubprocessOutput)]

    @property
    def dropped(self) -> list[tuple[float, OutputDropped]]:
        return [(at, event) for at, event in self.seen if isinstance(event, OutputDropped)]


def test_the_first_line_is_shown_at_once_and_no_timer_is_left() -> None:
    reader = Reader(OutputThrottle("stdout"))
    reader.line(b"hello")
    assert reader.seen == [(0.0, SubprocessOutput(stream="stdout", text="hello"))]
    assert reader.throttle.next_due() is None


def test_lines_that_follow_are_joined_and_shown_when_the_pace_allows() -> None:
    reader = Reader(OutputThrottle("stderr"))
    for number in range(5):
        reader.line(b"line %d" % number)
    assert [text for _, text in reader.shown] == ["line 0"]
    reader.wait(0.2)
    assert [text for _, text in reader.shown] == ["line 0", "line 1\nline 2\nline 3\nline 4"]
    assert reader.throttle.next_due() is None


def test_slow_output_is_shown_line_by_line_without_delay() -> None:
    reader = Reader(OutputThrottle("stdout"))
    for number in range(30):
        reader.line(b"%d" % number)
        reader.wait(0.125)
    assert reader.shown == [(number * 0.125, str(number)) for number in range(30)]


def test_output_within_the_rate_is_shown_whole() -> None:
    reader = Reader(OutputThrottle("stdout"))
    lines = [f"{number:0149d}" for number in range(1000)]
    for line in lines:
        reader.line(line.encode())
        reader.wait(1 / 110)
    reader.wait(1.0)
    reader.finish()
    assert "\n".join(text for _, text in reader.shown).split("\n") == lines
    assert reader.dropped == []


def test_a_flood_shows_its_begin_and_its_last_words_and_tells_what_is_missing() -> None:
    reader = Reader(OutputThrottle("stdout"))
    for number in range(20_000):
        reader.line(b"%0199d" % number)
    reader.finish()
    texts = [text for _, text in reader.shown]
    assert len(texts) == OUTPUT_EVENTS_PER_SECOND
    begin = "\n".join(texts[:-1]).split("\n")
    assert begin == [f"{number:0199d}" for number in range(len(begin))]
    assert texts[-1].split("\n")[-1] == f"{19_999:0199d}"
    (told,) = [event for _, event in reader.dropped]
    assert told.log_offset == len(begin) * 200
    assert told.bytes == (20_000 - sum(text.count("\n") + 1 for text in texts)) * 200


def test_a_gap_is_told_once_a_second_while_the_flood_lasts() -> None:
    reader = Reader(OutputThrottle("stdout"))
    for _ in range(3000):
        reader.line(b"x" * 199)
        reader.wait(1 / 1024)
    times = [at for at, _ in reader.dropped]
    assert 1 <= len(times) <= 3
    assert all(later >= earlier + 1.0 for earlier, later in pairwise(times))


def test_a_gap_is_told_also_when_nothing_follows() -> None:
    reader = Reader(OutputThrottle("stdout"))
    for _ in range(500):
        reader.line(b"x" * 199)
    reader.wait(2.0)
    assert len(reader.dropped) == 1
    assert reader.throttle.next_due() is None


def test_a_long_line_is_shown_in_parts_that_cut_no_character() -> None:
    reader = Reader(OutputThrottle("stdout"))
    line = "aé漢🙂" * 500
    reader.line(line.encode())
    reader.line(b"next")
    reader.wait(1.0)
    texts = [text for _, text in reader.shown]
    assert "".join(texts) == f"{line}\nnext"
    assert all(len(text.encode()) <= OUTPUT_TEXT_MAX_BYTES for text in texts)


def test_bytes_that_are_no_text_are_replaced_and_stay_within_the_limit() -> None:
    reader = Reader(OutputThrottle("stdout"))
    reader.line(b"ok \xff\xfe\x80 \xf0\x9f end")
    reader.wait(1.0)
    reader.line(b"\xff" * 3000)
    reader.wait(2.0)
    assert reader.shown[0][1] == "ok \ufffd\ufffd\ufffd \ufffd end"
    assert "".join(text for _, text in reader.shown[1:]) == "\ufffd" * 3000
    assert all(len(text.encode()) <= OUTPUT_TEXT_MAX_BYTES for _, text in reader.shown)


def test_the_rest_of_a_cut_line_is_counted() -> None:
    reader = Reader(OutputThrottle("stdout"))
    reader.line(b"x" * 64)
    reader.throttle.drop(1000, 65, reader.now)
    reader.finish()
    assert [event for _, event in reader.dropped] == [OutputDropped(stream="stdout", bytes=1000, log_offset=65)]


def test_a_flood_of_long_lines_is_held_in_bounded_memory() -> None:
    reader = OutputThrottle("stdout")
    line = b"x" * MEBIBYTE
    tracemalloc.start()
    try:
        for number in range(20):
            reader.add(line, number * len(line), 0.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000


@pytest.mark.parametrize("text_max_bytes", [16, 64, OUTPUT_TEXT_MAX_BYTES])
@given(
    steps=st.lists(
        st.tuples(
            st.text(st.sampled_from("aé漢🙂 "), max_size=40).map(str.encode)
            | st.integers(0, 60).map(lambda n: b"\xff" * n),
            st.sampled_from([0.0, 0.0, 0.0, 1 / 64, 1 / 8, 0.5, 2.0]),
        ),
        max_size=120,
    ),
    repeats=st.integers(1, 60),
)
def test_every_byte_is_shown_or_counted_within_the_limits(
    text_max_bytes: int, steps: list[tuple[bytes, float]], repeats: int
) -> None:
    reader = Reader(OutputThrottle("stdout", text_max_bytes=text_max_bytes))
    for body, pause in steps:
        # Only a line's end has a z: so an event that ends with it has shown the newline behind it, too.
        reader.line(body * repeats + b"z")
        reader.wait(pause)
    reader.finish()
    shown = 0
    for _, text in reader.shown:
        assert len(text.encode()) <= text_max_bytes
        # A byte that is no text is shown as one character of three bytes.
        shown += len(text.encode()) - 2 * text.count("\ufffd") + text.endswith("z")
    assert shown + sum(event.bytes for _, event in reader.dropped) == reader.fed
    times = [at for at, _ in reader.shown]
    assert all(b >= a + 1.0 for a, b in zip(times, times[OUTPUT_EVENTS_PER_SECOND:], strict=False))
    assert reader.throttle.next_due() is None
