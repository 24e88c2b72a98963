"""The files of old runs go; those of runs that go on, or ended lately, stay."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.store import runs
from harness.kept_runs import remove_old


def files_of(runs_dir: Path, run_id: str, age_s: float) -> Path:
    turn = runs_dir / run_id / "turn-0001"
    turn.mkdir(parents=True)
    (turn / "output.log").write_bytes(b"said")
    then = time.time() - age_s
    for path in (turn / "output.log", turn, turn.parent):
        os.utime(path, (then, then))
    return turn.parent


async def test_old_files_go_and_no_others(redis: Redis, tmp_path: Path) -> None:
    paused, ended, lately, written = (str(uuid.uuid4()) for _ in range(4))
    runs_dir, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    await runs.create(redis, paused, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    kept = [files_of(runs_dir, paused, 5_000), files_of(runs_dir, lately, 10), files_of(runs_dir, written, 5_000)]
    (written_log := kept[2] / "turn-0001" / "output.log").write_bytes(b"more")
    gone = files_of(runs_dir, ended, 5_000)
    elsewhere.mkdir()
    (runs_dir / "link").symlink_to(elsewhere)
    assert await remove_old(redis, runs_dir, keep_s=1_000) == [ended]
    assert not gone.exists()
    assert all(folder.is_dir() for folder in kept)
    assert written_log.read_bytes() == b"more"
    assert elsewhere.is_dir()
    assert await remove_old(redis, runs_dir, keep_s=1_000) == []


async def test_no_folder_is_no_trouble(redis: Redis, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert await remove_old(redis, tmp_path / "runs", keep_s=0) == []
