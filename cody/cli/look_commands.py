"""Commands that look at runs: `runs`, `show`, `watch`, `logs`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cody.cli.invoke import finish, settings_of

# The values of RunStatus, spelled again for the same reason as in run_command.
StatusChoice = Literal["queued", "running", "pausing", "paused", "cancelling", "cancelled", "completed", "failed"]

RUNS_EXAMPLES = """\
Examples:

\b
  cody runs --status running
  cody runs --all --json | jq -r '.runs[] | select(.epicId == "checkout") | .runId'
"""
SHOW_EXAMPLES = """\
Examples:

\b
  cody show 3f9a
  cody show 3f9a --json | jq .run.stats
"""
WATCH_EXAMPLES = """\
Examples:

\b
  cody watch 3f9a
  cody watch 3f9a --from '$'
  cody watch 3f9a --json | jq -c 'select(.type == "test_run_completed")'

Ctrl-C asks whether to leave, pause or cancel the run. The exit code tells how the run ended; see `cody --help`.
"""
LOGS_EXAMPLES = """\
Examples:

\b
  cody logs 3f9a | less
  cody logs 3f9a --turn 2 > turn-2.log
  cody logs 3f9a --follow

Into a file or a pipe the bytes go as the agent wrote them. On a terminal, control characters are shown, not obeyed.
"""


def complete_run_id(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest runs, for the shell's completion; none when there is no server to ask."""
    from cody.cli.looking import newest_ids

    return newest_ids(incomplete)


RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's id, or its first four characters or more.", autocompletion=complete_run_id
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def runs(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many, newest first.")] = 20,
    status: Annotated[StatusChoice | None, typer.Option(help="Only runs in this state.", show_default=False)] = None,
    epic: Annotated[str | None, typer.Option(help="Only runs of this epic.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="All of them, not one page.")] = False,
    cursor: Annotated[str | None, typer.Option(help="Go on after a page: its nextCursor.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    settings = settings_of(ctx)

    from cody.cli.looking import list_runs

    finish(list_runs(settings, limit=limit, status=status, epic=epic, every=every, cursor=cursor, json=as_json))


def show(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """One run and its turns. With --json: {"run": ..., "turns": [...]}."""
    settings = settings_of(ctx)

    from cody.cli.looking import show_run

    finish(show_run(settings, run, json=as_json))


def watch(
    ctx: typer.Context,
    run: RunId,
    from_: Annotated[
        str,
        typer.Option("--from", help="Where to begin: 0 is the oldest event kept, $ only new ones, or an event's id."),
    ] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Watch a run from its beginning to its end."""
    settings = settings_of(ctx)

    from cody.cli.looking import watch_existing

    finish(watch_existing(settings, run, from_=from_, json=as_json))


def logs(
    ctx: typer.Context,
    run: RunId,
    turn: Annotated[int | None, typer.Option(min=1, metavar="N", help="Which turn.", show_default="the latest")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the turn has ended; without --turn, the run.")
    ] = False,
) -> None:
    """Print what the agent wrote in a turn, whole and raw."""
    settings = settings_of(ctx)

    from cody.cli.looking import print_output

    finish(print_output(settings, run, turn=turn, follow=follow))
