"""`cody token`, `cody audit` and `cody dashboard` against a real server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from cody.cli import access_commands, exits
from cody.contracts.audit import TokenScope
from tests.cli.command_line import CommandLine
from tests.server.cody_server import DEADLINE_S, CodyServer


@pytest.fixture
def cody(server: CodyServer, tmp_path: Path) -> CommandLine:
    return CommandLine(server.state_dir, tmp_path)


def status(server: CodyServer, token: str) -> int:
    bearer = {"Authorization": f"Bearer {token}"}
    return httpx2.get(f"{server.url}/api/runs", headers=bearer, timeout=DEADLINE_S).status_code


def test_the_scopes_to_choose_from_are_those_of_the_contract() -> None:
    assert get_args(access_commands.ScopeChoice) == get_args(TokenScope)


def test_a_token_is_made_rotated_and_revoked(server: CodyServer, cody: CommandLine) -> None:
    made = cody("token", "create", "ci.one", "--scope", "read")
    first = made.stdout.strip()
    assert made.stdout == f"{first}\n"
    assert "not shown again" in made.stderr
    assert status(server, first) == 200
    listed = cody.json("token", "list")["tokens"]
    assert [(one["name"], one["scope"]) for one in listed if one["name"] == "ci.one"] == [("ci.one", "read")]
    assert first not in cody("token", "list").stdout
    second = cody.json("token", "rotate", "ci.one")
    assert (second["scope"], status(server, first), status(server, second["token"])) == ("read", 401, 200)
    assert "already" in cody("token", "create", "ci.one", code=exits.ERROR).stderr
    assert "not a token's name" in cody("token", "create", "../x", code=exits.ERROR).stderr
    cody("token", "revoke", "ci.one")
    assert status(server, second["token"]) == 401
    assert "no token" in cody("token", "revoke", "ci.one", code=exits.ERROR).stderr
    assert "rotate it instead" in cody("token", "revoke", "local", code=exits.ERROR).stderr


def test_the_cli_goes_on_after_its_own_token_is_rotated(server: CodyServer, cody: CommandLine) -> None:
    before = server.token
    done = cody("token", "rotate", "local")
    assert done.stdout == ""
    assert server.token != before
    assert server.token not in done.stderr
    assert cody.json("runs")["runs"] == []
    assert "needs a token" in cody("runs", code=exits.ERROR, CODY_TOKEN=before).stderr


def test_cody_token_takes_the_place_of_the_kept_one_and_has_its_own_scope(cody: CommandLine) -> None:
    reader = cody("token", "create", "reader", "--scope", "read").stdout.strip()
    assert cody("runs", CODY_TOKEN=reader).returncode == exits.OK
    for command in (["audit"], ["token", "list"], ["token", "create", "more"]):
        refused = cody(*command, code=exits.ERROR, CODY_TOKEN=reader)
        assert "needs scope admin" in refused.stderr


def test_the_audit_log_is_shown(cody: CommandLine) -> None:
    cody("token", "create", "seen", "--scope", "read")
    entry = cody.json("audit", "--limit", "1")["entries"][0]
    assert (entry["who"], entry["action"], entry["status"]) == ("local", "POST /api/tokens", 201)
    table = cody("audit").stdout
    assert table.splitlines()[0].split() == ["WHEN", "WHO", "SCOPE", "WHAT", "ON", "FROM", "STATUS"]
    assert "POST /api/tokens" in table


def test_dashboard_prints_a_link_that_lets_a_browser_in(server: CodyServer, cody: CommandLine, tmp_path: Path) -> None:
    url = cody("dashboard").stdout.strip()
    assert url.startswith(f"{server.url}/enter?code=")
    with httpx2.Client(timeout=DEADLINE_S) as browser:
        assert browser.get(url).headers["location"] == "/"
        assert browser.get(f"{server.url}/api/runs").status_code == 200
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    os.chmod(program, 0o755)
    shown = cody("dashboard", "--open", BROWSER=f"{program} %s").stdout.strip()
    assert (tmp_path / "opened").read_text() == shown
    failed = cody("dashboard", "--open", code=exits.ERROR, BROWSER="/bin/false %s", PATH="/nowhere")
    assert "open the link yourself" in failed.stderr
    assert failed.stdout.startswith(server.url)


def test_without_a_server_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    alone = CommandLine(tmp_path / "state", tmp_path)
    for command in (["audit"], ["dashboard"], ["token", "list"]):
        assert "no server" in alone(*command, code=exits.UNREACHABLE).stderr


def test_each_command_explains_itself(cody: CommandLine) -> None:
    for command in (["audit"], ["dashboard"], ["token"], ["token", "create"]):
        assert cody(*command, "--help").stdout.startswith("Usage: cody ")
    assert json.loads(cody("audit", "--json").stdout)["entries"]
