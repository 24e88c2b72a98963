"""Diffs of what codex patches: the real codex applies the patches, and codex itself never tells what is in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import WatchConfig
from harness.kept_files import MAX_FILE_BYTES, KeptFiles, NotText, read_text
from harness.patches import MAX_DIFF_BYTES, Patches
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario_file import parse_scenario
from harness.replay.server import ReplayServer
from harness.snapshot import FileChange, scan, signature_of

SECRET = "dont-tell-anyone-4711"


def scenario(first: str, second: str, go: Path) -> str:
    """A model that waits for a file between two patches: what one did is looked at before the next one comes."""
    waiting = {"cmd": f"until [ -e {go} ]; do sleep 0.02; done", "yield_time_ms": 30_000}
    items = (
        {"type": "custom_tool_call", "name": "apply_patch", "input": first},
        {"type": "function_call", "name": "exec_command", "arguments": waiting},
        {"type": "custom_tool_call", "name": "apply_patch", "input": second},
        {"type": "message", "text": "Done."},
    )
    responses = [{"delay_ms": 400, "items": [item]} for item in items]
    return orjson.dumps({"name": "patches", "description": "Patches.", "responses": responses}).decode()


def patched(run: Any) -> list[dict[str, Any]]:
    items = [event["item"] for event in run.of("turn_item")]
    return [item for item in items if item["type"] == "function_call_output" and "diff" in item]


async def test_a_patch_of_codex_has_its_diff(workspace: Any, start: Any, tmp_path: Path) -> None:
    (workspace.path / "prices.py").write_text(f"one = 1\ntwo = 2\nkey = '{SECRET}'\nthree = 3\n", encoding="utf-8")
    (workspace.path / "old.txt").write_text("goes\n", encoding="utf-8")
    patches = (
        "*** Begin Patch\n*** Update File: prices.py\n@@\n one = 1\n-two = 2\n+two = 22\n"
        "*** Add File: notes/new.txt\n+first\n+second\n*** Delete File: old.txt\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: prices.py\n@@\n one = 1\n-two = 22\n+two = 222\n*** End Patch\n",
    )
    go = tmp_path / "go"
    async with ReplayServer(parse_scenario(scenario(*patches, go), origin="the test")) as replay:
        env = {**write_codex_home(tmp_path / "codex-home", replay.base_url), "SHOP_API_KEY": SECRET}
        config = {"workingDir": str(workspace.path), "env": env, "maxTurns": 1}
        run = await start(StartRunRequest.model_validate({"epicId": "current-epic", "config": config}))
        await run.until(lambda _: patched(run))
        go.touch()
        end = await run.end(60)
    assert end.status == "completed", end.error
    first, second = patched(run)
    around = " key = '[redacted:SHOP_API_KEY]'\n three = 3\n"
    assert first["diff"] == (
        "--- /dev/null\n+++ b/notes/new.txt\n@@ -0,0 +1,2 @@\n+first\n+second\n"
        "--- a/old.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-goes\n"
        f"--- a/prices.py\n+++ b/prices.py\n@@ -1,4 +1,4 @@\n one = 1\n-two = 2\n+two = 22\n{around}"
    )
    assert first["diff_truncated"] is False
    assert "diff_missing" not in first
    # What the first patch did is no part of the second's.
    assert second["diff"] == (
        f"--- a/prices.py\n+++ b/prices.py\n@@ -1,4 +1,4 @@\n one = 1\n-two = 22\n+two = 222\n{around}"
    )


@pytest.fixture
async def kept(tmp_path: Path, eventually: Any) -> AsyncIterator[KeptFiles]:
    """The contents of a workspace with one file, `a.txt`."""
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")
    files = KeptFiles(tmp_path)
    files.load(scan(tmp_path, WatchConfig()))
    await eventually(lambda: files.before_change("a.txt"), "the file is read")
    yield files
    await files.aclose()


def applied(patches: Patches, path: str, *, kind: str = "update", status: str = "completed") -> dict[str, Any]:
    """The output of a call that patched this path, as an item."""
    arguments = orjson.dumps({"changes": [{"path": path, "kind": kind}]}).decode()
    call = {"type": "function_call", "call_id": "c", "name": "apply_patch", "arguments": arguments}
    assert patches.told(dict(call)) == call
    return dict(patches.told({"type": "function_call_output", "call_id": "c", "status": status, "output": "M a.txt"}))


def written(files: KeptFiles, path: str, content: str) -> None:
    """Somebody else wrote the file, and the watch saw it."""
    (files.root / path).write_text(content, encoding="utf-8")
    files.noticed([FileChange(path, signature_of((files.root / path).lstat()))])


async def test_what_a_command_wrote_before_is_no_part_of_the_diff(kept: KeptFiles, eventually: Any) -> None:
    written(kept, "a.txt", "one\ntwo\n")
    await eventually(lambda: len(kept.before_change("a.txt")) == 2, "the change is read")
    (kept.root / "a.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    done = applied(Patches(kept, str), str(kept.root / "a.txt"))
    assert done["diff"] == "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,3 @@\n one\n two\n+three\n"


async def test_a_watch_that_is_quicker_than_codex_takes_nothing_away(kept: KeptFiles, eventually: Any) -> None:
    written(kept, "a.txt", "patched\n")
    await eventually(lambda: len(kept.before_change("a.txt")) == 2, "the patch's own write is read")
    assert "-one\n+patched\n" in applied(Patches(kept, str), "a.txt")["diff"]


async def test_a_file_that_is_being_written_anew_is_not_taken_for_empty(kept: KeptFiles, eventually: Any) -> None:
    written(kept, "a.txt", "")
    written(kept, "b.txt", "b\n")
    await eventually(lambda: kept.before_change("b.txt"), "both are read")
    written(kept, "a.txt", "patched\n")
    await eventually(lambda: len(kept.before_change("a.txt")) == 2, "what it says then is read")
    assert "-one\n+patched\n" in applied(Patches(kept, str), "a.txt")["diff"]


async def test_a_call_that_failed_has_no_diff(kept: KeptFiles) -> None:
    (kept.root / "a.txt").write_text("half\n", encoding="utf-8")
    assert "diff" not in applied(Patches(kept, str), "a.txt", status="incomplete")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x00\x01", "a.txt is not text"),
        (b"\xff", "a.txt is not text in UTF-8"),
        (b"x" * (MAX_FILE_BYTES + 1), "a.txt is larger than 256 KiB"),
    ],
)
async def test_what_can_not_be_compared_is_named_with_the_reason(kept: KeptFiles, content: bytes, why: str) -> None:
    (kept.root / "a.txt").write_bytes(content)
    done = applied(Patches(kept, str), "a.txt")
    assert (done["diff"], done["diff_missing"]) == ("", [why])


async def test_nothing_outside_the_workspace_is_read(kept: KeptFiles, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    secret.write_text("secret\n", encoding="utf-8")
    patches = Patches(kept, str)
    assert applied(patches, str(secret), kind="add")["diff_missing"] == [f"{secret} is not in the workspace"]
    assert applied(patches, "../a.txt")["diff_missing"] == ["../a.txt is not in the workspace"]
    (kept.root / "a.txt").unlink()
    (kept.root / "a.txt").symlink_to(secret)
    done = applied(patches, "a.txt")
    assert done["diff"] == ""
    assert "symbolic link" in done["diff_missing"][0]
    with pytest.raises(NotText):
        read_text(kept.root / "a.txt")


async def test_a_file_that_was_not_known_is_said_to_be_so(kept: KeptFiles) -> None:
    (kept.root / "late.txt").write_text("patched\n", encoding="utf-8")
    done = applied(Patches(kept, str), "late.txt")
    assert (done["diff"], done["diff_missing"]) == ("", ["late.txt was not known before the patch"])


async def test_a_long_diff_is_cut_and_a_secret_at_the_cut_is_found(kept: KeptFiles) -> None:
    head = "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1,2000 @@\n-one\n"
    line = "x" * 38 + "\n"
    before_cut = (MAX_DIFF_BYTES - len(head)) // (len(line) + 1)
    lines = [line] * 2000
    lines[before_cut - 2] = f"{'y' * 20}{SECRET}\n"
    (kept.root / "a.txt").write_text("".join(lines), encoding="utf-8")
    done = applied(Patches(kept, lambda text: text.replace(SECRET, "[redacted]")), "a.txt")
    assert done["diff_truncated"] is True
    assert len(done["diff"].encode()) <= MAX_DIFF_BYTES
    assert done["diff"].startswith(head)
    assert SECRET[:10] not in done["diff"]


@pytest.mark.parametrize("arguments", ["", "[]", "{", '{"changes": 3}', '{"changes": [3, {}, {"path": "a\\u0000b"}]}'])
async def test_arguments_that_are_none_are_let_be(kept: KeptFiles, arguments: str) -> None:
    patches = Patches(kept, str)
    patches.told({"type": "function_call", "call_id": "c", "name": "apply_patch", "arguments": arguments})
    done = patches.told({"type": "function_call_output", "call_id": "c", "status": "completed"})
    assert done["diff"] == ""
