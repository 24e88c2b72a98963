"""The epic folder: where it is, and what its files say. Nothing here writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cody.contracts.run_config import RunConfig
from cody.errors import InvalidRequest
from harness.regular_file import opened, text_of_head, text_of_tail, why_unreadable

DEFAULT_EPIC = "current-epic"
CODYS_LOG = "codys-log.md"
DECISION_LOG = "decision-log.md"
QUESTIONS = "user-feedback-questions.md"
MISSION = "prompt.md"
STOP_FILE = ".stop"
LAST_PROMPT = ".last-prompt.md"
"""Where the assembled prompt is saved; hidden, so that it is no reference guide of the next one."""

MAX_FILE_BYTES = 64 * 1024
"""Of one file: some 16,000 tokens, more than a state that is read each turn should take."""
MAX_GUIDES_BYTES = 512 * 1024
MAX_GUIDES = 200


@dataclass(frozen=True, slots=True)
class Epic:
    """Where everything of one epic is; absolute paths with all links resolved."""

    working_dir: Path
    harness_dir: Path
    epic_dir: Path
    codys_log: Path
    decision_log: Path
    questions: Path
    prompt_md: Path
    stop_file: Path
    """Of this epic alone: a run on another one is not ended by it."""


@dataclass(frozen=True, slots=True)
class FileText:
    """A file as it goes into the prompt. `name` is its path relative to workingDir."""

    name: str
    text: str
    note: str | None = None
    """What is missing from `text`, and why; None = it is whole."""


@dataclass(frozen=True, slots=True)
class EpicText:
    """What the epic's files say, each bounded."""

    mission: FileText | None
    """prompt.md; None where there is none."""
    codys_log: FileText
    decision_log: FileText
    questions: FileText
    guides: tuple[FileText, ...]
    """Every other visible *.md of the epic, by name."""
    guides_note: str | None = None
    """Which guides were left out; None = none."""


def locate(config: RunConfig, epic_id: str) -> Epic:
    """The epic of a run: `<harness>/<epic_id>` where that is a folder, else `<harness>/current-epic`.

    Raises InvalidRequest, whose details name the field, when workingDir is not an existing absolute folder, harnessDir
    leaves it, there is no epic, or the epic is a link that leads out of the harness folder.
    """
    working_dir = resolve_working_dir(config.working_dir)
    harness_dir = resolve_harness_dir(working_dir, config.harness_dir)
    return _paths(working_dir, harness_dir, _epic_dir(working_dir, harness_dir, epic_id))


def stands_in(epic: Epic, epic_id: str) -> str | None:
    """What to tell people when there is no folder of that name and the default epic is used instead; None = there is one."""
    if _is_folder(epic.harness_dir / epic_id):
        return None
    return f"there is no folder {epic_id!r} in {epic.harness_dir}: the epic is {epic.epic_dir.name}"


def resolve_working_dir(path: str) -> Path:
    """The real path of an existing folder; raises InvalidRequest (config.workingDir) for anything else."""
    details = {"field": "config.workingDir"}
    if not os.path.isabs(path):
        raise InvalidRequest(f"workingDir must be an absolute path, not {path!r}", details=details)
    resolved = _real(path, details)
    if not _is_folder(resolved):
        raise InvalidRequest(f"workingDir {path!r} is not an existing folder that Cody can enter", details=details)
    return resolved


def resolve_harness_dir(working_dir: Path, harness_dir: str) -> Path:
    """The real path of the harness folder, which need not exist; raises InvalidRequest when it is not inside."""
    details = {"field": "config.harnessDir"}
    if os.path.isabs(harness_dir):
        raise InvalidRequest(f"harnessDir must be relative to workingDir, not {harness_dir!r}", details=details)
    resolved = _real(str(working_dir / harness_dir), details)
    if resolved == working_dir or not resolved.is_relative_to(working_dir):
        raise InvalidRequest(f"harnessDir {harness_dir!r} is not a folder inside {working_dir}", details=details)
    return resolved


def _epic_dir(working_dir: Path, harness_dir: Path, epic_id: str) -> Path:
    details = {"field": "epicId"}
    if epic_id in {"", ".", ".."} or "/" in epic_id:
        raise InvalidRequest(f"epicId {epic_id!r} is not one path segment", details=details)
    for name in (epic_id, DEFAULT_EPIC):
        candidate = harness_dir / name
        if not _is_folder(candidate):
            continue
        resolved = _real(str(candidate), details)
        if resolved == harness_dir or not resolved.is_relative_to(harness_dir):
            raise InvalidRequest(f"the epic folder {candidate} leads out of {harness_dir}: refused", details=details)
        return resolved
    raise InvalidRequest(
        f"there is no epic {epic_id!r} for workingDir {working_dir}: "
        f"no folder {' or '.join(dict.fromkeys([epic_id, DEFAULT_EPIC]))} in {harness_dir}. "
        f"`cody init` in {working_dir} makes one.",
        details=details,
    )


def _paths(working_dir: Path, harness_dir: Path, epic_dir: Path) -> Epic:
    return Epic(
        working_dir=working_dir,
        harness_dir=harness_dir,
        epic_dir=epic_dir,
        codys_log=epic_dir / CODYS_LOG,
        decision_log=harness_dir / DECISION_LOG,
        questions=harness_dir / QUESTIONS,
        prompt_md=epic_dir / MISSION,
        stop_file=epic_dir / STOP_FILE,
    )


def _real(path: str, details: Mapping[str, str]) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path!r} is not a path: {error}", details=details) from None


def _is_folder(path: Path) -> bool:
    """False also for what cannot be looked at: a name too long, a NUL byte, a parent without permission."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_in_place(folder: Path) -> bool:
    """False when `folder`, a resolved path of an Epic, has since been replaced by a link to somewhere else."""
    try:
        return Path(os.path.realpath(folder)) == folder
    except OSError:
        return False


def check_in_place(epic: Epic, config: RunConfig) -> None:
    """Raises InvalidRequest when the folders of the epic are no longer what they were when it was located.

    To be asked before each turn: what was checked at the start counts for nothing once a link stands in its place.
    """
    if not is_in_place(epic.working_dir) or os.path.realpath(config.working_dir) != str(epic.working_dir):
        raise InvalidRequest(
            f"workingDir {config.working_dir!r} leads somewhere else than when the run was taken up: refused",
            details={"field": "config.workingDir"},
        )
    for folder in (epic.harness_dir, epic.epic_dir):
        if not is_in_place(folder):
            raise InvalidRequest(f"{folder} was replaced by a link: refused", details={"field": "epicId"})


def read(epic: Epic) -> EpicText:
    """The epic's texts as they are now. A file that is missing or refused is empty and says so in its note.

    Raises InvalidRequest when a folder of the epic was replaced by a link since it was located.
    """
    for folder in (epic.harness_dir, epic.epic_dir):
        if not is_in_place(folder):
            raise InvalidRequest(f"{folder} was replaced by a link: refused", details={"field": "epicId"})
    guides, guides_note = _guides(epic)
    return EpicText(
        mission=_head(epic, epic.prompt_md) if os.path.lexists(epic.prompt_md) else None,
        codys_log=_tail(epic, epic.codys_log),
        decision_log=_tail(epic, epic.decision_log),
        questions=_tail(epic, epic.questions),
        guides=guides,
        guides_note=guides_note,
    )


def _guides(epic: Epic) -> tuple[tuple[FileText, ...], str | None]:
    names, total = _guide_names(epic.epic_dir)
    guides: list[FileText] = []
    left = MAX_GUIDES_BYTES
    for name in names:
        if left <= 0:
            break
        guide = _head(epic, epic.epic_dir / name, min(left, MAX_FILE_BYTES))
        left -= len(guide.text.encode())
        guides.append(guide)
    missing = total - len(guides)
    note = f"{missing} more guides are left out here, by name; they are in {_name(epic, epic.epic_dir)}"
    return tuple(guides), note if missing else None


def _guide_names(folder: Path) -> tuple[list[str], int]:
    """The first MAX_GUIDES names in order, and how many there are; a folder of a million names stays bounded."""
    first: list[str] = []
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_guide(entry.name):
                    total += 1
                    first.append(entry.name)
                    if len(first) > 2 * MAX_GUIDES:
                        first = sorted(first)[:MAX_GUIDES]
    except OSError:
        return [], 0
    return sorted(first)[:MAX_GUIDES], total


def _is_guide(name: str) -> bool:
    return name.endswith(".md") and not name.startswith(".") and name not in {CODYS_LOG, MISSION}


def _tail(epic: Epic, path: Path) -> FileText:
    """The end of a log: what is new is at its end."""
    try:
        with opened(path) as file:
            start = max(0, file.size - MAX_FILE_BYTES)
            text = text_of_tail(file.read(start, MAX_FILE_BYTES), cut=start > 0)
            return FileText(_name(epic, path), text, _left_out("first", start, file.size, path) if start else None)
    except OSError as error:
        return _missing(epic, path, error)


def _head(epic: Epic, path: Path, max_bytes: int = MAX_FILE_BYTES) -> FileText:
    """The start of a guide: what it is about is at its start."""
    try:
        with opened(path) as file:
            rest = max(0, file.size - max_bytes)
            text = text_of_head(file.read(0, max_bytes), cut=rest > 0)
            return FileText(_name(epic, path), text, _left_out("last", rest, file.size, path) if rest else None)
    except OSError as error:
        return _missing(epic, path, error)


def _left_out(which: str, count: int, size: int, path: Path) -> str:
    return f"the {which} {count:,} of {size:,} bytes are left out here; the whole file is {path}"


def _missing(epic: Epic, path: Path, error: OSError) -> FileText:
    note = "does not exist yet" if isinstance(error, FileNotFoundError) else why_unreadable(error)
    return FileText(_name(epic, path), "", note)


def _name(epic: Epic, path: Path) -> str:
    return path.relative_to(epic.working_dir).as_posix()
