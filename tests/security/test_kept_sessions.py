"""Browsers' sessions over a restart: they go on, and nothing that ended comes back."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx2
import pytest

from cody.tokens import Caller, TokenStore
from server.auth import SESSION_LIFETIME_S, Sessions, Unauthorized
from server.kept_sessions import FILE, MAX_BYTES, SessionFile
from tests.ports import reserved_port
from tests.server.cody_server import DEADLINE_S
from tests.server.conftest import Launch

PORT = 1
PATH_MAX = 4_096


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    made = TokenStore(tmp_path)
    made.prepare()
    made.create("ci", "control")
    return made


def server_starts(tmp_path: Path, tokens: TokenStore, *, now_s: float = 1_000.0, port: int = PORT) -> Sessions:
    """The sessions of a server that has just been started; its own clock begins anywhere."""
    sessions = Sessions(port, clock=lambda: 5.0, file=SessionFile(tmp_path, port, tokens, clock=lambda: now_s))
    sessions.take_up()
    return sessions


def signed_in(sessions: Sessions, name: str = "ci") -> str:
    return sessions.enter(sessions.link(Caller(name, "control")))[0]


def test_a_session_goes_on_after_a_restart_and_ends_when_it_would_have(tmp_path: Path, tokens: TokenStore) -> None:
    value = signed_in(server_starts(tmp_path, tokens))
    again = server_starts(tmp_path, tokens, now_s=1_000 + SESSION_LIFETIME_S - 1)
    assert again.find(value) == Caller("session:ci", "control")
    assert server_starts(tmp_path, tokens, now_s=1_000 + SESSION_LIFETIME_S).find(value) is None


def test_a_clock_that_is_set_back_gives_no_longer_life(tmp_path: Path, tokens: TokenStore) -> None:
    value = signed_in(server_starts(tmp_path, tokens, now_s=1_000_000))
    now_s = 5.0
    sessions = Sessions(PORT, clock=lambda: now_s, file=SessionFile(tmp_path, PORT, tokens, clock=lambda: 0.0))
    sessions.take_up()
    now_s += SESSION_LIFETIME_S + 1
    assert sessions.find(value) is None


def test_the_file_has_no_secret_and_is_this_users_alone(tmp_path: Path, tokens: TokenStore) -> None:
    value = signed_in(server_starts(tmp_path, tokens))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert value not in (tmp_path / FILE).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.glob(f".{FILE}*")] == []


def test_a_session_that_was_left_stays_ended(tmp_path: Path, tokens: TokenStore) -> None:
    sessions = server_starts(tmp_path, tokens)
    left, kept = signed_in(sessions), signed_in(sessions)
    sessions.leave(left)
    again = server_starts(tmp_path, tokens)
    assert (again.find(left), again.find(kept)) == (None, Caller("session:ci", "control"))


@pytest.mark.parametrize("change", ["rotate", "revoke", "revoke and create"])
def test_a_token_that_counts_no_more_has_no_sessions(tmp_path: Path, tokens: TokenStore, change: str) -> None:
    sessions = server_starts(tmp_path, tokens)
    value, other = signed_in(sessions), signed_in(sessions, "local")
    # By another process, which the server has not heard of when it next writes its sessions.
    if change == "rotate":
        tokens.rotate("ci")
    else:
        tokens.revoke("ci")
    if change == "revoke and create":
        tokens.create("ci", "admin")
    signed_in(sessions, "local")
    again = server_starts(tmp_path, tokens)
    assert (again.find(value), again.find(other)) == (None, Caller("session:local", "control"))


@pytest.mark.parametrize("name", ["ci", "local"])
@pytest.mark.parametrize("change", ["rotate", "revoke", "revoke and create"])
def test_sessions_and_links_end_at_once_when_another_process_changes_their_token(
    tmp_path: Path, tokens: TokenStore, name: str, change: str
) -> None:
    sessions = server_starts(tmp_path, tokens)
    value, link = signed_in(sessions, name), sessions.link(Caller(name, "control"))
    assert sessions.find(value) == Caller(f"session:{name}", "control")
    elsewhere = TokenStore(tmp_path)
    if change == "rotate" or name == "local":
        elsewhere.rotate(name)
    else:
        elsewhere.revoke(name)
    if change == "revoke and create" and name != "local":
        elsewhere.create(name, "control")
    assert sessions.find(value) is None
    with pytest.raises(Unauthorized):
        sessions.enter(link)


def test_another_local_token_from_the_environment_ends_those_of_the_old_one(tmp_path: Path, tokens: TokenStore) -> None:
    value = signed_in(server_starts(tmp_path, tokens), "local")
    other = TokenStore(tmp_path, override="another-token-of-32-characters-xx")
    assert server_starts(tmp_path, other).find(value) is None


def test_a_server_on_another_port_has_sessions_of_its_own(tmp_path: Path, tokens: TokenStore) -> None:
    value = signed_in(server_starts(tmp_path, tokens))
    assert server_starts(tmp_path, tokens, port=2).find(value) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"{"),
        lambda path: path.write_bytes(b'{"port": 1, "sessions": [{"sha256": "x"}]}'),
        lambda path: path.write_bytes(b" " * (MAX_BYTES + 1)),
        lambda path: path.chmod(0o644),
        lambda path: path.rename(path.with_name("moved")) and path.symlink_to(path.with_name("moved")),
        lambda path: path.unlink() or path.mkdir(),
    ],
)
def test_a_file_that_can_not_be_trusted_lets_nobody_in(tmp_path: Path, tokens: TokenStore, harm: object) -> None:
    value = signed_in(server_starts(tmp_path, tokens))
    assert callable(harm)
    harm(tmp_path / FILE)
    assert server_starts(tmp_path, tokens).find(value) is None


def test_a_session_that_ends_while_nothing_can_be_written_does_not_come_back(
    tmp_path: Path, tokens: TokenStore
) -> None:
    value = signed_in(server_starts(tmp_path, tokens))
    # The longest path there can be: the draft beside it has a longer name, and can't be made.
    deep = tmp_path
    while (left := PATH_MAX - 2 - len(str(deep / FILE))) > 1:
        deep /= "x" * min(left - 1, 200)
        deep.mkdir()
    (tmp_path / FILE).rename(deep / FILE)
    sessions = server_starts(deep, tokens)
    assert sessions.find(value) is not None
    sessions.leave(value)
    assert server_starts(deep, tokens).find(value) is None


def test_a_browser_stays_signed_in_over_a_restart_of_a_real_server(launched: Launch) -> None:
    with reserved_port() as port, httpx2.Client(timeout=DEADLINE_S) as browser:
        first = launched(port=port)
        with first.client() as cli:
            browser.get(cli.post("/api/session/link", json={}).json()["url"])
        assert browser.get(f"{first.url}/api/runs").status_code == 200
        first.process.kill()
        first.wait()
        second = launched(port=port)
        assert browser.get(f"{second.url}/api/runs").status_code == 200
        origin = {"Origin": second.url, "Content-Type": "application/json"}
        assert browser.post(f"{second.url}/api/session/leave", headers=origin, content=b"{}").status_code == 204
        assert second.end() == 0
        third = launched(port=port)
        assert browser.get(f"{third.url}/api/runs").status_code == 401


def test_a_token_that_another_process_takes_back_ends_its_browsers_at_once(launched: Launch) -> None:
    server = launched()
    with server.client() as cli, httpx2.Client(timeout=DEADLINE_S) as browser:
        bearer = {
            "Authorization": f"Bearer {cli.post('/api/tokens', json={'name': 'pc', 'scope': 'read'}).json()['token']}"
        }
        browser.get(cli.post("/api/session/link", json={}, headers=bearer).json()["url"])
        assert browser.get(f"{server.url}/api/runs").status_code == 200
        TokenStore(server.state_dir).revoke("pc")
        assert browser.get(f"{server.url}/api/runs").status_code == 401
        assert browser.get(f"{server.url}/api/runs", headers=bearer).status_code == 401
