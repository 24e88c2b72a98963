"""Runs, turns and one run as tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from cody.cli.amounts import ago, clock, count, duration, elapsed_s, moment, plural
from cody.cli.status_bar import STATUS_STYLE, status_text, tests_text
from cody.cli.untrusted import one_line
from cody.contracts.run import RunSnapshot, RunStats, RunSummary, TurnRecord

ID_CHARS = 8
"""Of a run's id in listings: commands take any unique beginning."""


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, style in columns:
        right = style == "right"
        table.add_column(name, justify="right" if right else "left", style="" if right else style, no_wrap=True)
    return table


def _add(table: Table, *cells: str | Text) -> None:
    """A row in which no text is taken for markup, whatever the console that prints it does."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def runs_table(runs: Sequence[RunSummary], now: datetime) -> Table:
    """One row a run."""
    table = _table(
        ("RUN", "cyan"), ("STATUS", ""), ("EPIC", ""), ("STARTED", ""), ("TOOK", "right"), ("TURNS", "right"),
        ("TOKENS", "right"), ("FILES", "right"), ("TESTS", ""), ("FOLDER", "dim"),
    )  # fmt: skip
    for run in runs:
        _add(
            table,
            run.run_id[:ID_CHARS],
            status_text(run.status),
            one_line(run.epic_id, 30),
            ago(run.started_at or run.created_at, now),
            duration(elapsed_s(run.started_at, run.finished_at)) if run.started_at else "",
            str(run.stats.turns),
            count(run.stats.tokens),
            str(run.stats.files_written),
            _tests(run.stats.tests_passed, run.stats.tests_failed),
            one_line(run.working_dir, 200),
        )
    return table


def turns_table(turns: Sequence[TurnRecord]) -> Table:
    """One row a turn."""
    table = _table(
        ("TURN", "right"), ("STATUS", ""), ("STARTED", ""), ("TOOK", "right"), ("EXIT", "right"), ("TOKENS", "right"),
        ("FILES", "right"), ("TESTS", ""), ("LAST MESSAGE", "dim"),
    )  # fmt: skip
    for turn in turns:
        said = turn.error.message if turn.error else turn.last_message or ""
        _add(
            table,
            str(turn.turn),
            Text(turn.status, STATUS_STYLE.get(turn.status, "yellow")),
            clock(turn.started_at),
            duration(turn.duration_ms / 1000) if turn.duration_ms is not None else "",
            "" if turn.exit_code is None else str(turn.exit_code),
            count(turn.token_usage.total_tokens),
            str(turn.files_written),
            _tests(turn.tests_passed, turn.tests_failed),
            Text(one_line(said, 300), "red" if turn.error else "dim"),
        )
    return table


def snapshot_table(run: RunSnapshot, logs: str) -> Table:
    """A run as names and values. `logs`: where its output is, or how to read it."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(run):
        _add(table, name, value)
    _add(table, "output", logs)
    return table


def _facts(run: RunSnapshot) -> list[tuple[str, str | Text]]:
    config, stats = run.config, run.stats
    status = status_text(run.status)
    if run.reason:
        status.append(f" ({one_line(run.reason)})", "")
    facts: list[tuple[str, str | Text]] = [("run", run.run_id), ("status", status)]
    if run.error:
        facts.append(("error", Text(f"{one_line(run.error.code)}: {one_line(run.error.message, 2000)}", "red")))
    if run.completion.detected:
        line = f": {one_line(run.completion.line)}" if run.completion.line else ""
        facts.append(("completed by", f"{(run.completion.source or '?').replace('_', ' ')}{line}"))
    began = moment(run.started_at) if run.started_at else None
    took = duration(elapsed_s(run.started_at, run.finished_at))
    facts += [
        ("epic", one_line(run.epic_id)),
        ("folder", one_line(run.working_dir, 2000)),
        ("agent", _agent(run)),
        ("started", f"{began.astimezone():%Y-%m-%d %H:%M:%S}, {took} ago" if began else "not yet"),
        ("turns", f"{stats.turns} done" + (f" of at most {config.max_turns}" if config.max_turns else "")),
        ("tokens", _tokens(stats)),
        ("files", f"{plural(stats.files_written, 'file')} written"),
    ]
    if began and run.finished_at:
        facts[-4] = ("started", f"{began.astimezone():%Y-%m-%d %H:%M:%S}, took {took}")
    if stats.tests_passed or stats.tests_failed:
        facts.append(("tests", tests_text(stats)))
    return facts


def _agent(run: RunSnapshot) -> str:
    config = run.config
    if config.command is not None:
        return f"command: {one_line(' '.join(config.command))}"
    words = [config.agent, config.model, config.reasoning and f"reasoning {config.reasoning}", config.sandbox]
    return ", ".join(one_line(word) for word in words if word)


def _tokens(stats: RunStats) -> str:
    cached = f" ({count(stats.cached_input_tokens)} cached)" if stats.cached_input_tokens else ""
    return f"{count(stats.tokens)}: {count(stats.input_tokens)} in{cached}, {count(stats.output_tokens)} out"


def _tests(passed: int, failed: int) -> Text:
    if not passed and not failed:
        return Text("")
    return Text.assemble((f"{passed}", "green"), "/", (f"{failed}", "red" if failed else "dim"))
