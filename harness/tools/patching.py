"""Applying a patch to the workspace: all of it is worked out first, then each file is put in place at once. Blocks."""

from __future__ import annotations

from dataclasses import dataclass

from harness.tools.patch_format import AddFile, DeleteFile, Operation, UpdateFile, apply_hunks, parse_patch
from harness.tools.refusal import ToolRefused
from harness.tools.workspace_files import WorkspaceFiles

MAX_FILE_BYTES = 2 << 20
"""Of a file that is updated: it is held in memory several times."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One step; `data` None removes the file."""

    mark: str
    path: str
    data: bytes | None
    new: bool = False


def apply_patch(files: WorkspaceFiles, text: str) -> str:
    """The files that were changed, one a line: `A`, `M` or `D` and the path. Raises ToolRefused.

    What can be known before is refused before anything is changed. A disk that fills up between two files leaves the
    first one changed; the error then says how far it came.
    """
    changes = [change for operation in parse_patch(text) for change in _planned(files, operation)]
    done: list[str] = []
    for change in changes:
        try:
            if change.data is None:
                files.remove(change.path)
            else:
                files.write(change.path, change.data, new=change.new)
        except ToolRefused as error:
            before = f" (done before it failed: {', '.join(done)})" if done else ""
            raise ToolRefused(f"{error.message}{before}") from None
        done.append(f"{change.mark} {change.path}")
    return "\n".join(done)


def _planned(files: WorkspaceFiles, operation: Operation) -> list[_Change]:
    files.writable(operation.path)
    match operation:
        case AddFile(path=path, text=added):
            _require_free(files, path)
            return [_Change("A", path, _encoded(path, added), new=True)]
        case DeleteFile(path=path):
            with files.reading(path):
                return [_Change("D", path, None)]
        case UpdateFile(path=path, move_to=move_to, hunks=hunks):
            data = files.read(path, MAX_FILE_BYTES)
            changed = _encoded(path, apply_hunks(path, _decoded(path, data), hunks)) if hunks else data
            if move_to is None or files.parts(move_to) == files.parts(path):
                return [_Change("M", path, changed)]
            files.writable(move_to)
            _require_free(files, move_to)
            # The new one first: at no moment is the content nowhere.
            return [_Change("A", move_to, changed, new=True), _Change("D", path, None)]


def _require_free(files: WorkspaceFiles, path: str) -> None:
    if files.exists(path):
        raise ToolRefused(f"{path}: exists already; use Update File, or delete it first")


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ToolRefused(f"{path}: is not UTF-8 text") from None


def _encoded(path: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolRefused(f"{path}: the new text is not valid Unicode") from None
