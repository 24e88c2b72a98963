"""`cody run`: its options, and the request they make."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from cody.cli.invoke import finish, misused, settings_of

if TYPE_CHECKING:
    from pydantic import ValidationError

    from cody.contracts.run import StartRunRequest
    from cody.settings import Settings

# The values of RunConfig, spelled again: importing it would triple the time of `cody --help`. A test compares the two.
AgentChoice = Literal["codex", "command"]
SandboxChoice = Literal["read-only", "workspace-write", "danger-full-access"]
ApprovalChoice = Literal["never", "on-request", "on-failure", "untrusted"]
SessionChoice = Literal["fresh", "resume"]

EXAMPLES = """\
Examples:

\b
  cody run --max-turns 20
  cody run --epic checkout --working-dir ~/src/shop --model gpt-5.5 --reasoning high
  cody run --detach --json | jq -r .runId
  cody run --max-turns 3 -- ./my-agent --fast

Ctrl-C asks: leave the run to go on alone, pause it, cancel it, or keep watching; a second Ctrl-C leaves it alone.
"""


SEPARATED = "cody.run.separated"


class RunCommand(TyperCommand):
    """Notes whether `--` was given, which the parser drops."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[SEPARATED] = "--" in args
        return super().parse_args(ctx, args)


def run(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND ARGS",
            help="A program to run as the agent; it reads the prompt on stdin.",
            show_default=False,
        ),
    ] = None,
    epic: Annotated[str, typer.Option(help="The epic's folder in the harness folder.")] = "current-epic",
    working_dir: Annotated[Path, typer.Option(help="The repository the agent works in.", metavar="DIR")] = Path("."),
    agent: Annotated[
        AgentChoice | None, typer.Option(help="codex, unless a COMMAND is given.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The agent's model.", show_default="the agent's own")] = None,
    reasoning: Annotated[
        str | None,
        typer.Option(help="Reasoning effort: minimal, low, medium, high, xhigh.", show_default="the agent's own"),
    ] = None,
    sandbox: Annotated[SandboxChoice, typer.Option(help="What the agent may write to.")] = "workspace-write",
    approval: Annotated[ApprovalChoice, typer.Option(help="When the agent asks for approval.")] = "never",
    max_turns: Annotated[
        int | None, typer.Option(help="Complete after so many turns.", metavar="N", show_default="no limit")
    ] = None,
    loop_delay: Annotated[float, typer.Option(help="Pause between two turns.", metavar="SEC")] = 2.0,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Complete when a line that the run writes to codys-log.md matches.",
            metavar="REGEX",
            show_default="the stop file only",
        ),
    ] = None,
    session: Annotated[
        SessionChoice, typer.Option(help="A new conversation each turn, or one that goes on.")
    ] = "fresh",
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="For the agent's environment; NAME alone takes the value from yours. Kept with the run.",
            metavar="NAME[=VALUE]",
            show_default=False,
        ),
    ] = None,
    max_turn_sec: Annotated[float, typer.Option(help="Wall time of one turn; 0: no limit.", metavar="SEC")] = 3600.0,
    max_idle_sec: Annotated[
        float, typer.Option(help="Time in which neither the agent nor the workspace stirs; 0: no limit.", metavar="SEC")
    ] = 900.0,
    harness_dir: Annotated[
        str, typer.Option(help="The harness folder in the repository.", metavar="DIR")
    ] = ".cody-harness",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start it, print its id, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON; with --detach, the answer.")
    ] = False,
) -> None:
    """Start a run and watch it. Starts a server of its own when none answers."""
    if command and not ctx.meta.get(SEPARATED):
        # Else a word too many, an epic's name say, would be started as the agent.
        misused(f"an agent's command stands behind `--`; did you mean: cody run -- {shlex.join(command)}")
    settings = settings_of(ctx)
    _check_folder(settings, working_dir)
    config: dict[str, Any] = {
        "working_dir": os.path.abspath(working_dir.expanduser()),
        "agent": agent or ("command" if command else "codex"),
        "command": command or None,
        "model": model,
        "reasoning": reasoning,
        "sandbox": sandbox,
        "approval": approval,
        "max_turns": max_turns,
        "loop_delay_sec": loop_delay,
        "completion": {"pattern": pattern},
        "session": session,
        "env": _environment(env or []),
        "budget": {"max_turn_sec": max_turn_sec or None, "max_idle_sec": max_idle_sec or None},
        "harness_dir": harness_dir,
    }
    request = _request(epic, config)

    from cody.cli.running import start_run

    finish(start_run(settings, request, detach=detach, json=as_json))


def _check_folder(settings: Settings, working_dir: Path) -> None:
    """A server on another machine has folders of its own; one on this machine would only say less."""
    from cody.client.discovery import is_loopback

    if settings.url is not None and not is_loopback(settings.url):
        return
    folder = working_dir.expanduser()
    if not folder.exists():
        misused(f"--working-dir {working_dir} does not exist")
    if not folder.is_dir():
        misused(f"--working-dir {working_dir} is not a folder")


def _environment(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, or NAME for the value that this process has."""
    from cody.settings import environment

    found, ours = {}, environment()
    for entry in given:
        name, separator, value = entry.partition("=")
        if not separator:
            if name not in ours:
                misused(f"--env {name}: it is not set here; give it as {name}=VALUE")
            value = ours[name]
        found[name] = value
    return found


def _request(epic: str, config: dict[str, Any]) -> StartRunRequest:
    from pydantic import ValidationError

    from cody.contracts.run import StartRunRequest

    try:
        return StartRunRequest.model_validate({"epic_id": epic, "config": config})
    except ValidationError as error:
        misused(explain(error))


OPTIONS = {
    "epic_id": "--epic",
    "completion.pattern": "--pattern",
    "loop_delay_sec": "--loop-delay",
    "budget.max_turn_sec": "--max-turn-sec",
    "budget.max_idle_sec": "--max-idle-sec",
    "command": "COMMAND",
}


def explain(error: ValidationError) -> str:
    """What is wrong, by the names of the options. The error's fields are those of StartRunRequest."""
    from cody.cli.wording import in_options

    problems = []
    for problem in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in problem["loc"] if part != "config")
        option = next((option for name, option in OPTIONS.items() if field.startswith(name)), None)
        option = option or ("--" + field.partition(".")[0].replace("_", "-") if field else "")
        words = in_options(problem["msg"].removeprefix("Value error, "))
        problems.append(f"{option}: {words}".removeprefix(": "))
    return "; ".join(problems)
