"""Measures the goals of docs/performance.md and writes its table: `python -m tests.bench [--quick] [--only NAME]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import structlog

from tests.bench import fan_out, lines, processes, reading, starting
from tests.bench.figures import HEAD, Figure, row
from tests.marked_table import with_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
Measure = Callable[..., Coroutine[None, None, list[Figure]]]
PARTS: dict[str, Measure] = {
    "lines": lines.measure,
    "fan_out": fan_out.measure,
    "processes": processes.measure,
    "reading": reading.measure,
    "starting": starting.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """1 when a part could not be measured; a goal that is missed is shown, and no failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the goals of performance.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; nothing is written then")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures: list[Figure] = []
    failed = 0
    for name in options.only or PARTS:
        began = time.perf_counter()
        try:
            found = asyncio.run(PARTS[name](quick=options.quick))
        except Exception as error:
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}"[:1_000], flush=True)
            continue
        figures += found
        print(f"{name}: {time.perf_counter() - began:.0f} s", *map(row, found), sep="\n", flush=True)
    figures.sort(key=lambda one: one.goal)
    load = os.getloadavg()[0]
    machine = (
        f"Linux {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}; "
        f"load average at the end {load:.1f}."
    )
    table = "\n".join([HEAD, *map(row, figures), "", machine])
    print(table)
    if not options.only and not failed:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), "bench", table), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
