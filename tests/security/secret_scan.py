"""Looks for keys in every file under version control: `python -m tests.security.secret_scan [FILE...]`.

Exit code 1, with file and line but never the value, when something looks like a real one. A line that must hold such a
value for a test says `secret-scan: none here`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ALLOWED = "secret-scan: none here"
MAX_BYTES = 4 << 20
PATTERNS = {
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*[A-Za-z0-9+/=]{16}",
    "OpenAI key": r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20,}",
    "Anthropic key": r"\bsk-ant-[a-z]+[0-9]{2}-[A-Za-z0-9_-]{80,}",
    "AWS access key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}",
    "Google key": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "PyPI token": r"\bpypi-AgEIcHlwaS[A-Za-z0-9_-]{50,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{20,}",
    "Cody token": r"\bcody_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
}
FOUND = {name: re.compile(pattern.encode()) for name, pattern in PATTERNS.items()}


def findings(path: str, data: bytes) -> Iterator[str]:
    """`file:line: what it looks like`, for each."""
    lines = data.split(b"\n")
    for name, pattern in FOUND.items():
        for match in pattern.finditer(data):
            number = data.count(b"\n", 0, match.start()) + 1
            if ALLOWED.encode() not in lines[number - 1]:
                yield f"{path}:{number}: looks like a {name}"


def tracked() -> list[str]:
    """Every file that is, or is about to be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    )
    return [name for name in listed.stdout.decode().split("\0") if name]


def scan(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in paths:
        path = Path(name)
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES:
            found += findings(name, path.read_bytes())
    return found


def main(arguments: Sequence[str]) -> int:
    found = scan(arguments or tracked())
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
