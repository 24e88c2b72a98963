"""Runs every fault several times and writes the table of docs/reliability.md: `python -m tests.faults.report`.

Each try has its seed, so that a failure can be had again: `--only NAME --seed SEED --tries 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.faults.machines import can_isolate
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stage import Measured, leases
from tests.marked_table import with_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
DEADLINE_S = 180
SHORT_MS, LONG_MS = 1_500, 3_000
"""Leases that a quiet machine keeps; else each fault would take half a minute."""
COLUMNS = ("fault", "tries", "failed", "orphans", "lost", "duplicated", "gaps", "overlap ms", "take-over ms")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def row(scenario: Scenario, found: Sequence[Measured], failed: int) -> str:
    """One line of the table: sums over the tries, the worst overlap, the longest take-over."""
    taken = [one.takeover_ms for one in found if one.takeover_ms is not None]
    cells = [
        scenario.title,
        str(len(found) + failed),
        str(failed),
        *(str(sum(getattr(one, name) for one in found)) for name in ("orphans", "lost", "duplicated", "gaps")),
        f"{max((one.overlap_ms for one in found), default=0):.0f}",
        f"{max(taken):.0f}" if taken else "-",
    ]
    return f"| {' | '.join(cells)} |"


def impossible(scenario: Scenario) -> str:
    return f"| {scenario.title} | 0: not possible here, needs {scenario.needs} | | | | | | | |"


def _try(scenario: Scenario, seed: int) -> Measured | None:
    started = time.monotonic()
    try:
        found = asyncio.run(asyncio.wait_for(scenario.run(seed), DEADLINE_S))
    except Exception as error:
        text = f"{type(error).__name__}: {str(error)[:600]}"
        print(f"FAILED {scenario.name} seed={seed}: {text}", flush=True)
        return None
    took = time.monotonic() - started
    print(f"{'ok    ' if found.clean else 'BROKEN'} {scenario.name} seed={seed} {took:.1f} s {found}", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """1 when a try failed or a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.report", description="Inject every fault; write the table."
    )
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="a scenario's name; nothing is written then")
    options = parser.parse_args(argv)
    # As Ctrl-C: the try that runs clears its stage (machines, mounts, networks).
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    leases.short_ms, leases.long_ms = SHORT_MS, LONG_MS
    rows, bad = [HEAD], 0
    for scenario in SCENARIOS:
        if options.only and scenario.name not in options.only:
            continue
        if not scenario.possible():
            rows.append(impossible(scenario))
            continue
        tried = [_try(scenario, options.seed + number) for number in range(options.tries)]
        found = [one for one in tried if one is not None]
        bad += len(tried) - len(found) + sum(not one.clean for one in found)
        rows.append(row(scenario, found, len(tried) - len(found)))
    machines = (
        "each host in a PID namespace of its own" if can_isolate() else "hosts share one PID namespace (not root)"
    )
    host = f"Linux {platform.release()}, Python {platform.python_version()}, {machines}"
    rows += ["", f"{host}; leases of {SHORT_MS / 1000:g} to {LONG_MS / 1000:g} s."]
    if not options.only:
        DOCUMENT.write_text(
            with_table(DOCUMENT.read_text(encoding="utf-8"), "faults", "\n".join(rows)), encoding="utf-8"
        )
    else:
        print("\n".join(rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
