"""Log lines of a process: on stderr, machine-readable where a machine reads, and never the reason for an end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.server.cody_server import REPOSITORY, clean_environment

PROGRAM = """
import logging
from structlog import get_logger
from cody.logs import configure_logs
from cody.settings import load_settings
configure_logs(load_settings().log_level)
log = get_logger()
log.debug("quiet.past", n=1)
log.info("run.started", run_id="r1", odd={1: b"x"}, text="two\\nlines")
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("trouble with %s", "it")
def fails():
    secret = "verysecret"
    raise ValueError("broken")
try:
    fails()
except ValueError:
    log.exception("turn.failed")
"""


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_each_line_is_a_json_object_and_stdout_is_clean() -> None:
    done = run_program()
    assert done.stdout == ""
    started, trouble, failed = [json.loads(line) for line in done.stderr.splitlines()]
    assert (started["event"], started["level"], started["run_id"]) == ("run.started", "info", "r1")
    assert (started["text"], started["ts"][-1]) == ("two\nlines", "Z")
    assert (trouble["event"], trouble["level"]) == ("trouble with it", "warning")
    assert failed["event"] == "turn.failed"
    assert "ValueError: broken" in failed["exception"]
    assert "verysecret" not in done.stderr


@pytest.mark.parametrize(("level", "first"), [("debug", "quiet.past"), ("ERROR", "turn.failed"), ("", "run.started")])
def test_the_level_is_a_setting(level: str, first: str) -> None:
    assert json.loads(run_program(CODY_LOG_LEVEL=level).stderr.splitlines()[0])["event"] == first


def test_a_terminal_gets_keys_and_values() -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, env=clean_environment(), stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # a terminal ends with an error, not with an empty read
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    plain = said.decode()
    assert "run.started" in plain
    assert not plain.startswith("{")
    assert "run_id" in plain
    assert "ValueError: broken" in plain
    assert "verysecret" not in plain


def test_a_reader_of_stderr_that_went_away_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = PROGRAM + "\nprint('still here')\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=writing,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"still here\n")
