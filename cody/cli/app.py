"""The command `cody`: its commands, their options, and the words that explain them.

Modules that take long to import (pydantic, httpx2, rich) are imported inside the functions that need them, here and in
the `*_command` modules: `cody --help` and shell completion have to answer within a time that a person does not notice.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import cody
from cody import collecting
from cody.cli import (
    access_commands,
    exits,
    look_commands,
    passed_on,
    pipeline_commands,
    run_command,
    steer_commands,
    stop_command,
    sync_commands,
)
from cody.cli.invoke import RootOptions

EXAMPLES = """\
Examples:

\b
  cody init && cody run                   work on the epic in .cody-harness/current-epic
  cody run --detach --max-turns 20        the same, and leave it alone
  cody runs                               what runs, and what ran
  cody watch 3f9a                         look at a run again, by the start of its id
  cody demo                               see it work, with no key and no network

`cody run` starts a local server when none answers, which ends after five idle minutes; a command that looks at runs or
steers them starts it again. `cody stop` ends it.
"""
EXIT_CODES = "Exit codes:\n\n\b\n" + "\n".join(f"  {code:<5}{words}" for code, words in exits.MEANING.items())

app = typer.Typer(
    name="cody",
    help="Supervise coding agents that work unattended for hours: turns, events, control, a full record.",
    epilog=f"{EXAMPLES}\n{EXIT_CODES}",
    # Plain help: the decorated one costs as much again as all the rest of `cody --help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cody {cody.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="The server to talk to (CODY_URL).", metavar="URL", show_default=False)
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="The state folder (CODY_STATE_DIR).", metavar="DIR", show_default=False),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    ctx.obj = RootOptions(url, state_dir)


passed_on.add(app, passed_on.init, passed_on.doctor, passed_on.prompt)
app.command(cls=run_command.RunCommand, epilog=run_command.EXAMPLES)(run_command.run)
passed_on.add(app, passed_on.serve, passed_on.worker)
app.command(epilog=look_commands.RUNS_EXAMPLES)(look_commands.runs)
app.command(epilog=look_commands.SHOW_EXAMPLES)(look_commands.show)
app.command(epilog=look_commands.WATCH_EXAMPLES)(look_commands.watch)
app.command(epilog=look_commands.LOGS_EXAMPLES)(look_commands.logs)
app.command(epilog=steer_commands.PAUSE_EXAMPLES)(steer_commands.pause)
app.command(epilog=steer_commands.RESUME_EXAMPLES)(steer_commands.resume)
app.command(epilog=steer_commands.CANCEL_EXAMPLES)(steer_commands.cancel)
app.command(epilog=stop_command.EXAMPLES)(stop_command.stop)
app.command(epilog=access_commands.DASHBOARD_EXAMPLES)(access_commands.dashboard)
app.command(epilog=access_commands.AUDIT_EXAMPLES)(access_commands.audit)
app.add_typer(access_commands.token, name="token")
app.command(epilog=pipeline_commands.SUBMIT_EXAMPLES)(pipeline_commands.submit)
app.command(epilog=pipeline_commands.SEARCH_EXAMPLES)(pipeline_commands.search)
app.command(epilog=pipeline_commands.EXPORT_EXAMPLES)(pipeline_commands.export)
app.command(epilog=pipeline_commands.VERIFY_EXAMPLES)(pipeline_commands.verify)
app.add_typer(pipeline_commands.projector)
app.add_typer(sync_commands.sync_app)


passed_on.add(app, passed_on.demo, passed_on.replay)


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print the version.

    \b
    Example: cody version --json
    """
    if as_json:
        print(f'{{"version": "{cody.__version__}", "python": "{sys.version.split()[0]}"}}')
    else:
        print(f"cody {cody.__version__}")


def main() -> None:
    """The entry point of the command line; ends the process with the exit code."""
    collecting.begin()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character must not end a command that has more to say.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="cody")
