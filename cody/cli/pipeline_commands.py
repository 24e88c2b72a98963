"""Commands about answers and the archive: `submit`, `search`, `export`, `verify`, `projector`, `dead-letters`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cody.cli.invoke import finish, misused, settings_of
from cody.contracts.tool_names import TOOL_NAMES, ToolSandbox

SUBMIT_EXAMPLES = """\
Examples:

\b
  cody submit "What is a fence?" --provider openai --model gpt-5.5
  git diff | cody submit - --provider anthropic --model claude-sonnet-5
  cody submit "And with two hosts?" --provider openai --model gpt-5.5 --thread 0c3f...
  cody submit "Hi" --provider openai --model gpt-5.5 --json | jq .usage
  cody submit "What does setup.py do?" --provider openai --model gpt-5.5 --tool list_dir --tool read_file

With --tool the model may use the tools named (read_file, list_dir, apply_patch, exec) inside --working-dir.

The server asks the model: it needs OPENAI_API_KEY or ANTHROPIC_API_KEY where it is started. Ctrl-C aborts the answer.
Exit codes: 0 it is complete, 3 it ended in an error, 4 it was aborted.
"""
SEARCH_EXAMPLES = """\
Examples:

\b
  cody search 'race condition'
  cody search '"connection reset" redis' --run 3f9a
  cody search pytest --limit 100 --json | jq -r '.hits[].snippet'

All words must occur; "quoted words" as they stand. Nothing is an operator.
"""
EXPORT_EXAMPLES = """\
Examples:

\b
  cody export 3f9a --format md -o run.md
  cody export 3f9a | jq -c 'select(.kind == "event") | .event.type'
  cody export thread:0c3f... --format md
"""
VERIFY_EXAMPLES = """\
Examples:

\b
  cody verify                                         with no key: a recorded answer, played on this machine
  REDIS_URL=... DATABASE_URL=... cody verify --provider anthropic
  cody verify --provider openai --model gpt-5.5 --replay --json

Without REDIS_URL it uses a Redis and a database of its own, which are gone afterwards.
Exit codes: 0 the row is complete, 1 it never ended, 3 it ended in an error.
"""
PROJECTOR_EXAMPLES = """\
Examples:

\b
  REDIS_URL=redis://queue:6379/0 DATABASE_URL=postgresql://... cody projector
"""
LETTERS_EXAMPLES = """\
Examples:

\b
  cody projector dead-letters list --json | jq -r '.letters[].reason'
  cody projector dead-letters retry 1735689600000-0
"""

ProviderChoice = Literal["openai", "anthropic"]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def submit(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask; - reads it from stdin.")],
    provider: Annotated[ProviderChoice, typer.Option(help="Whom to ask.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The provider's model.", metavar="MODEL")],
    thread: Annotated[str | None, typer.Option(help="Go on in this thread.", metavar="ID", show_default=False)] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(help="Let the model use it; may be given several times.", metavar="NAME", show_default=False),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(help="Where the tools work.", metavar="DIR", show_default="the current folder"),
    ] = None,
    sandbox: Annotated[
        ToolSandbox | None, typer.Option(help="What the tools may do.", show_default="workspace-write")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole Response as JSON, at its end.")] = False,
) -> None:
    """Ask a model, and see its answer as it comes."""
    settings = settings_of(ctx)

    from cody.cli.answering import Asked, read_prompt, submit_prompt

    text = read_prompt(prompt)
    if not text.strip():
        misused("the prompt is empty")
    if not tool and (working_dir is not None or sandbox is not None):
        misused("--working-dir and --sandbox are about tools: name some with --tool")
    unknown = sorted(set(tool or ()).difference(TOOL_NAMES))
    if unknown:
        misused(f"no tool {', '.join(unknown)} (there are: {', '.join(TOOL_NAMES)})")
    folder = (working_dir or Path()).absolute() if tool else None
    asked = Asked(text, provider, model, thread, [name for name in TOOL_NAMES if name in (tool or ())], folder, sandbox)
    finish(submit_prompt(settings, asked, json=as_json))


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="WORDS", help="What to look for.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many, newest first.")] = 20,
    run: Annotated[str | None, typer.Option(help="Only in this run.", metavar="RUN", show_default=False)] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on after a page: its nextCursor.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Find messages, commands, outputs and log lines of all runs and answers."""
    settings = settings_of(ctx)

    from cody.cli.archived import search_archive

    finish(search_archive(settings, query, limit=limit, run=run, cursor=cursor, json=as_json))


def export(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A RUN, or thread:ID.")],
    format: Annotated[Literal["jsonl", "md"], typer.Option(help="For programs, or for people.")] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.", metavar="FILE", show_default="stdout")
    ] = None,
) -> None:
    """Write a run or a thread into one file."""
    settings = settings_of(ctx)

    from cody.cli.archived import export_what

    finish(export_what(settings, what, format=format, output=output))


def verify(
    ctx: typer.Context,
    provider: Annotated[ProviderChoice, typer.Option(help="Whose answer.")] = "openai",
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", show_default="a current one")] = None,
    replay: Annotated[
        bool | None,
        typer.Option("--replay/--live", help="A recorded answer, or the real one.", show_default="by the key"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds until it counts as failed.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Send one answer through the whole pipeline and look at what the database has of it."""
    settings = settings_of(ctx)

    from cody.cli.verifying import verify_and_tell

    finish(verify_and_tell(settings, provider, model, timeout_s=timeout, replay=replay, json=as_json))


projector = typer.Typer(
    name="projector",
    help="Keep the archive up to date in a process of its own; look at events that could not be applied.",
    epilog=PROJECTOR_EXAMPLES,
    rich_markup_mode=None,
    invoke_without_command=True,
)
letters = typer.Typer(
    name="dead-letters",
    help="Events that could not be applied to their answer, with the reason.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
projector.add_typer(letters)
Letter = Annotated[str, typer.Argument(metavar="ID", help="A letter's id, as `list` prints it.")]


@projector.callback()
def projector_root(ctx: typer.Context) -> None:
    """`cody projector` alone runs one."""
    if ctx.invoked_subcommand is None:
        run_projector(ctx)


@projector.command("run", epilog=PROJECTOR_EXAMPLES)
def run_projector(ctx: typer.Context) -> None:
    """Write what Redis has of runs and answers into the archive, until SIGTERM."""
    from cody.cli.invoke import root_options
    from cody.cli.processes import become

    state_dir = root_options(ctx).state_dir
    become("projector", [], {} if state_dir is None else {"CODY_STATE_DIR": str(state_dir)})


@letters.command("list", epilog=LETTERS_EXAMPLES)
def list_letters(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List them, the newest first."""
    settings = settings_of(ctx)

    from cody.cli.dead_letters import show_letters

    finish(show_letters(settings, limit=limit, json=as_json))


@letters.command("retry", epilog=LETTERS_EXAMPLES)
def retry_letter(ctx: typer.Context, letter: Letter) -> None:
    """Put the event at the end of its answer's stream once more."""
    settings = settings_of(ctx)

    from cody.cli.dead_letters import retry

    finish(retry(settings, letter))


@letters.command("drop", epilog=LETTERS_EXAMPLES)
def drop_letter(ctx: typer.Context, letter: Letter) -> None:
    """Forget the event."""
    settings = settings_of(ctx)

    from cody.cli.dead_letters import drop

    finish(drop(settings, letter))
