"""The diff of each patch that an agent applies, put on the item that says what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import JsonValue

from harness.kept_files import KeptFiles, NotText, Text, read_text
from harness.unified_diff import bounded_diff, unified_diff

MAX_DIFF_BYTES = 16 << 10
"""Of the diff of one patch: an event stays small enough for every reader."""
MAX_CLEANED_BYTES = 256 << 10
"""What is looked through for secrets before it is cut: one that the cut goes through is found first."""
MAX_PATHS = 50
"""Of one patch: beyond it each file costs a read while events wait."""
PATCH_TOOL = "apply_patch"

Item = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class _Change:
    """`path` as the agent gave it; `relative` to the workspace, None when it is not in it."""

    path: str
    relative: str | None
    kind: str
    before: tuple[Text, ...]


class Patches:
    """Follows the calls of `apply_patch` in one turn's items. `clean` takes secrets out of text."""

    def __init__(self, kept: KeptFiles, clean: Callable[[str], str]) -> None:
        self._kept = kept
        self._clean = clean
        self._open: dict[str, list[_Change]] = {}

    def told(self, item: Item) -> Item:
        """The item; the output of a patch that was applied has `diff` (unified), `diff_truncated` and `diff_missing`.

        `diff_missing` has a sentence for each file that is not in the diff. Reads the files that were changed, at once:
        by the time that a thread had, the agent might have changed them again.
        """
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            return item
        if item.get("type") == "function_call" and item.get("name") == PATCH_TOOL:
            # codex 0.163 gives them in an order that changes from run to run.
            self._open[call_id] = sorted(self._changes(item.get("arguments")), key=lambda change: change.path)
        elif item.get("type") == "function_call_output" and call_id in self._open:
            changes = self._open.pop(call_id)
            if item.get("status") == "completed":
                return {**item, **self._diff(changes)}
        return item

    def _changes(self, arguments: JsonValue) -> Iterator[_Change]:
        try:
            found = orjson.loads(arguments) if isinstance(arguments, str) else None
        except orjson.JSONDecodeError:
            return
        listed = found.get("changes") if isinstance(found, dict) else None
        for change in listed if isinstance(listed, list) else []:
            path = change.get("path") if isinstance(change, dict) else None
            if not isinstance(path, str) or not path or "\0" in path:
                continue
            relative = _relative(path, self._kept.root)
            before = () if relative is None else self._kept.before_change(relative)
            yield _Change(path, relative, str(change.get("kind")), before)

    def _diff(self, changes: list[_Change]) -> Item:
        text, missing, size = "", list[JsonValue](), 0
        for place, change in enumerate(changes):
            if place >= MAX_PATHS or size > MAX_CLEANED_BYTES:
                missing.append(f"{len(changes) - place} more files are not shown")
                break
            try:
                one = self._diff_of(change)
            except NotText as why:
                missing.append(self._clean(f"{change.relative or change.path} {why}"))
                continue
            text += one
            size += len(one)
        cut, truncated = bounded_diff(self._clean(text), MAX_DIFF_BYTES)
        extra: Item = {"diff_missing": missing} if missing else {}
        return {"diff": cut, "diff_truncated": truncated, **extra}

    def _diff_of(self, change: _Change) -> str:
        """Raises NotText, which says why there is none."""
        if change.relative is None:
            raise NotText("is not in the workspace")
        after = read_text(self._kept.root / change.relative)
        before = next((text for text in change.before if not text.says(after)), None)
        self._kept.changed_to(change.relative, after)
        if before is None and change.kind != "add":
            raise NotText("was not known before the patch")
        return unified_diff(change.relative, before.text if before else None, after.text if after else None)


def _relative(path: str, root: Path) -> str | None:
    """The path relative to the root, also when it goes through a link to the root; None when it is not below it."""
    absolute = Path(os.path.normpath(root / path))
    for candidate in (absolute, Path(os.path.realpath(absolute.parent)) / absolute.name):
        if candidate != root and candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    return None
