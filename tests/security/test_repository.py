"""What is committed has no key in it, and the scan that says so finds one."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.answering_thread import answering
from tests.security.secret_scan import ALLOWED, PATTERNS, findings, scan, tracked
from tests.server.cody_server import REPOSITORY, clean_environment


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


class Database(ThreadingHTTPServer):
    """Answers as osv.dev does: of one version of one package it knows a hole."""

    daemon_threads = True

    def __init__(self, vulnerable: str | None, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.vulnerable = vulnerable
        self.status = status
        self.options = [
            *("--vulnerability-service", "osv"),
            *("--osv-url", f"http://127.0.0.1:{self.server_address[1]}/v1/query"),
        ]


class _Answering(BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = asked["package"]["name"]
        package = {"name": name, "ecosystem": "PyPI"}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.1"}]}]
        affected = [{"package": package, "versions": [asked["version"]], "ranges": ranges}]
        known = {"id": "PYSEC-2026-1", "summary": "A hole.", "affected": affected}
        answer = json.dumps({"vulns": [known]} if name == self.server.vulnerable else {}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def database(vulnerable: str | None = None, status: int = 200) -> Iterator[Database]:
    with answering(Database(vulnerable, status)) as made:
        yield made


def audited(folder: Path, *options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the audit says; `path`: where Python looks for modules first."""
    given = os.pathsep.join(map(str, [path] if path else []))
    return subprocess.run(
        [sys.executable, "-m", "tests.security.dependency_audit", *options, "--cache-dir", str(folder / "cache")],
        cwd=REPOSITORY,
        env=clean_environment(PYTHONPATH=given),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_an_audit_without_a_network_is_told_and_no_failure(tmp_path: Path) -> None:
    done = audited(tmp_path, "--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/v1/query")
    assert done.returncode == 0
    assert "were not audited" in done.stderr


def test_an_audit_whose_database_is_in_trouble_is_told_and_no_failure(tmp_path: Path) -> None:
    with database(status=503) as known:
        done = audited(tmp_path, *known.options)
    assert (done.returncode, "were not audited" in done.stderr) == (0, True)


def test_a_known_hole_is_a_failure_and_named(tmp_path: Path) -> None:
    with database("starlette") as known:
        done = audited(tmp_path, *known.options)
    assert done.returncode == 1
    assert re.fullmatch(r"starlette [0-9.]+: PYSEC-2026-1, mended in 999\.1\n", done.stderr)


def test_an_audit_that_finds_nothing_says_nothing(tmp_path: Path) -> None:
    with database() as known:
        done = audited(tmp_path, *known.options)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_audit_that_could_not_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "pip_audit.py").write_text("import a_module_that_is_missing\n")
    missing = audited(tmp_path, path=tmp_path)
    assert (missing.returncode, "No module named" in missing.stderr) == (2, True)
    (tmp_path / "pip_audit.py").write_text("print('{}')\n")
    assert audited(tmp_path, path=tmp_path).returncode == 2
    (tmp_path / "pip_audit.py").write_text("""print('{"dependencies": [{"name": "x", "version": "1"}]}'); exit(3)\n""")
    assert audited(tmp_path, path=tmp_path).returncode == 2
    with database(status=400) as known:
        assert audited(tmp_path, *known.options).returncode == 2
        assert audited(tmp_path, *known.options, "--requirement", str(tmp_path / "none.txt")).returncode == 2
