"""Where the servers that `cody run` starts may work: all folders that it was ever given, kept in the state folder.

A server that is started for fewer folders than the one before it would refuse, and so end, the runs that wait in the others.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

FILE_NAME = "server.roots.json"


class KnownRoots(BaseModel):
    """`pid`: of the server that was started with them last.

    `asleep`: why a look at runs starts none. It was stopped while it had runs to work on; or a person started another
    by hand since, whose folders nobody knows.
    """

    pid: int | None = None
    roots: tuple[Path, ...] = ()
    asleep: Literal["stopped", "by hand"] | None = None


def read_roots(state_dir: Path) -> KnownRoots:
    """What was kept; nothing when there is no file, or none that can be understood."""
    try:
        return KnownRoots.model_validate_json((state_dir / FILE_NAME).read_bytes())
    except (OSError, ValidationError):
        return KnownRoots()


def keep_roots(state_dir: Path, known: KnownRoots) -> None:
    """In one step, for this user only. Raises OSError."""
    draft = state_dir / f".{FILE_NAME}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(known.model_dump_json().encode() + b"\n")
    draft.replace(state_dir / FILE_NAME)


def fall_asleep(state_dir: Path, why: Literal["stopped", "by hand"]) -> None:
    """From now on only `cody run` and `cody serve` start a server. Raises OSError."""
    keep_roots(state_dir, read_roots(state_dir).model_copy(update={"asleep": why}))


def usable(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Those that are still there, without those that lie in others: a server refuses to start with one that is gone."""
    there = [root for root in dict.fromkeys(roots) if root.is_dir()]
    return tuple(root for root in there if not any(root != other and root.is_relative_to(other) for other in there))
