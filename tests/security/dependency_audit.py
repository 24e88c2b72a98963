"""Asks for known vulnerabilities of the pinned dependencies: `python -m tests.security.dependency_audit [OPTIONS of pip-audit]`.

Exit code 1 when there are some; 2 when pip-audit can't be used, or says what can't be understood. Without a network, or with a
database in trouble, there is no answer: that is said, and is no failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

PINNED = "constraints.txt"
DEADLINE_S = 300
NO_ANSWER = re.compile(
    r"Could not connect to |^requests\.exceptions\.(?:ConnectionError|ConnectTimeout|ReadTimeout|ProxyError)\b"
    r"|^requests\.exceptions\.HTTPError: 5\d\d ",
    re.MULTILINE,
)
"""How pip-audit ends when it reaches nobody, or nobody who can answer."""


def main(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    command += ["--requirement", PINNED, "--no-deps", "--disable-pip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return _unasked("no answer in time", code=0)
    try:
        bad = _vulnerable(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        return _unasked(last, code=0 if NO_ANSWER.search(done.stderr) else 2)
    if done.returncode != bool(bad):
        return _unasked(f"pip-audit ended with {done.returncode}", code=2)
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


def _vulnerable(report: dict[str, Any]) -> list[str]:
    """A line for each known hole; raises KeyError, TypeError and ValueError for no report, or one about nothing."""
    if not report["dependencies"]:
        raise ValueError("nothing was looked at")
    return [
        f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for one in report["dependencies"]
        for known in one.get("vulns", [])
    ]


def _unasked(why: str, *, code: int) -> int:
    print(f"dependencies were not audited: {why[:200]}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
