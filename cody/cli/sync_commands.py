"""`cody sync`: send a run, a thread or a session file to another Cody, and look at what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cody.cli.invoke import finish, settings_of

PUSH_EXAMPLES = """\
Examples:

\b
  cody sync push 3f9a --to https://cody.example.org --token-file ~/.cody-team-token
  cody sync push thread:7c1e2a --to https://cody.example.org
  cody sync push ~/.codex/sessions/2026/01/31/rollout-2026-01-31T09-00-00-....jsonl --to https://cody.example.org

A push that breaks off goes on where it stopped when the same command is given again. Exit codes: 0 it is there, 3 it
failed there, 4 it was cancelled there, 69 the server does not answer.
"""
LIST_EXAMPLES = """\
Examples:

\b
  cody sync list                                        pushes of this machine that have not ended
  cody sync list 3f9a --to https://cody.example.org      what was sent of a run
"""

sync_app = typer.Typer(
    name="sync",
    help="Send what happened here to another Cody: durable, resumable, verified.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

To = Annotated[
    str, typer.Option("--to", help="The other Cody's address.", envvar="CODY_SYNC_URL", metavar="URL", show_envvar=True)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="A file with the token for it; else CODY_SYNC_TOKEN.", metavar="FILE", show_default=False),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `push` and `list` print it.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@sync_app.command(epilog=PUSH_EXAMPLES)
def push(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="RUN, thread:ID, or a file.")],
    to: To,
    token_file: TokenFile = None,
    conversation: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="The conversation that it is the record of there.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is verified there.")] = True,
    patience_s: Annotated[
        float, typer.Option("--patience", min=0, metavar="SEC", help="How long to wait for a server that is away.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Send a run that has ended, a thread, or a session file; go on where an earlier push broke off."""
    settings = settings_of(ctx)

    from cody.cli.syncing import Target, push_what

    target = Target(to, token_file, patience_s)
    finish(push_what(settings, target, what, conversation=conversation, wait=wait, json=as_json))


@sync_app.command()
def status(ctx: typer.Context, job: Job, to: To, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """One job: how far it is, and why it failed.

    \b
    Example: cody sync status 5d0c... --to https://cody.example.org --json
    """
    settings = settings_of(ctx)

    from cody.cli.syncing import Target, show_job

    finish(show_job(settings, Target(to, token_file), job, json=as_json))


@sync_app.command("list", epilog=LIST_EXAMPLES)
def list_jobs(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(metavar="[WHAT]", help="What was pushed, or a conversation's id.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="The other Cody's address.", envvar="CODY_SYNC_URL", metavar="URL", show_default=False
        ),
    ] = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Jobs of a conversation there, newest first; without WHAT, the pushes from here that have not ended."""
    settings = settings_of(ctx)

    from cody.cli.syncing import Target, show_jobs, show_unfinished

    if what is None:
        finish(show_unfinished(settings, json=as_json))
    if to is None:
        raise typer.BadParameter("--to (or CODY_SYNC_URL) says which Cody to ask")
    finish(show_jobs(settings, Target(to, token_file), what, json=as_json))


@sync_app.command()
def cancel(ctx: typer.Context, job: Job, to: To, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """End a job there. One that has ended stays as it is.

    \b
    Example: cody sync cancel 5d0c... --to https://cody.example.org
    """
    settings = settings_of(ctx)

    from cody.cli.syncing import Target, cancel_job

    finish(cancel_job(settings, Target(to, token_file), job, json=as_json))
