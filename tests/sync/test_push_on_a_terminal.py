"""What `cody sync push` shows on a real terminal: how far it is, outages, and nothing left of it afterwards."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cody.cli import exits
from cody.sync.wire import MAX_CHUNK_BYTES
from tests.cli.command_line import Terminal, environment
from tests.sync.syncing_cody import Laptop, Team, team_server, team_server_at

CTRL_C = "\x03"
SIZE = 24 << 20
HALF_WAY = SIZE // MAX_CHUNK_BYTES // 2
"""The index of a chunk in the midst."""
DEADLINE_S = 60.0
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_server(f"sqlite:///{tmp_path}/team/sync.sqlite3", tmp_path / "team") as server:
        yield server
    for path in (tmp_path / "team").glob("*.sqlite3*"):
        path.unlink()


@pytest.fixture
def laptop(tmp_path: Path, team: Team) -> Laptop:
    return Laptop(tmp_path / "laptop", team.url, team.token)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "a-folder-with-a-name-that-no-line-has-room-for" / "its-notes.jsonl"
    path.parent.mkdir()
    path.write_bytes((b"x" * 1023 + b"\n") * (SIZE // 1024))
    return path


def pushing(laptop: Laptop, notes: Path, *options: str, columns: int = 120) -> Terminal:
    env = environment(laptop.state_dir, CODY_SYNC_TOKEN=laptop.token)
    return Terminal(laptop.command("push", str(notes), *options), notes.parent, env, columns)


def painted(terminal: Terminal) -> list[str]:
    """The lines that were written, one over another, without what moves the cursor and colours them."""
    return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", terminal.text)) if line.strip()]


def in_between(text: str) -> bool:
    """Whether a part of the record is shown as sent: more than nothing, and not all."""
    return any(0 < float(sent) < 24 for sent in re.findall(r"([0-9.]+)/24\.0 MiB", CONTROL.sub("", text)))


def test_a_push_is_shown_by_a_bar_and_leaves_the_terminal_as_it_was(laptop: Laptop, notes: Path, team: Team) -> None:
    team.hold(HALF_WAY)
    with pushing(laptop, notes, "--as", "notes") as terminal:
        terminal.until(in_between)
        team.let_go()
        assert terminal.wait() == exits.OK
        assert terminal.mode == terminal.mode_before
    lines = painted(terminal)
    assert any(line.startswith("sending notes ━") for line in lines)
    checked = [line for line in lines if line.startswith("checked there ━")]
    assert "24.0/24.0 MiB" in checked[-1]
    assert re.fullmatch(r"[0-9a-f]{32}  succeeded  notes  [0-9]+ of [0-9]+ chunks, 24\.0 MiB", lines[-1])
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    # The bar's line is cleared before what stays is written.
    assert "\x1b[2K" in terminal.text[terminal.text.rindex("checked there") :]


def test_a_long_name_leaves_room_for_the_figures(laptop: Laptop, notes: Path, team: Team) -> None:
    team.hold(HALF_WAY)
    with pushing(laptop, notes, columns=80) as terminal:
        terminal.until(in_between)
        team.let_go()
        assert terminal.wait() == exits.OK
    sending = [line for line in painted(terminal) if line.startswith("sending ")]
    assert all(re.match("sending file:[^ ]*\u2026[^ ]*s\\.jsonl ", line) for line in sending), sending[0]


def test_no_control_characters_of_a_name_reach_the_terminal(laptop: Laptop, notes: Path) -> None:
    path = notes.with_name("\x1b]0;owned\x07.jsonl")
    path.write_bytes(b"x\n")
    with pushing(laptop, path, "--as", "[red]plain[/red]") as terminal:
        assert terminal.wait() == exits.OK
    assert "sending [red]plain[/red]" in CONTROL.sub("", terminal.text)
    assert "\x1b]0;" not in terminal.text


def test_an_outage_is_told_above_the_bar(laptop: Laptop, notes: Path, team: Team, tmp_path: Path) -> None:
    team.hold(HALF_WAY)
    with pushing(laptop, notes, "--as", "notes", "--patience", "60") as terminal:
        terminal.until(in_between)
        team.process.kill()
        team.process.wait()
        after = terminal.until("waiting: no Cody server answers")
        team.let_go()
        with team_server_at(team.port, f"sqlite:///{tmp_path}/team/sync.sqlite3", team.state_dir):
            terminal.until("it answers again", after=after)
            assert terminal.wait() == exits.OK
    assert terminal.text.count("waiting: ") == terminal.text.count("it answers again")
    assert "succeeded" in painted(terminal)[-1]


def test_ctrl_c_says_how_to_go_on(laptop: Laptop, notes: Path, team: Team) -> None:
    team.hold(HALF_WAY)
    with pushing(laptop, notes, "--as", "notes") as terminal:
        terminal.until(in_between)
        team.process.send_signal(signal.SIGSTOP)
        terminal.press(CTRL_C)
        assert terminal.wait() == 130
        team.process.send_signal(signal.SIGCONT)
        team.let_go()
        assert terminal.mode == terminal.mode_before
    assert re.search(r"stopped with [0-9.]+ [KM]iB of 24\.0 MiB sent: give the same command again", terminal.text)
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    assert "Traceback" not in terminal.text
    with pushing(laptop, notes, "--as", "notes") as again:
        assert again.wait() == exits.OK
    assert team.started() == 1


def test_no_bar_where_nobody_looks(laptop: Laptop, notes: Path) -> None:
    process = laptop.start("push", str(notes), "--as", "notes", stderr=subprocess.PIPE)
    assert process.communicate(timeout=DEADLINE_S)[1] == b""
    assert process.returncode == exits.OK
