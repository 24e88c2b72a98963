"""Asks for known vulnerabilities of the pinned dependencies: `python -m tests.security.dependency_audit [OPTIONS of pip-audit]`.

Exit code 1 when there are some. Without a network there is no answer: that is said, and is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

PINNED = "constraints.txt"
DEADLINE_S = 300


def main(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    command += ["--requirement", PINNED, "--no-deps", "--disable-pip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return _unasked("no answer in time")
    except ValueError:
        return _unasked((done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1])
    bad = [
        f"{one['name']} {one['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for one in report["dependencies"]
        for known in one.get("vulns", [])
    ]
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


def _unasked(why: str) -> int:
    print(f"dependencies were not audited: {why[:200]}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
