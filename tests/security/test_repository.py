"""What is committed has no key in it, and the scan that says so finds one."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.secret_scan import ALLOWED, PATTERNS, findings, scan, tracked
from tests.server.cody_server import REPOSITORY


def made_up() -> dict[str, str]:
    """One of each kind, made now: written down, it would be found itself."""
    word = secrets.token_hex(50)
    upper = "".join(secrets.choice("ABCDEFGHIJKLMNOP") for _ in range(16))
    return {
        "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{word}",
        "OpenAI key": f"sk-proj-{word[:20]}T3BlbkFJ{word[:20]}",
        "Anthropic key": f"sk-ant-api03-{word}",
        "AWS access key": f"AKIA{upper}",
        "GitHub token": f"ghp_{word[:36]}",
        "GitLab token": f"glpat-{word[:20]}",
        "Slack token": f"xoxb-{word[:24]}",
        "Google key": f"AIza{word[:35]}",
        "Stripe key": f"sk_live_{word[:24]}",
        "npm token": f"npm_{word[:36]}",
        "PyPI token": f"pypi-AgEIcHlwaS{word[:60]}",
        "JSON web token": f"eyJ{word[:20]}.eyJ{word[:20]}.{word[:30]}",
        "Cody token": f"cody_{secrets.token_urlsafe(32)}",
    }


@pytest.mark.parametrize("kind", sorted(PATTERNS))
def test_each_kind_of_key_is_found_and_never_repeated(kind: str) -> None:
    value = made_up()[kind]
    (found,) = findings("a.py", f"x = 1\nkey = '{value}'\n".encode())
    assert found == f"a.py:2: looks like a {kind}"
    assert not list(findings("a.py", f"key = '{value}'  # {ALLOWED}\n".replace("\n", " ").encode()))


def test_there_is_no_key_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    names = tracked()
    assert "pyproject.toml" in names
    assert scan(names) == []


def test_the_scan_fails_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "leak.txt").write_text(made_up()["GitHub token"])
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.secret_scan", str(tmp_path / "leak.txt")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path}/leak.txt:1: looks like a GitHub token\n"


def test_an_audit_without_a_network_is_told_and_no_failure(tmp_path: Path) -> None:
    unreachable = ["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/v1/query"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.dependency_audit", *unreachable, "--cache-dir", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0
    assert "were not audited" in done.stderr
