"""Runs, turns and one run as tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from cody.cli.amounts import ago, clock, count, duration, elapsed_s, moment, plural
from cody.cli.columns import GAP, Column, fitted
from cody.cli.status_bar import STATUS_STYLE, status_text, tests_text
from cody.cli.untrusted import one_line
from cody.cli.wording import first_sentence, sentences, source_words
from cody.contracts.run import RunSnapshot, RunStats, RunSummary, TurnRecord

ID_CHARS = 8
"""Of a run's id in listings: commands take any unique beginning."""


RUNS = (
    Column("RUN", "cyan"),
    Column("STATUS"),
    Column("EPIC", rank=1, least=8),
    Column("STARTED", rank=4),
    Column("TOOK", right=True, rank=3),
    Column("TURNS", right=True),
    Column("TOKENS", right=True, rank=5),
    Column("FILES", right=True, rank=6),
    Column("TESTS", rank=2),
    Column("FOLDER", "dim", rank=7, least=24),
)
TURNS = (
    Column("TURN", right=True),
    Column("STATUS"),
    Column("STARTED", rank=4),
    Column("TOOK", right=True, rank=3),
    Column("EXIT", right=True, rank=5),
    Column("TOKENS", right=True, rank=6),
    Column("FILES", right=True, rank=7),
    Column("TESTS", rank=2),
    Column("LAST MESSAGE", "dim", rank=1, least=24),
)


def runs_table(runs: Sequence[RunSummary], now: datetime, width: int) -> Table:
    """One row a run, in at most `width` cells."""
    rows = [
        (
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
        for run in runs
    ]
    return fitted(RUNS, rows, width)


def turns_table(turns: Sequence[TurnRecord], width: int) -> Table:
    """One row a turn, in at most `width` cells."""
    return fitted(TURNS, [_turn(turn) for turn in turns], width)


def _turn(turn: TurnRecord) -> Sequence[str | Text]:
    said = turn.error.message if turn.error else turn.last_message or ""
    return (
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


def run_text(run: RunSnapshot, output: Sequence[tuple[str, str]], *, brief: bool = False) -> Text:
    """A run as names and values, a line each: ids, paths and commands stand whole on theirs, to be copied.

    `output`: where its output is. `brief`: the error was told before, in all its length.
    """
    facts = [*_facts(run, brief=brief), *output]
    width = max(len(name) for name, _ in facts) + GAP
    return Text("\n").join(
        Text.assemble((f"{name:{width}}", "dim"), value if isinstance(value, Text) else Text(value))
        for name, value in facts
    )


def _facts(run: RunSnapshot, *, brief: bool) -> list[tuple[str, str | Text]]:
    config, stats = run.config, run.stats
    status = status_text(run.status)
    if run.reason:
        status.append(f" ({one_line(run.reason)})", "")
    facts: list[tuple[str, str | Text]] = [("run", run.run_id), ("status", status)]
    if run.error:
        said = first_sentence(run.error.message) if brief else sentences(run.error.message)
        facts.append(("error", Text(f"{one_line(run.error.code)}: {said}", "red")))
    if run.completion.detected:
        line = f": {one_line(run.completion.line)}" if run.completion.line else ""
        facts.append(("completed by", f"{source_words(run.completion.source, config.max_turns)}{line}"))
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
