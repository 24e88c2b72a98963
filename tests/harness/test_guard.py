"""The guard on its own: its ladder as a pure table, its pipes by hand, without the supervisor's half."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cgroup import group_name
from harness.guard import pack_launch, quote, unpack_launch
from harness.guard_clock import boottime_ns
from harness.guard_ladder import SETTLE_NS, Ladder
from harness.guard_status import Exited, Gone, Leftover, Leftovers, SpawnFailed, Started, parse_status
from harness.process import GUARD_COMMAND

S = 10**9
HANG_S = 60


# The ladder.


def test_without_a_cause_the_ladder_waits_for_nothing() -> None:
    ladder = Ladder(5 * S)
    assert ladder.order(10**18) == "wait"
    assert ladder.next_instant(10**18) is None


def test_a_stop_asks_at_once_and_kills_after_its_grace() -> None:
    ladder = Ladder(5 * S)
    ladder.stop("stopped", 100 * S, 2 * S)
    assert (ladder.order(100 * S), ladder.next_instant(100 * S)) == ("term", 102 * S)
    assert (ladder.order(102 * S - 1), ladder.order(102 * S)) == ("term", "kill")
    assert ladder.cause == "stopped"


def test_a_stop_without_a_grace_has_the_default_one() -> None:
    ladder = Ladder(5 * S)
    ladder.stop("supervisor_gone", 100 * S)
    assert (ladder.order(105 * S - 1), ladder.order(105 * S)) == ("term", "kill")


@pytest.mark.parametrize(("second", "kill_at"), [(1 * S, 101 * S), (60 * S, 105 * S)])
def test_a_second_stop_shortens_and_never_lengthens(second: int, kill_at: int) -> None:
    ladder = Ladder(5 * S)
    ladder.stop("stopped", 100 * S)
    ladder.stop("supervisor_gone", 100 * S, second)
    assert (ladder.order(kill_at - 1), ladder.order(kill_at)) == ("term", "kill")
    assert ladder.cause == "stopped"


def test_a_deadline_asks_at_soft_and_kills_at_hard() -> None:
    ladder = Ladder(60 * S)
    ladder.deadline(100 * S, 103 * S)
    assert ladder.next_instant(0) == 100 * S
    assert [ladder.order(at) for at in (100 * S - 1, 100 * S, 103 * S - 1, 103 * S)] == ["wait", "term", "term", "kill"]
    assert ladder.cause == "deadline"


def test_an_extension_replaces_the_deadline_until_it_was_missed() -> None:
    ladder = Ladder(60 * S)
    ladder.deadline(100 * S, 103 * S)
    ladder.deadline(200 * S, 203 * S)
    assert ladder.order(150 * S) == "wait"
    assert ladder.order(200 * S) == "term"
    ladder.deadline(300 * S, 303 * S)
    assert ladder.order(201 * S) == "term"
    assert ladder.order(203 * S) == "kill"


def test_the_hard_deadline_bounds_the_grace_of_a_stop() -> None:
    ladder = Ladder(60 * S)
    ladder.deadline(200 * S, 203 * S)
    ladder.stop("stopped", 199 * S, 60 * S)
    assert (ladder.order(203 * S - 1), ladder.order(203 * S)) == ("term", "kill")
    assert ladder.cause == "stopped"


def test_a_guard_thawed_after_hard_kills_at_once() -> None:
    ladder = Ladder(60 * S)
    ladder.deadline(100 * S, 103 * S)
    assert (ladder.order(500 * S), ladder.cause) == ("kill", "deadline")


def test_what_outlives_the_agent_gets_a_moment_then_the_grace() -> None:
    ladder = Ladder(5 * S)
    ladder.agent_exited(100 * S)
    settled = 100 * S + SETTLE_NS
    assert ladder.next_instant(100 * S) == settled
    assert (ladder.order(settled - 1), ladder.settled(settled - 1)) == ("wait", False)
    assert (ladder.order(settled), ladder.settled(settled), ladder.cause) == ("term", True, "exited")
    assert (ladder.next_instant(settled), ladder.order(settled + 5 * S)) == (settled + 5 * S, "kill")


# What crosses the pipes.


@given(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])))
def test_quoted_text_is_json(text: str) -> None:
    assert json.loads(quote(text)) == text


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.just("caf\udce9")
names = words.filter(lambda name: name != "" and "=" not in name)


@given(st.lists(words, min_size=1), words, st.dictionaries(names, words))
def test_a_launch_arrives_as_it_was(argv: list[str], cwd: str, env: dict[str, str]) -> None:
    encoded = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    packed = pack_launch([os.fsencode(word) for word in argv], os.fsencode(cwd), encoded)
    assert unpack_launch(packed) == (argv, cwd, env)


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"event": "flying"}', b'{"event": "started"}', b"not json"])
def test_what_no_guard_says_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_status(line)


# The process.


class Guarded:
    """A guard with its pipes in our hands."""

    def __init__(
        self,
        *argv: str,
        cwd: str = "/",
        orders: bytes = b"",
        hang_up: bool = False,
        grace_s: float = 5.0,
        settle_ns: int = SETTLE_NS,
    ) -> None:
        self.guard_id = str(uuid.uuid4())
        control_end, self.control = os.pipe()
        status, status_end = os.pipe()
        out, out_end = os.pipe()
        launch = os.memfd_create("launch")
        path = os.fsencode(os.environ["PATH"])
        os.write(launch, pack_launch([os.fsencode(word) for word in argv], os.fsencode(cwd), {b"PATH": path}))
        os.lseek(launch, 0, os.SEEK_SET)
        os.write(self.control, orders)
        if hang_up:
            os.close(self.control)
        group = group_name({"CODY_GUARD_ID": self.guard_id})
        *command, code = GUARD_COMMAND
        imports, _, start = code.partition("from harness.guard ")
        settle = f"from harness import guard_ladder; guard_ladder.SETTLE_NS = {settle_ns}"
        command.append(f"{imports}{settle}; from harness.guard {start}")
        self.popen = subprocess.Popen(
            [*command, str(control_end), str(status_end), str(launch), str(grace_s), self.guard_id, group],
            stdin=subprocess.DEVNULL,
            stdout=out_end,
            stderr=out_end,
            pass_fds=(control_end, status_end, launch),
            start_new_session=True,
        )
        for fd in (control_end, status_end, out_end, launch):
            os.close(fd)
        self.hung_up = hang_up
        self.status = open(status, "rb")  # noqa: SIM115
        self.output = open(out, "rb")  # noqa: SIM115

    def hear(self) -> Any:
        return parse_status(self.status.readline())

    def order(self, line: str) -> None:
        os.write(self.control, line.encode() + b"\n")

    def hang_up(self) -> None:
        os.close(self.control)
        self.hung_up = True

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.hung_up:
            self.hang_up()
        self.popen.wait(HANG_S)
        self.status.close()
        self.output.close()


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that the agent makes, if it ever runs."""
    return tmp_path / "ran"


def test_a_clean_end_is_three_lines_and_exit_0() -> None:
    with Guarded("sh", "-c", "exit 9") as guard:
        assert isinstance(guard.hear(), Started)
        assert guard.hear() == Exited(9, None)
        assert guard.hear() == Gone("exited", ())
        assert guard.status.read() == b""
        assert guard.popen.wait(HANG_S) == 0


def test_a_failed_exec_is_one_line() -> None:
    with Guarded("/no/such/agent") as guard:
        assert guard.hear() == SpawnFailed(2, "exec")
        assert guard.status.read() == b""


def test_an_agent_works_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "caf\udce9 b"
    folder.mkdir(parents=True)
    with Guarded("pwd", "-P", cwd=str(folder)) as guard:
        assert guard.output.read() == os.fsencode(folder) + b"\n"


@pytest.mark.parametrize("way", ["{tmp}/link", "{tmp}/link/sub", "{tmp}/file/..", "{tmp}/real/none"])
def test_no_link_is_followed_on_the_way_to_the_folder(tmp_path: Path, ran: Path, way: str) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with Guarded("touch", str(ran), cwd=way.replace("{tmp}", str(tmp_path))) as guard:
        refused = guard.hear()
        assert isinstance(refused, SpawnFailed)
        assert refused.stage == "cwd"
        assert errno.errorcode[refused.errno] in {"ENOTDIR", "ELOOP", "ENOENT"}
        assert guard.status.read() == b""
    assert not ran.exists()


def test_end_of_output_is_seen_while_agent_and_guard_live() -> None:
    with Guarded("sh", "-c", "echo last; exec >&- 2>&-; exec sleep 600") as guard:
        assert guard.output.read() == b"last\n"
        assert isinstance(guard.hear(), Started)
        assert guard.popen.poll() is None


def test_end_of_output_is_seen_when_the_agent_ends_although_the_control_pipe_stays_open() -> None:
    with Guarded("echo", "last") as guard:
        assert guard.output.read() == b"last\n"
        assert guard.popen.wait(HANG_S) == 0


@pytest.mark.parametrize("word", ["stop", "SIGTERM", "hang up"])
def test_each_way_to_stop_a_guard_ends_its_agent(word: str) -> None:
    with Guarded("sleep", "600") as guard:
        assert isinstance(guard.hear(), Started)
        match word:
            case "stop":
                guard.order("stop 5")
            case "SIGTERM":
                guard.popen.terminate()
            case "hang up":
                guard.hang_up()
        assert guard.hear() == Exited(None, signal.SIGTERM)
        assert guard.hear() == Gone("supervisor_gone" if word == "hang up" else "stopped", ())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGPIPE])
def test_a_stray_signal_does_not_move_the_guard(signum: signal.Signals) -> None:
    with Guarded("sleep", "600") as guard:
        assert isinstance(guard.hear(), Started)
        guard.popen.send_signal(signum)
        guard.order("stop 5")
        assert guard.hear() == Exited(None, signal.SIGTERM)
        assert guard.hear() == Gone("stopped", ())


def test_an_agent_that_kills_its_own_group_does_not_take_the_guard_along() -> None:
    with Guarded("sh", "-c", "kill -KILL 0") as guard:
        assert isinstance(guard.hear(), Started)
        assert guard.hear() == Exited(None, signal.SIGKILL)
        assert guard.hear() == Gone("exited", ())


def test_an_order_cut_in_two_is_one_order() -> None:
    with Guarded("sleep", "600") as guard:
        assert isinstance(guard.hear(), Started)
        os.write(guard.control, b"st")
        os.write(guard.control, b"op 5\n")
        assert guard.hear() == Exited(None, signal.SIGTERM)


def test_a_deadline_that_passed_before_the_start_starts_nothing(ran: Path) -> None:
    with Guarded("touch", str(ran), orders=f"deadline {boottime_ns()} {boottime_ns() + 3600 * S}\n".encode()) as guard:
        assert guard.hear() == Gone("deadline", ())
    assert not ran.exists()


def test_a_supervisor_that_died_before_the_start_starts_nothing(ran: Path) -> None:
    with Guarded("touch", str(ran), hang_up=True) as guard:
        assert guard.hear() == Gone("supervisor_gone", ())
    assert not ran.exists()


def test_children_that_end_with_the_agent_are_no_leftovers() -> None:
    """Codex ends its commands and exits before they are gone. On a busy machine that may take more than a moment."""
    with Guarded("sh", "-c", "sleep 600 & kill $!; exit 0", settle_ns=HANG_S * S) as guard:
        assert isinstance(guard.hear(), Started)
        assert guard.hear() == Exited(0, None)
        assert guard.hear() == Gone("exited", ())


def test_leftovers_are_told_once_and_end() -> None:
    with Guarded("sh", "-c", "setsid sleep 600 & until grep -qs sleep /proc/$!/comm; do :; done; exit 0") as guard:
        assert isinstance(guard.hear(), Started)
        assert guard.hear() == Exited(0, None)
        match guard.hear():
            case Leftovers((Leftover(pid, "sleep"),)):
                assert guard.hear() == Gone("exited", ())
                assert not Path(f"/proc/{pid}").exists()
            case other:
                pytest.fail(f"{other}")


def test_a_process_that_forks_on_and_on_is_ended() -> None:
    """Each scan misses what is forked behind its back: only the next finds it."""
    with Guarded("sh", "-c", 'trap "" TERM; hop() { hop & exit 0; }; hop', grace_s=0.05) as guard:
        assert isinstance(guard.hear(), Started)
        assert guard.hear() == Exited(0, None)
        while not isinstance(said := guard.hear(), Gone):
            assert isinstance(said, Leftovers)
        assert said.survivors == ()


def test_a_guard_costs_little_memory() -> None:
    """15 MB a run is the goal: an import too many in the guard shows here."""
    with Guarded("sleep", "600") as guard:
        assert isinstance(guard.hear(), Started)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{guard.popen.pid}/status").read_text().splitlines())
        assert int(status["VmHWM"].split()[0]) < 15_000
