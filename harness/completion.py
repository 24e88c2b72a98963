"""Whether the work is done: the stop file, and the completion pattern in what a run wrote to its log.

What the agent prints is never looked at here: only a file that it created, or a line that it added, completes a run.

When a run starts, and only then: `clear_stale`, then `take_baseline`, whose JSON is kept with the run. A server that
takes a run over reads that JSON instead, so that a stop file or a line left before the take-over still counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from cody.contracts.run_config import CompletionConfig
from cody.errors import ConfigurationError
from cody.line_pattern import LinePattern
from harness.epic import STOP_FILE, Epic, is_in_place
from harness.regular_file import NotRegular, ReadRange, opened, text_of_tail, why_unreadable

log = structlog.get_logger(__name__)

MAX_LINE_CHARS = 500
"""Of the line that is reported."""
MAX_LINE_BYTES = 4096
"""Of each line that is searched; what follows in the line is not looked at."""
MAX_TAIL_BYTES = 4 * 1024 * 1024
"""Read at most, to find the last lines: 10,000 lines of 400 bytes."""
MAX_SCAN_BYTES = 16 * 1024 * 1024
"""Read at most, where all lines of the log matter."""
MAX_KNOWN_LINES = 500
KEPT_BYTES = 64 * 1024
"""Of the log's end at the run's start, to tell an addition from a rewrite."""


@dataclass(frozen=True, slots=True)
class StopFound:
    """A stop file that completes the run. `line` is its first line, None when that is empty."""

    path: Path
    line: str | None


@dataclass(frozen=True, slots=True)
class StopRefused:
    """Something stands where the stop file would be, and does not complete the run; `reason` is a whole sentence."""

    path: Path
    reason: str


def clear_stale(epic: Epic, run_id: str) -> Path | None:
    """Move what stands at the stop file's place aside, to `.stop.stale-<n>` beside it; gives the new path, None = nothing.

    Links, FIFOs and folders are moved as they are. Raises ConfigurationError when something cannot be moved: it would
    complete the run before its first turn.
    """
    path = epic.stop_file
    if not is_in_place(path.parent):
        raise ConfigurationError(f"run {run_id}: {path.parent} was replaced by a link since the run was accepted")
    try:
        if not os.path.lexists(path):
            return None
        target = _free_name(path)
        os.rename(path, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"run {run_id}: {path}, left by an earlier run, cannot be moved aside ({error.strerror}): remove it"
        ) from error
    log.info("run.stale_stop_file_moved", run_id=run_id, path=str(path), moved_to=str(target))
    return target


def _free_name(path: Path) -> Path:
    prefix = f"{STOP_FILE}.stale-"
    with os.scandir(path.parent) as entries:
        numbers = [entry.name.removeprefix(prefix) for entry in entries if entry.name.startswith(prefix)]
    # Bounded digits: int() of a name made of 5,000 of them raises.
    used = [int(number) for number in numbers if number.isascii() and number.isdecimal() and len(number) < 10]
    return path.with_name(f"{prefix}{max(used, default=0) + 1}")


def check_stop_file(epic: Epic) -> StopFound | StopRefused | None:
    """The stop file of this run, if there is one."""
    path = epic.stop_file
    if not os.path.lexists(path):
        return None
    if not is_in_place(path.parent):
        return StopRefused(path, f"the stop file {path} is not inside the epic: its folder was replaced by a link")
    try:
        with opened(path) as file:
            return StopFound(path, _first_line(file.read(0, MAX_LINE_BYTES)))
    except FileNotFoundError:
        return None
    except OSError as error:
        return StopRefused(path, f"the stop file {path} {why_unreadable(error)}: it does not complete the run")


def _first_line(data: bytes) -> str | None:
    lines = text_of_tail(data, cut=False).splitlines()
    return _shown(lines[0]) if lines else None


def _shown(line: str) -> str | None:
    clean = "".join(sign if sign.isprintable() else " " for sign in line[:MAX_LINE_CHARS]).strip()
    return clean or None


@dataclass(frozen=True, slots=True)
class LogBaseline:
    """codys-log.md as it was when the run started, in a bounded form (JSON below 25 KB)."""

    size: int
    kept_sha256: str
    """Of the last KEPT_BYTES before `size`: while they are the same, the log was only added to."""
    known: Mapping[str, int]
    """The lines that matched the pattern already: their hash, and how often each was there."""
    whole: bool
    """`known` covers all of the log. False (a log above MAX_SCAN_BYTES): after a rewrite no line counts as new."""

    def to_json(self) -> str:
        return json.dumps(
            {"size": self.size, "keptSha256": self.kept_sha256, "known": dict(self.known), "whole": self.whole},
            sort_keys=True,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> LogBaseline:
        """The inverse of `to_json`; raises ValueError for anything else."""
        try:
            data: dict[str, Any] = json.loads(text)
            known = {str(line): int(count) for line, count in data["known"].items()}
            return cls(int(data["size"]), str(data["keptSha256"]), known, bool(data["whole"]))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a baseline of codys-log.md: {error!r}") from None


EMPTY_LOG = LogBaseline(size=0, kept_sha256=hashlib.sha256(b"").hexdigest(), known={}, whole=True)


def take_baseline(path: Path, completion: CompletionConfig) -> LogBaseline:
    """The log as it is now; a missing log, or one that is no regular file, is an empty one.

    Raises OSError when the log is there and cannot be read: without it, old lines would complete the run.
    """
    try:
        with opened(path) as file:
            return baseline_of(file.size, file.read, completion)
    except (FileNotFoundError, NotRegular):
        return EMPTY_LOG


def baseline_of(size: int, read: ReadRange, completion: CompletionConfig) -> LogBaseline:
    """The baseline of a log of `size` bytes; pure but for `read`."""
    known: Counter[str] = Counter()
    if completion.pattern is not None:
        lines = _whole_lines(read, max(0, size - MAX_SCAN_BYTES), 0, size)
        known.update(_hash(text) for _, text in _matching(lines, LinePattern(completion.pattern)))
    return LogBaseline(
        size=size,
        kept_sha256=_kept_sha256(read, size),
        known=dict(known.most_common(MAX_KNOWN_LINES)),
        whole=size <= MAX_SCAN_BYTES and len(known) <= MAX_KNOWN_LINES,
    )


@dataclass(frozen=True, slots=True)
class LogWatch:
    """Searches what a run wrote to codys-log.md for the completion pattern."""

    path: Path
    completion: CompletionConfig
    baseline: LogBaseline

    def check(self) -> str | None:
        """The newest line that matches, at most MAX_LINE_CHARS of it; None: nothing matches, or there is no log."""
        if self.completion.pattern is None:
            return None
        try:
            with opened(self.path) as file:
                return completed_line(self.baseline, file.size, file.read, self.completion)
        except OSError:
            return None


def completed_line(baseline: LogBaseline, size: int, read: ReadRange, completion: CompletionConfig) -> str | None:
    """The newest line of a log of `size` bytes that matches the pattern, is among its last lines, and is new.

    New is, in a log that was only added to, what stands behind the baseline's end (of a line that was unfinished then,
    the part that was added). In a log that was rewritten or shortened it is a line that matches more often in the log
    now than it did at the start.
    """
    if completion.pattern is None:
        return None
    pattern = LinePattern(completion.pattern)
    if size >= baseline.size and _kept_sha256(read, baseline.size) == baseline.kept_sha256:
        lines = _whole_lines(read, max(baseline.size, size - MAX_TAIL_BYTES), baseline.size, size)
        found = list(_matching(lines[-completion.scan_tail_lines :], pattern))
        return _shown(found[-1][1]) if found else None
    if not baseline.whole:
        return None
    lines = _whole_lines(read, max(0, size - MAX_SCAN_BYTES), 0, size)
    return _new_in_rewritten(lines, pattern, completion.scan_tail_lines, baseline.known)


def _new_in_rewritten(
    lines: Sequence[bytes], pattern: LinePattern, tail_lines: int, known: Mapping[str, int]
) -> str | None:
    found = list(_matching(lines, pattern))
    surplus = Counter(_hash(text) for _, text in found) - Counter(known)
    for index, text in reversed(found):
        if index >= len(lines) - tail_lines and surplus[_hash(text)] > 0:
            return _shown(text)
    return None


def _matching(lines: Iterable[bytes], pattern: LinePattern) -> Iterable[tuple[int, str]]:
    # A log has empty lines and lines that come again: millions, in one that is only that. A search costs more than a look.
    searched: dict[str, bool] = {}
    for index, line in enumerate(lines):
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
        found = searched.get(text)
        if found is None:
            found = searched[text] = pattern.matches(text)
        if found:
            yield index, text


def _whole_lines(read: ReadRange, start: int, begin: int, end: int) -> list[bytes]:
    """The lines from `start` to `end`; when `start` is behind `begin`, a first line that is cut there is left out."""
    data = read(start, end - start)
    lines = data.split(b"\n")
    if start > begin:
        lines = lines[1:]
    return lines[:-1] if lines and not lines[-1] else lines


def _kept_sha256(read: ReadRange, size: int) -> str:
    start = max(0, size - KEPT_BYTES)
    return hashlib.sha256(read(start, size - start)).hexdigest()


def _hash(text: str) -> str:
    """Of a line without the space around it: indenting a line again does not make it new."""
    return hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=8).hexdigest()
