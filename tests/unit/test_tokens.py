"""Tokens: made, found, rotated, revoked; kept as hashes, private, and seen by a server that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cody.errors import ConfigurationError, Conflict, InvalidRequest, NotFound
from cody.tokens import LOCAL, Caller, TokenStore


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    made = TokenStore(tmp_path)
    made.prepare()
    return made


def test_the_first_start_makes_the_local_token_and_the_next_keeps_it(store: TokenStore, tmp_path: Path) -> None:
    value = store.local_value()
    assert value is not None
    assert store.find(value) == Caller(LOCAL, "admin")
    TokenStore(tmp_path).prepare()
    assert TokenStore(tmp_path).local_value() == value
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_scopes_include_those_below() -> None:
    assert [Caller("x", "control").may(scope) for scope in ("read", "control", "admin")] == [True, True, False]
    assert not Caller("x", "read").may("control")
    assert Caller("x", "admin").may("admin")


def test_a_token_is_kept_by_its_hash_only(store: TokenStore, tmp_path: Path) -> None:
    value = store.create("ci", "read")
    assert store.find(value) == Caller("ci", "read")
    assert value not in (tmp_path / "tokens.json").read_text()
    for wrong in ("", value[:-1], value + "x", value.upper(), "\udcff"):
        assert store.find(wrong) is None


def test_a_running_server_sees_what_another_process_changed(store: TokenStore, tmp_path: Path) -> None:
    other = TokenStore(tmp_path)
    value = other.create("ci", "control")
    assert store.find(value) == Caller("ci", "control")
    fresh = other.rotate("ci")
    assert store.find(value) is None
    assert store.find(fresh) == Caller("ci", "control")
    other.revoke("ci")
    assert store.find(fresh) is None


def test_rotating_the_local_token_is_what_the_cli_reads_next(store: TokenStore) -> None:
    before = store.local_value()
    value = store.rotate(LOCAL)
    assert value == store.local_value() != before
    assert before is not None
    assert store.find(before) is None


def test_cody_token_takes_the_place_of_the_kept_one(store: TokenStore, tmp_path: Path) -> None:
    kept = store.local_value()
    assert kept is not None
    given = TokenStore(tmp_path, override="given-by-the-environment")
    assert given.find("given-by-the-environment") == Caller(LOCAL, "admin")
    assert given.find(kept) is None
    assert given.local_value() == "given-by-the-environment"


def test_what_can_go_wrong_is_said(store: TokenStore, tmp_path: Path) -> None:
    store.create("ci", "read")
    with pytest.raises(Conflict, match="ci"):
        store.create("ci", "read")
    for name in ("", "A", "../x", "x" * 65, "a b"):
        with pytest.raises(InvalidRequest):
            store.create(name, "read")
    with pytest.raises(NotFound):
        store.rotate("nobody")
    with pytest.raises(NotFound):
        store.revoke("nobody")
    with pytest.raises(Conflict):
        store.revoke(LOCAL)
    (tmp_path / "tokens.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        TokenStore(tmp_path).prepare()
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"tokens\.json"):
        store.find("x")
