"""Starting a run, watching it, and saying how it ended."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from cody.cli import exits
from cody.cli.local_server import ensure_server
from cody.cli.screen import make_screen
from cody.cli.status_bar import status_text
from cody.cli.tables import snapshot_table
from cody.cli.terminal import is_interactive, print_json, print_table, stderr_console, stdout_console
from cody.cli.watching import Watched, watch
from cody.client import CodyClient, ServerUnreachable, find_server, token_for
from cody.contracts.run import RunSnapshot, StartRunRequest
from cody.settings import Settings


async def start_run(settings: Settings, request: StartRunRequest, *, detach: bool, json: bool) -> int:
    """The work of `cody run`; the exit code."""
    errors = stderr_console()
    url = await ensure_server(settings, errors, Path(request.config.working_dir))
    async with CodyClient(url, token=token_for(settings, url)) as client:
        answer = await client.start(request)
        if detach:
            if json:
                print_json(answer)
            else:
                stdout_console().print(answer.run_id)
                errors.print(f"started; watch it with: cody watch {answer.run_id[:8]}", style="dim", soft_wrap=True)
            return exits.OK
        errors.print(f"run {answer.run_id}  on {url}", style="dim", soft_wrap=True)
        return await watch_run(client, settings, answer.meta, from_="0", json=json)


async def connect(settings: Settings) -> CodyClient:
    """A client of the server that answers; raises ServerUnreachable, saying how to get one."""
    url = await server_url(settings)
    return CodyClient(url, token=token_for(settings, url))


async def server_url(settings: Settings) -> str:
    """The URL of the server that answers; raises ServerUnreachable, saying how to get one."""
    url = await find_server(settings)
    if url is None:
        where = settings.url or f"http://{settings.host}:{settings.port}"
        raise ServerUnreachable(
            f"no Cody server answers at {where}: start one with `cody serve`, or just `cody run`. "
            f"Its state folder would be {settings.state_dir}"
        )
    return url


async def watch_run(client: CodyClient, settings: Settings, run: RunSnapshot, *, from_: str, json: bool) -> int:
    """Watch a run to its end, say how it ended, and give the exit code."""
    screen = make_screen(json=json)
    watched = await watch(client, run, screen, from_=from_, interactive=is_interactive() and not json)
    if not json and watched.outcome == "ended":
        console = stdout_console()
        console.print()
        print_table(console, snapshot_table(watched.snapshot, where_output_is(settings, watched.snapshot)))
    say_how_to_go_on(watched)
    return exits.of_status(watched.snapshot.status) if watched.outcome == "ended" else exits.RUN_GOES_ON


def say_how_to_go_on(watched: Watched) -> None:
    """For a run that was left before its end, on stderr."""
    run_id = watched.snapshot.run_id
    short = run_id[:8]
    match watched.outcome:
        case "detached":
            text = Text.assemble("run ", run_id, " goes on (", status_text(watched.snapshot.status), ")")
            commands = f"watch it: cody watch {short}    end it: cody cancel {short}"
        case "paused":
            text = Text.assemble("run ", run_id, " is ", status_text("paused"))
            commands = f"go on: cody resume {short}    end it: cody cancel {short}"
        case "ended":
            return
    errors = stderr_console()
    errors.print(text, soft_wrap=True)
    errors.print(f"  {commands}", soft_wrap=True)


def where_output_is(settings: Settings, run: RunSnapshot) -> str:
    """The folder with the run's raw output, when it is on this machine, and the command that prints it."""
    command = f"cody logs {run.run_id[:8]}" + (" --turn N" if run.stats.turns > 1 else "")
    folder = settings.runs_dir / run.run_id
    return f"{folder}  ({command})" if folder.is_dir() else command
