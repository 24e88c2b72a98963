"""The two logs of an epic as they are now, bounded and without secrets."""

from __future__ import annotations

from typing import get_args

from cody.contracts.epic_log import EpicLog, LogName
from cody.errors import NotFound
from cody.redaction import Redactor
from harness.epic import Epic
from harness.regular_file import opened, text_of_tail, why_unreadable

MAX_TEXT_BYTES = 1 << 20
"""Of a log: a year of one entry an hour. A larger one is shown from its end."""
OVERLAP_BYTES = 64 << 10
"""Read before what is shown, so that a secret which the cut goes through is found whole."""


def log_name(given: str) -> LogName:
    """The name, when it is one of the two; raises NotFound."""
    for name in get_args(LogName):
        if given == name:
            found: LogName = name
            return found
    raise NotFound(f"there is no such log: the logs are {' and '.join(get_args(LogName))}")


def read_log(run_id: str, where: Epic, name: LogName, redactor: Redactor) -> EpicLog:
    """The log as it is now; raises NotFound when it is not there, or is no regular file. Blocks."""
    path = where.codys_log if name == "codys-log.md" else where.decision_log
    try:
        with opened(path) as file:
            size, begin = file.size, max(0, file.size - MAX_TEXT_BYTES - OVERLAP_BYTES)
            data = file.read(begin, size - begin)
    except OSError as error:
        why = "does not exist yet" if isinstance(error, FileNotFoundError) else why_unreadable(error)
        raise NotFound(f"{path} {why}") from None
    text, omitted = shown(data, begin, redactor)
    return EpicLog(run_id=run_id, name=name, path=str(path), text=text, size=size, omitted_bytes=omitted)


def shown(data: bytes, begin: int, redactor: Redactor, max_bytes: int = MAX_TEXT_BYTES) -> tuple[str, int]:
    """What is shown of the file's end `data`, which starts at byte `begin`, and how many bytes of the file are not. Pure."""
    clean = redactor.clean(data)
    kept = clean[-max_bytes:]
    cut = begin > 0 or len(kept) < len(clean)
    text = text_of_tail(kept, cut=cut)
    return text, max(0, begin + len(clean) - len(text.encode())) if cut else 0
