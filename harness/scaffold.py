"""A new harness folder: the files of an epic, each with a word on what belongs in it. Overwrites nothing.

`python -m harness.scaffold [PATH]` is what `cody init` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cody.errors import CodyError, InvalidRequest
from harness.epic import (
    CODYS_LOG,
    DECISION_LOG,
    DEFAULT_EPIC,
    MISSION,
    QUESTIONS,
    resolve_harness_dir,
    resolve_working_dir,
)

_FILES = {
    DECISION_LOG: DECISION_LOG,
    QUESTIONS: QUESTIONS,
    f"{DEFAULT_EPIC}/{CODYS_LOG}": CODYS_LOG,
    f"{DEFAULT_EPIC}/{MISSION}": MISSION,
    f"{DEFAULT_EPIC}/01-reference.md": "01-reference.md",
    "prior-epics/.gitkeep": None,
}
"""Path in the harness folder -> template; None = an empty file."""


@dataclass(frozen=True, slots=True)
class ScaffoldReport:
    """What was made and what was there already; paths relative to the scaffolded folder."""

    created: tuple[str, ...]
    kept: tuple[str, ...]


def scaffold(path: Path, *, harness_dir: str = ".cody-harness") -> ScaffoldReport:
    """Make what is missing of the harness folder in `path`; what exists is kept as it is.

    Raises InvalidRequest when `path` is no folder, the harness folder would be outside it, or it cannot be written.
    """
    root = resolve_working_dir(os.path.abspath(path))
    harness = resolve_harness_dir(root, harness_dir)
    created: list[str] = []
    kept: list[str] = []
    for name, template in _FILES.items():
        shown = (Path(harness_dir) / name).as_posix()
        content = files("harness").joinpath("templates", template).read_bytes() if template is not None else b""
        (created if _create(harness, name, content) else kept).append(shown)
    return ScaffoldReport(tuple(created), tuple(kept))


def _create(harness: Path, name: str, content: bytes) -> bool:
    """Write a new file; False when there is something at its place already, a broken link included."""
    target = harness / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not Path(os.path.realpath(target.parent)).is_relative_to(harness):
            raise InvalidRequest(f"{target.parent} is a link that leads out of {harness}: refused")
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        if not target.parent.is_dir():
            raise InvalidRequest(f"{target.parent} is in the way: it is not a folder") from error
        return False
    except OSError as error:
        raise InvalidRequest(f"cannot create {target}: {error.strerror}") from error
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    return True


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cody init",
        description="Make the harness folder of a repository. Files that exist are kept.",
        epilog="example: cody init ~/src/shop",
    )
    parser.add_argument("path", nargs="?", type=Path, default=Path(), help="the repository (default: current folder)")
    parser.add_argument("--harness-dir", default=".cody-harness", help="inside the repository (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help='print {"path", "harnessDir", "created", "kept"} instead')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 and what was made, or 2 and one plain sentence on stderr."""
    arguments = _arguments(argv)
    try:
        report = scaffold(arguments.path.expanduser(), harness_dir=arguments.harness_dir)
    except CodyError as error:
        print(f"cody init: {error.message}", file=sys.stderr)
        return 2
    where = str(arguments.path.expanduser().absolute())
    if arguments.json:
        answer = {"path": where, "harnessDir": arguments.harness_dir, "created": report.created, "kept": report.kept}
        print(json.dumps(answer))
        return 0
    for name in report.created:
        print(f"created  {name}")
    for name in report.kept:
        print(f"kept     {name}")
    print(f"\nNext: say what is to be done in {arguments.harness_dir}/{DEFAULT_EPIC}/{MISSION}")
    print("Then look at what the agent will be told (`cody prompt`), and start (`cody run`).")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
