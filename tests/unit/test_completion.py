"""When the work counts as done: the stop file and the completion pattern, and everything that must not count."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.contracts.run_config import CompletionConfig, RunConfig
from cody.errors import ConfigurationError
from harness import completion
from harness.completion import (
    EMPTY_LOG,
    LogBaseline,
    LogWatch,
    StopFound,
    StopRefused,
    baseline_of,
    check_stop_file,
    clear_stale,
    completed_line,
    take_baseline,
)
from harness.epic import Epic, locate
from harness.regular_file import ReadRange

NO_END = "it does not complete the run"
DONE = CompletionConfig(pattern="EPIC COMPLETE", scan_tail_lines=5)


@pytest.fixture
def epic(tmp_path: Path) -> Epic:
    (tmp_path / "w/.cody-harness/current-epic").mkdir(parents=True)
    return locate(RunConfig(working_dir=str(tmp_path / "w")), "current-epic")


def test_no_stop_file_is_no_completion(epic: Epic) -> None:
    assert check_stop_file(epic) is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"All done.\nmore\n", "All done."),
        (b"", None),
        (b"  \n", None),
        (b"x" * 5000, "x" * 500),
        (b"caf\xe9\n", "caf\ufffd"),
        (b"\x1b[2Jdone\x00\n", "[2Jdone"),
    ],
)
def test_a_stop_file_completes_with_its_first_line(epic: Epic, content: bytes, line: str | None) -> None:
    epic.stop_file.write_bytes(content)
    assert check_stop_file(epic) == StopFound(epic.stop_file, line)


def test_only_the_epics_own_stop_file_counts_and_only_that_is_moved_aside(epic: Epic) -> None:
    """What lies beside the epics would end the runs of all of them, and belongs to none."""
    beside = epic.harness_dir / ".stop"
    beside.write_text("done")
    assert check_stop_file(epic) is None
    assert clear_stale(epic, "run-1") is None
    assert beside.read_text() == "done"


def test_a_huge_stop_file_is_not_read_whole(epic: Epic) -> None:
    with epic.stop_file.open("wb") as file:
        file.write(b"done\n")
        file.truncate(1 << 30)
    assert check_stop_file(epic) == StopFound(epic.stop_file, "done")


def test_a_link_as_stop_file_is_refused(epic: Epic, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("done")
    epic.stop_file.symlink_to(tmp_path / "target")
    assert refusal(epic) == f"the stop file {epic.stop_file} is a symbolic link, not a regular file: " + NO_END
    epic.stop_file.unlink()
    epic.stop_file.symlink_to("dangling")
    assert "a symbolic link" in refusal(epic)


def refusal(epic: Epic) -> str:
    answer = check_stop_file(epic)
    assert isinstance(answer, StopRefused)
    return answer.reason


def test_a_fifo_as_stop_file_is_refused_without_hanging(epic: Epic) -> None:
    os.mkfifo(epic.stop_file)
    assert "is a FIFO, not a regular file" in refusal(epic)


def test_a_folder_as_stop_file_is_refused(epic: Epic) -> None:
    epic.stop_file.mkdir()
    assert "is a folder, not a regular file" in refusal(epic)


@contextmanager
def without_privilege() -> Iterator[None]:
    """Root reads and moves everything; the kernel has to see an ordinary user."""
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if as_root:
            os.seteuid(0)


@pytest.fixture
def open_epic() -> Iterator[Epic]:
    """An epic in a folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / ".cody-harness/current-epic").mkdir(parents=True)
        yield locate(RunConfig(working_dir=folder), "current-epic")


def test_a_stop_file_that_cannot_be_read_is_refused(open_epic: Epic) -> None:
    open_epic.stop_file.write_text("done")
    open_epic.stop_file.chmod(0)
    with without_privilege():
        assert "cannot be read (Permission denied)" in refusal(open_epic)


def test_a_stop_file_in_a_folder_that_was_replaced_by_a_link_is_refused(epic: Epic, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/.stop").write_text("done")
    epic.epic_dir.rmdir()
    epic.epic_dir.symlink_to(tmp_path / "outside")
    assert "its folder was replaced by a link" in refusal(epic)
    with pytest.raises(ConfigurationError, match="replaced by a link"):
        clear_stale(epic, "run-1")
    assert (tmp_path / "outside/.stop").exists()


def test_a_stale_stop_file_is_moved_aside_and_kept(epic: Epic) -> None:
    stop = epic.stop_file
    stop.write_text("old")
    assert clear_stale(epic, "run-1") == stop.with_name(".stop.stale-1")
    assert check_stop_file(epic) is None
    assert stop.with_name(".stop.stale-1").read_text() == "old"
    stop.write_text("this run")
    assert check_stop_file(epic) == StopFound(stop, "this run")
    assert clear_stale(epic, "run-2") == stop.with_name(".stop.stale-2")
    assert stop.with_name(".stop.stale-1").read_text() == "old"
    assert clear_stale(epic, "run-3") is None


def test_names_that_only_look_like_stale_ones_do_not_confuse_the_count(epic: Epic) -> None:
    for name in (".stop.stale-", ".stop.stale-x", ".stop.stale-\u00b2", ".stop.stale-7", f".stop.stale-{'9' * 200}"):
        (epic.epic_dir / name).touch()
    epic.stop_file.touch()
    assert clear_stale(epic, "run-1") == epic.epic_dir / ".stop.stale-8"


def test_stale_links_fifos_and_folders_are_moved_as_they_are(epic: Epic, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    stop = epic.stop_file
    stop.symlink_to(victim)
    moved = clear_stale(epic, "run-1")
    assert moved is not None
    assert moved.is_symlink()
    assert victim.read_text() == "precious"
    os.mkfifo(stop)
    moved = clear_stale(epic, "run-1")
    assert moved is not None
    assert moved.is_fifo()
    stop.mkdir()
    (stop / "inside").touch()
    moved = clear_stale(epic, "run-1")
    assert moved is not None
    assert (moved / "inside").exists()
    assert check_stop_file(epic) is None


def test_a_stale_stop_file_that_cannot_be_moved_ends_the_run_with_what_to_do(open_epic: Epic) -> None:
    open_epic.stop_file.write_text("old")
    open_epic.epic_dir.chmod(0o555)
    with without_privilege(), pytest.raises(ConfigurationError, match=r"run run-1: .*\.stop.*: remove it"):
        clear_stale(open_epic, "run-1")
    open_epic.epic_dir.chmod(0o755)


def over(content: bytes) -> ReadRange:
    return lambda start, max_bytes: content[start : start + max_bytes]


def found(before: str | bytes, after: str | bytes, config: CompletionConfig = DONE) -> str | None:
    old = before.encode() if isinstance(before, str) else before
    new = after.encode() if isinstance(after, str) else after
    baseline = LogBaseline.from_json(baseline_of(len(old), over(old), config).to_json())
    return completed_line(baseline, len(new), over(new), config)


def test_an_added_line_that_matches_completes() -> None:
    assert found("old\n", "old\nnow: EPIC COMPLETE!\n") == "now: EPIC COMPLETE!"
    assert found("", "EPIC COMPLETE") == "EPIC COMPLETE"
    assert found("old\n", "old\nEPIC COMPLETE\r\n") == "EPIC COMPLETE"


def test_a_line_of_an_earlier_run_does_not_complete() -> None:
    old = "EPIC COMPLETE\n"
    assert found(old, old) is None
    assert found(old, old + "just more work\n") is None


def test_the_same_line_written_again_completes() -> None:
    assert found("EPIC COMPLETE\n", "EPIC COMPLETE\nEPIC COMPLETE\n") == "EPIC COMPLETE"


def test_an_unfinished_old_line_does_not_complete_when_it_is_ended() -> None:
    assert found("EPIC COMPLETE", "EPIC COMPLETE\nmore\n") is None
    assert found("EPIC COMPLETE", "EPIC COMPLETE: not yet\n") is None


def test_only_the_last_lines_are_searched() -> None:
    assert found("", "EPIC COMPLETE\n" + "x\n" * 4) == "EPIC COMPLETE"
    assert found("", "EPIC COMPLETE\n" + "x\n" * 5) is None


def test_without_a_pattern_nothing_completes() -> None:
    assert found("", "EPIC COMPLETE\n", CompletionConfig()) is None


def test_a_pattern_sees_single_lines_only() -> None:
    assert found("", "EPIC\nCOMPLETE\n", CompletionConfig(pattern=r"(?s)EPIC.COMPLETE")) is None
    assert found("", "a\nb\n", CompletionConfig(pattern=r"^b$")) == "b"


@pytest.mark.parametrize(
    "after",
    [
        "new head\nold 1\nEPIC COMPLETE\nold 2\n",
        "EPIC COMPLETE\n",
        "  EPIC COMPLETE  \n",
        "old 1\nEPIC COMPLETE",
        "wholly different\n",
        "",
    ],
)
def test_a_rewrite_that_keeps_old_lines_does_not_complete(after: str) -> None:
    assert found("old 1\nEPIC COMPLETE\nold 2\n", after) is None


@pytest.mark.parametrize(
    "after",
    [
        "new head\nold 1\nEPIC COMPLETE\nEPIC COMPLETE\n",
        "rewritten\nEPIC COMPLETE: all of it\n",
        "EPIC COMPLETE\nnew\nEPIC COMPLETE\n",
    ],
)
def test_a_rewrite_that_adds_a_matching_line_completes(after: str) -> None:
    line = found("old 1\nEPIC COMPLETE\nold 2\n", after)
    assert line is not None
    assert "EPIC COMPLETE" in line


def test_a_new_line_above_the_last_lines_of_a_rewritten_log_does_not_complete() -> None:
    assert found("old\n" * 9, "EPIC COMPLETE\n" + "old\n" * 9) is None


def test_a_log_moved_to_an_archive_and_started_afresh_completes_by_a_new_line() -> None:
    assert found("old\n" * 1000, "# fresh\nEPIC COMPLETE\n") == "EPIC COMPLETE"


def test_long_lines_are_searched_at_their_start_only() -> None:
    assert found("", "EPIC COMPLETE " + "x" * 100_000 + "\n") == ("EPIC COMPLETE " + "x" * 100_000)[:500]
    assert found("", "x" * 4096 + "EPIC COMPLETE\n") is None


def test_a_line_whose_start_was_not_read_is_not_searched() -> None:
    giant = b"x" * completion.MAX_TAIL_BYTES + b" EPIC COMPLETE"
    assert found(b"", giant) is None
    assert found(b"", giant + b"\nEPIC COMPLETE\n") == "EPIC COMPLETE"


def test_invalid_utf8_is_searched_too() -> None:
    assert found(b"", b"\xff\xfe EPIC COMPLETE\n") == "\ufffd\ufffd EPIC COMPLETE"


def test_with_too_many_matching_lines_at_the_start_only_additions_count() -> None:
    old = "".join(f"EPIC COMPLETE {number}\n" for number in range(completion.MAX_KNOWN_LINES + 1))
    assert found(old, "head\n" + old + "EPIC COMPLETE now\n") is None
    assert found(old, old + "EPIC COMPLETE now\n") == "EPIC COMPLETE now"


def test_a_baseline_is_small_and_survives_json() -> None:
    old = "".join(f"EPIC COMPLETE {number}\n" for number in range(20_000)).encode()
    baseline = baseline_of(len(old), over(old), DONE)
    assert len(baseline.to_json()) < 25_000
    assert LogBaseline.from_json(baseline.to_json()) == baseline


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"size":"x","keptSha256":"","known":{},"whole":true}', "nan"]
)
def test_what_is_no_baseline_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        LogBaseline.from_json(text)


@given(st.data())
def test_no_order_and_no_part_of_the_old_lines_completes(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(["EPIC COMPLETE", "EPIC COMPLETE 2", "a", "b"]), max_size=12))
    kept = data.draw(st.permutations(lines))[: data.draw(st.integers(0, len(lines)))]
    before, after = ("".join(f"{line}\n" for line in some) for some in (lines, kept))
    if not after.startswith(before):
        assert found(before, after) is None


def test_a_huge_log_is_read_at_its_end_only() -> None:
    reads: list[int] = []

    def counted(start: int, max_bytes: int) -> bytes:
        reads.append(max_bytes)
        return b"\n" * max_bytes

    size = 1 << 40
    baseline = baseline_of(size, counted, DONE)
    assert sum(reads) <= completion.MAX_SCAN_BYTES + completion.KEPT_BYTES
    assert not baseline.whole
    reads.clear()
    assert completed_line(baseline, 2 * size, counted, DONE) is None
    assert sum(reads) <= completion.MAX_TAIL_BYTES + completion.KEPT_BYTES


def test_the_watch_reads_the_file_as_it_is(epic: Epic) -> None:
    epic.codys_log.write_text("EPIC COMPLETE of last week\n")
    watch = LogWatch(epic.codys_log, DONE, take_baseline(epic.codys_log, DONE))
    assert watch.check() is None
    with epic.codys_log.open("a") as file:
        file.write("EPIC COMPLETE\n")
    assert watch.check() == "EPIC COMPLETE"
    epic.codys_log.unlink()
    assert watch.check() is None


def test_a_log_that_is_missing_or_no_file_at_the_start_is_an_empty_one(epic: Epic, tmp_path: Path) -> None:
    assert take_baseline(epic.codys_log, DONE) == EMPTY_LOG
    os.mkfifo(epic.codys_log)
    assert take_baseline(epic.codys_log, DONE) == EMPTY_LOG
    watch = LogWatch(epic.codys_log, DONE, EMPTY_LOG)
    assert watch.check() is None
    epic.codys_log.unlink()
    (tmp_path / "elsewhere").write_text("EPIC COMPLETE\n")
    epic.codys_log.symlink_to(tmp_path / "elsewhere")
    assert watch.check() is None
    epic.codys_log.unlink()
    epic.codys_log.write_text("EPIC COMPLETE\n")
    assert watch.check() == "EPIC COMPLETE"
