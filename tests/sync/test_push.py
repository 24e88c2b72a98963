"""`cody sync push` from one state folder to a server: byte for byte, through kills, in little memory."""

from __future__ import annotations

import hashlib
import itertools
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cody.pipeline.push import IN_FLIGHT
from cody.sync.adapters.http import HttpAdapter
from cody.sync.wire import MAX_CHUNK_BYTES
from tests.sync.large_push import CLIENT_LIMIT_BYTES, MEGABYTE, pushed_peaks
from tests.sync.syncing_cody import Laptop, Team, team_server, team_server_at

DEADLINE_S = 100.0
"""Of a wait for what takes seconds: it ends a test that hangs, and no other."""


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_server(f"sqlite:///{tmp_path}/team/sync.sqlite3", tmp_path / "team") as server:
        yield server
    for path in (tmp_path / "team").glob("*.sqlite3*"):
        path.unlink()  # pytest keeps folders of several sessions, and this may be a gigabyte


@pytest.fixture
def laptop(tmp_path: Path, team: Team) -> Laptop:
    return Laptop(tmp_path / "laptop", team.url, team.token)


def lines_file(path: Path, size: int, seed: int = 1) -> bytes:
    """A file of lines of all lengths, one longer than a chunk, the last without its end."""
    content = bytearray()
    for number in itertools.count(seed):
        if len(content) >= size:
            break
        length = 2 * MAX_CHUNK_BYTES if number == seed + 5 else 1 + (number * 7919) % 60_000
        content += hashlib.sha256(b"%d" % number).hexdigest().encode() * (length // 64 + 1) + b"\n"
    path.write_bytes(content[:size])
    return bytes(content[:size])


async def arrived(team: Team, conversation_id: str) -> bytes:
    async with HttpAdapter(team.url, token=team.token) as adapter:
        return b"".join([piece async for piece in adapter.read(conversation_id)])


def until(predicate: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not predicate():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.005)


def acknowledged(laptop: Laptop) -> int:
    """How many chunks the journal of the only push has."""
    found = [path.read_text() for path in (laptop.state_dir / "sync").glob("[0-9a-f]*.json")]
    return int(found[0].split('"acknowledged_chunks":')[1].split(",")[0]) if found else 0


async def test_a_file_arrives_byte_for_byte(tmp_path: Path, team: Team, laptop: Laptop) -> None:
    content = lines_file(tmp_path / "notes.jsonl", 3 * MEGABYTE)
    job = laptop.json("push", str(tmp_path / "notes.jsonl"), "--as", "notes")
    assert job["state"] == "succeeded"
    assert job["lastCursor"] == len(content)
    assert await arrived(team, "notes") == content
    assert laptop.journals() == []
    assert laptop.json("status", job["jobId"]) == job
    assert laptop.json("list", "file:nothing")["jobs"] == []
    names = {path.suffix for path in (laptop.state_dir / "sync").iterdir()}
    assert names == {".lock"}, "something of the push is left behind"


async def test_a_push_that_was_killed_goes_on_behind_the_last_acknowledged_chunk(
    tmp_path: Path, team: Team, laptop: Laptop
) -> None:
    content = lines_file(tmp_path / "long.jsonl", 24 * MEGABYTE)
    team.hold(12)
    process = laptop.start("push", str(tmp_path / "long.jsonl"), "--as", "long")
    until(lambda: acknowledged(laptop) >= 8, "eight chunks are acknowledged")
    process.send_signal(signal.SIGKILL)
    process.wait()
    team.let_go()
    kept = acknowledged(laptop)
    assert 8 <= kept <= 12
    [journal] = laptop.journals()
    assert journal["conversation_id"] == "long"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (laptop.state_dir / "sync").iterdir()}
    assert modes == {0o600}
    job = laptop.json("push", str(tmp_path / "long.jsonl"), "--as", "long")
    assert job["state"] == "succeeded"
    assert job["totalChunks"] > kept + 8
    again = team.appended() - job["totalChunks"]
    assert 0 <= again <= IN_FLIGHT, "more was sent twice than what was on its way"
    assert team.started() == 1
    assert await arrived(team, "long") == content


async def test_a_file_that_was_changed_after_the_kill_is_sent_anew(tmp_path: Path, team: Team, laptop: Laptop) -> None:
    path = tmp_path / "changed.jsonl"
    lines_file(path, 12 * MEGABYTE)
    team.hold(8)
    process = laptop.start("push", str(path), "--as", "changed")
    until(lambda: acknowledged(laptop) >= 4, "four chunks are acknowledged")
    process.kill()
    process.wait()
    team.let_go()
    content = lines_file(path, 12 * MEGABYTE, seed=100)
    assert laptop.json("push", str(path), "--as", "changed")["state"] == "succeeded"
    assert team.started() == 2
    assert await arrived(team, "changed") == content


async def test_a_server_that_forgot_everything_gets_it_all(tmp_path: Path, laptop: Laptop, team: Team) -> None:
    content = lines_file(tmp_path / "again.jsonl", 12 * MEGABYTE)
    team.hold(8)
    process = laptop.start("push", str(tmp_path / "again.jsonl"), "--as", "again")
    until(lambda: acknowledged(laptop) >= 4, "four chunks are acknowledged")
    process.kill()
    process.wait()
    team.process.kill()
    team.process.wait()
    team.let_go()
    with team_server_at(team.port, f"sqlite:///{tmp_path}/team/other.sqlite3", team.state_dir) as fresh:
        assert laptop.json("push", str(tmp_path / "again.jsonl"), "--as", "again")["state"] == "succeeded"
        assert await arrived(fresh, "again") == content


def test_a_server_that_is_away_ends_the_command_and_keeps_its_place(tmp_path: Path, laptop: Laptop) -> None:
    lines_file(tmp_path / "away.jsonl", MEGABYTE)
    push = ("push", str(tmp_path / "away.jsonl"), "--as", "away", "--patience", "0.5")
    assert "give the same command again" in laptop(*push, to="http://127.0.0.1:9", code=69)


def test_memory_does_not_grow_with_the_file_on_either_side(tmp_path: Path, team: Team, laptop: Laptop) -> None:
    """A gigabyte takes as much as this: what a large file takes beyond a small one is a fraction of its size."""
    small, large = (pushed_peaks(team, laptop, tmp_path, megabytes) for megabytes in (8, 72))
    for name, before, after in zip(("client", "server"), small, large, strict=True):
        assert before > 0, name
        # Half of what the larger one has more: the allocator keeps some, the file is never held.
        assert after - before < 32 * MEGABYTE, f"{name}: {before // MEGABYTE} MB, then {after // MEGABYTE} MB"
    client, _ = large
    # The server is judged by its growth alone: with all of Cody loaded it has more than that before anything comes.
    assert client < CLIENT_LIMIT_BYTES, f"{client // MEGABYTE} MB"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("push", "/nowhere/at/all.jsonl"), 1, "No such file"),
        (("push", "/dev/null"), 1, "is not a file"),
        (("status", "no-such-job"), 1, "job_not_found"),
        (("cancel", "no-such-job"), 1, "job_not_found"),
        (("push", "thread:none"), 69, "no server"),
        (("push", "3f9a3f9a"), 69, "no server"),
    ],
)
def test_what_can_not_be_done_is_said(laptop: Laptop, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in laptop(*arguments, code=code, CODY_PORT="9")


def test_a_token_is_not_sent_in_the_clear_nor_accepted_when_wrong(tmp_path: Path, laptop: Laptop) -> None:
    lines_file(tmp_path / "token.jsonl", 1000)
    push = ("push", str(tmp_path / "token.jsonl"))
    assert "https://" in laptop(*push, to="http://cody.example.org", code=1)
    assert "--token-file" in laptop(*push, code=1, CODY_SYNC_TOKEN="cody_" + "x" * 40)
    secret = tmp_path / "token"
    secret.write_text(laptop.token + "\n")
    laptop(*push, "--token-file", str(secret), CODY_SYNC_TOKEN="")


def test_two_pushes_of_the_same_do_not_mix(tmp_path: Path, team: Team, laptop: Laptop) -> None:
    path = tmp_path / "twice.jsonl"
    lines_file(path, 12 * MEGABYTE)
    team.hold(8)
    process = laptop.start("push", str(path), "--as", "twice", "--patience", "60")
    try:
        until(lambda: acknowledged(laptop) >= 1, "a chunk is acknowledged")
        process.send_signal(signal.SIGSTOP)
        assert "right now" in laptop("push", str(path), "--as", "twice", code=1)
    finally:
        team.let_go()
        process.send_signal(signal.SIGCONT)
        assert process.wait(DEADLINE_S) == 0
    assert team.started() == 1


def test_what_was_sent_is_listed_for_people(tmp_path: Path, laptop: Laptop) -> None:
    lines_file(tmp_path / "listed.jsonl", MEGABYTE)
    job = laptop.json("push", str(tmp_path / "listed.jsonl"), "--as", "listed")
    assert laptop.json("list", "listed")["jobs"] == [job]
    table = laptop("list", "listed")
    assert job["jobId"] in table
    assert "succeeded" in table
    assert "1.0 MiB" in laptop("status", job["jobId"])
    assert laptop.json("cancel", job["jobId"])["state"] == "succeeded"
    assert laptop("list", "nobody") == laptop("list", to="") == ""


def test_a_push_that_is_interrupted_says_how_to_go_on(tmp_path: Path, team: Team, laptop: Laptop) -> None:
    lines_file(tmp_path / "stopped.jsonl", 12 * MEGABYTE)
    team.hold(8)
    process = laptop.start("push", str(tmp_path / "stopped.jsonl"), "--as", "stopped", stderr=subprocess.PIPE)
    until(lambda: acknowledged(laptop) >= 2, "two chunks are acknowledged")
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=DEADLINE_S)[1].decode()
    team.let_go()
    assert process.returncode == 130
    assert "of 12.0 MiB sent: give the same command again to go on" in told
    assert "Traceback" not in told
    assert "stopped" in laptop("list", to="")
    assert laptop.json("push", str(tmp_path / "stopped.jsonl"), "--as", "stopped")["state"] == "succeeded"
