"""`cody doctor`: what Cody needs on this machine, each `ok` or with what mends it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cody.errors import CodyError
from cody.logs import configure_logs
from cody.settings import Settings, agent_environment, environment, load_settings
from harness import findings
from harness.findings import Finding

EXAMPLES = """\
Each line says `ok`; or `todo`: to be done before a run here; or `FAIL`: Cody can't work like this. What stands behind
`->` mends it. Nothing is started and nothing is changed.

examples:
  cody doctor
  cody doctor --working-dir ~/src/shop
  cody doctor --json | jq '.checks[] | select(.state != "ok")'

exit codes: 0 nothing failed, 1 something did, 2 wrong usage
"""

STYLES = {"ok": "32", "todo": "33", "fail": "1;31"}


async def examine(settings: Settings, working_dir: Path) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    env = agent_environment()
    found, binary = findings.codex(settings, env)
    agent = [found]
    if binary is not None and findings.has_sandbox_probe():
        agent.append(findings.sandbox(binary, env))
    return [
        *agent,
        findings.control_group(),
        findings.credentials(env, environment()),
        await findings.store(settings),
        await findings.server(settings),
        findings.state_folder(settings.state_dir),
        findings.disk(settings.state_dir),
        findings.git(working_dir),
        findings.harness_folder(working_dir),
    ]


def lines(found: Sequence[Finding], *, colour: bool) -> list[str]:
    """The findings for a person."""
    width = max(len(finding.name) for finding in found)
    answer = []
    for finding in found:
        state = f"{'FAIL' if finding.state == 'fail' else finding.state:4}"
        shown = f"\x1b[{STYLES[finding.state]}m{state}\x1b[0m" if colour else state
        answer.append(f"{shown}  {finding.name:{width}}  {' '.join(finding.found.split())}")
        if finding.mend is not None:
            answer.append(f"{'':{width + 8}}-> {finding.mend}")
    return answer


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cody doctor",
        description="Check what Cody needs on this machine, and say what mends it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--working-dir", type=Path, default=Path(), metavar="DIR", help="a repository (default: here)")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the state folder (CODY_STATE_DIR)")
    parser.add_argument("--json", action="store_true", help='print {"ok", "checks": [{"name", "state", ...}]}')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = _arguments(argv)
    # What was found is said by the findings; the log would say it twice, and in the way of --json.
    configure_logs("critical")
    try:
        settings = load_settings(state_dir=arguments.state_dir)
    except CodyError as error:
        print(f"cody doctor: {error.message}", file=sys.stderr)
        return 1
    found = asyncio.run(examine(settings, Path(os.path.abspath(arguments.working_dir.expanduser()))))
    ok = all(finding.state != "fail" for finding in found)
    if arguments.json:
        print(json.dumps({"ok": ok, "checks": [asdict(finding) for finding in found]}, indent=2))
    else:
        print("\n".join(lines(found, colour=sys.stdout.isatty() and not environment().get("NO_COLOR"))))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
