"""What a request says reaches the agent as it was meant: no option, no other program, no path of the disk, no loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from tests.security.asking import START, ended_run, start_body
from tests.security.conftest import Launch
from tests.server.cody_server import CodyServer

LOADERS = (
    *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "GCONV_PATH"),
    *(
        "NODE_OPTIONS",
        "NODE_PATH",
        "npm_config_script_shell",
        "BASH_ENV",
        "ENV",
        "ZDOTDIR",
        "BASH_FUNC_ls",
        "PS4",
        "IFS",
    ),
    *("PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PERL5OPT", "PERL5LIB", "PERL5DB", "RUBYOPT"),
    *("JAVA_TOOL_OPTIONS", "CLASSPATH", "DOTNET_STARTUP_HOOKS", "ERL_AFLAGS", "LUA_INIT_5_4", "RUSTC_WRAPPER", "PHPRC"),
    *("GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_EXEC_PATH", "GIT_EDITOR", "SSH_ASKPASS", "PAGER"),
    *("CODY_SECRET_KEY", "CODY_RUN_ID", "CODY_FENCE"),
)
"""Each makes code of its value, in programs that have nothing to do with the run; or is Cody's own."""
HOSTILE: list[tuple[str, Any]] = [
    ("model", "--dangerously-bypass-approvals-and-sandbox"),
    ("model", "-c"),
    ("model", "x\n--sandbox=danger-full-access"),
    ("model", "x\x00y"),
    ("model", "\u202egpt"),
    ("reasoning", 'high" -c sandbox_mode="danger-full-access'),
    ("reasoning", "--help"),
    ("sandbox", "danger-full-access --full-auto"),
    ("sandbox", "none"),
    ("approval", "never --yolo"),
    ("session", "--last"),
    ("agent", "/bin/sh"),
    ("harnessDir", "../../etc"),
    ("harnessDir", "/etc"),
    ("harnessDir", "."),
    ("harnessDir", "a\x00b"),
    *(("env", {name: "/tmp/evil"}) for name in LOADERS),
    ("env", {"CODY_TOKEN": "x"}),
    ("env", {"CODY_STOP_FILE": "/etc/passwd"}),
    ("env", {"A=B": "x"}),
    ("env", {"A\nB": "x"}),
    ("env", {"": "x"}),
    ("env", {"A": "x\x00y"}),
    ("command", []),
    ("command", [""]),
    ("command", ["true\x00"]),
    ("command", "rm -rf /"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_no_value_becomes_an_option_or_another_program(
    client: httpx2.Client, workspace: Path, field: str, value: Any
) -> None:
    config = {"workingDir": str(workspace), field: value} | ({"agent": "command"} if field == "command" else {})
    refused = client.post(START, json={"epicId": "e", "config": config})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"].isprintable()
    assert refused.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "epic_id",
    ["..", ".", "../current-epic", "a/b", "a\\b", "/etc", "a\x00b", "a\nb", "\u202etxt", "a\x1b[2J", "", "x" * 129],
)
def test_an_epic_is_one_name(client: httpx2.Client, workspace: Path, epic_id: str) -> None:
    refused = client.post(START, json={**start_body(workspace), "epicId": epic_id})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].isprintable()


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/static/../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/api/runs/..%2f..%2f/turns/1/output",
        "/api/runs/6f2c1a52-7c62-4bde-9b53-25a1a6b1c111/turns/..%2f1/output",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_no_path_of_a_request_reaches_the_disk(server: CodyServer, path: str) -> None:
    status, _, body = server.raw(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{server.auth_line}Connection: close\r\n\r\n".encode()
    )
    assert status in {400, 404}
    assert b"root:" not in body


CANARIES = {
    "CODY_TOKEN": "the-token-of-the-operator",
    "CODY_SECRET_KEY": "the-key-of-the-operator",
    "DATABASE_URL": "sqlite+aiosqlite:///{folder}/archive.db?x=database-canary",
    "AWS_SECRET_ACCESS_KEY": "aws-canary",
    "SSH_AUTH_SOCK": "/run/ssh-canary",
    "GITHUB_TOKEN": "github-canary",
    "LD_LIBRARY_PATH": "/ld-canary",
}


async def test_the_agents_environment_has_what_is_allowed_and_what_the_run_gives(
    redis: Redis, launched: Launch, folder: Path, workspace: Path, valkey_url: str
) -> None:
    """Of the guard that starts it too: every process of the turn is looked at.

    `redis`: empty at first, or the server would take up what runs other tests have left, and have no slot for this one.
    """
    own = {name: value.replace("{folder}", str(folder)) for name, value in CANARIES.items()}
    server = launched(**own, REDIS_URL=valkey_url, OPENAI_API_KEY="for-the-agent", LC_ALL="C.UTF-8", SHLVL="7")
    code = """
import json, os, pathlib
seen = {"own": dict(os.environ)}
pid = os.getppid()
while pid > 1:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    name = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\\0", b" ").decode()
    if "server" in name: break
    seen[name] = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode()
    pid = int(status.split("PPid:")[1].split()[0])
pathlib.Path("environment.json").write_text(json.dumps(seen))
"""
    headers = {"Authorization": f"Bearer {CANARIES['CODY_TOKEN']}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        body = start_body(workspace, code, env={"CODEX_HOME": "/own/codex", "FOO": "bar"})
        ended_run(client, body)
    text = (workspace / "environment.json").read_text()
    for name, value in own.items():
        assert value not in text, name
        assert f'"{name}"' not in text
    assert valkey_url not in text
    assert "REDIS_URL" not in text
    assert '"FOO": "bar"' in text
    assert '"SHLVL": "7"' in text  # else bash takes the agent's commands for ones over the network
    assert '"CODEX_HOME": "/own/codex"' in text
    assert '"OPENAI_API_KEY": "for-the-agent"' in text
