"""`cody demo`: a real run of three turns on a scratch project, from an empty folder to green tests.

Everything is real: codex, its sandbox, the server, its Redis, the live view. Only the model is played back, when there
are no credentials for one. All of it lies in one folder, and nothing of it runs when the demo has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cody.cli.local_server import LOG_NAME, start_server
from cody.cli.screen import make_screen
from cody.cli.tables import run_text
from cody.cli.terminal import stderr_console, stdout_console
from cody.cli.watching import watch
from cody.client import CodyClient
from cody.contracts.run import RunSnapshot, StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.errors import CodyError, ConfigurationError
from cody.logs import configure_logs
from cody.settings import Settings, agent_environment, environment, load_settings
from cody.tokens import TokenStore
from harness import findings
from harness.probe import run_probe
from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.server import ReplayServer

EXAMPLES = """\
Without credentials for codex the model's answers are played back: no key, no network, no cost. With credentials
(CODEX_API_KEY, OPENAI_API_KEY, or a log-in of codex) the model is the real one and has its price; --replay plays back
all the same.

The project and the raw output of each turn stay in a folder of the demo's own, in the state folder; of these folders
the latest four are kept. --keep leaves the run's record there as well, so that `cody watch` can show it again.

examples:
  cody demo
  cody demo --speed 4
  cody demo --workspace ~/src/demo --keep
  cody demo --model gpt-5.5

exit codes: 0 the run ended by its stop file and the project's tests pass, 1 not so, 2 wrong usage, 130 Ctrl-C
"""

REPLAY_KEY = "REPLAY_API_KEY"
"""Names that begin with CODY_ are refused in a run's environment."""
MAX_TURNS = 6
"""The recording needs three; a real model may need another, and must not need more."""
LOOP_DELAY_S = 0.5
KEPT_DEMOS = 4
SERVER_IDLE_EXIT_S = "60"
"""Should this process be killed, its server ends by itself."""
SERVER_STOP_S = 30.0
GIT_S = 20.0
TESTS_S = 120.0
INTERRUPTED = 130
NO_GIT_QUESTIONS = ("-c", "user.name=Cody", "-c", "user.email=cody@localhost", "-c", "commit.gpgsign=false")


@dataclass(frozen=True, slots=True)
class Demo:
    """Where everything is."""

    folder: Path
    workspace: Path

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def codex_home(self) -> Path:
        return self.folder / "codex-home"


@dataclass(frozen=True, slots=True)
class Model:
    """What the agent speaks to. `run_env` goes into the run's config, `server_env` to the server alone."""

    words: str
    name: str | None
    run_env: Mapping[str, str]
    server_env: Mapping[str, str]


class Failed(Exception):
    """The demo did not reach its end; the message says why."""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cody demo",
        description="Make a scratch project, and watch an agent mend it in three turns.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", metavar="M", help="use this model, really")
    parser.add_argument("--replay", action="store_true", help="play back, also when there are credentials")
    parser.add_argument("--workspace", type=Path, metavar="DIR", help="an empty or new folder for the project")
    parser.add_argument("--keep", action="store_true", help="leave the run's record as well, and say how to see it")
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="X", help="of the playback (default: 1)")
    arguments = parser.parse_args(argv)
    if arguments.model and arguments.replay:
        parser.error("--model and --replay exclude each other")
    return arguments


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 1000:
        raise argparse.ArgumentTypeError("a number from 0.1 to 1000")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = _arguments(argv)
    try:
        settings = load_settings()
        demo = _prepare(settings, arguments.workspace)
        with (demo.folder / "demo.log").open("w") as log:
            configure_logs("info", stream=log)
            return asyncio.run(_play(settings, demo, arguments))
    except (CodyError, Failed) as error:
        print(f"cody demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cody demo: interrupted; nothing of it is running any more", file=sys.stderr)
        return INTERRUPTED


def _prepare(settings: Settings, workspace: Path | None) -> Demo:
    """An own folder for this demo, with the project in it, as a git repository."""
    demos = settings.state_dir / "demo"
    folder = demos / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    try:
        for made in (settings.state_dir, demos, folder, folder / "state"):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the demo's folder {folder} can't be made: {error}") from error
    for old in sorted(path for path in demos.iterdir() if path.is_dir())[:-KEPT_DEMOS]:
        shutil.rmtree(old, ignore_errors=True)
    demo = Demo(folder, folder / "workspace" if workspace is None else Path(os.path.abspath(workspace.expanduser())))
    create_demo_workspace(demo.workspace)
    for command in (
        ["init", "-q"],
        ["add", "."],
        [*NO_GIT_QUESTIONS, "commit", "-q", "-m", "The project as it was found"],
    ):
        done = run_probe(["git", *command], timeout_s=GIT_S, cwd=demo.workspace)
        if not done.ok:
            print(f"cody demo: without git history: git {command[-1]}: {done.said}", file=sys.stderr)
            break
    return demo


def _check_agent(settings: Settings) -> Path:
    """The codex binary; raises Failed when it is not there or its sandbox does not work, with what mends it."""
    env = agent_environment()
    found, binary = findings.codex(settings, env)
    problems = [found]
    if binary is not None and findings.has_sandbox_probe():
        problems.append(findings.sandbox(binary, env))
    for finding in problems:
        if finding.state == "fail":
            raise Failed(f"{finding.name}: {finding.found}\n  to mend it: {finding.mend}")
    assert binary is not None
    return binary


@asynccontextmanager
async def _model(demo: Demo, arguments: argparse.Namespace) -> AsyncIterator[Model]:
    env = agent_environment()
    signed_in = findings.credentials(env, environment()).state == "ok"
    key = env.get("OPENAI_API_KEY")
    if not arguments.replay and (arguments.model or signed_in or key):
        # codex exec reads only this name. Not in the run's config: that is kept, and shown.
        own = {} if signed_in or not key else {"CODEX_API_KEY": key}
        words = f"the real model ({arguments.model or 'the default of codex'}), with your credentials: this has a cost"
        yield Model(words, arguments.model, {}, own)
        return
    async with ReplayServer("demo", delay_factor=1 / arguments.speed) as replay:
        run_env = write_codex_home(demo.codex_home, replay.base_url, env_key=REPLAY_KEY)
        yield Model("a recording, played back on this machine: no key, no network", None, run_env, {})


@asynccontextmanager
async def _server(demo: Demo, own_env: Mapping[str, str]) -> AsyncIterator[str]:
    """A real server process of the demo's own, on a state folder of its own; its URL."""
    # Nothing of the user's settings: their Redis, say, has servers that would take the demo's run over.
    kept = {name: value for name, value in environment().items() if name in KEPT_SETTINGS or not _is_setting(name)}
    settings = load_settings(state_dir=demo.state_dir, host="127.0.0.1")
    flags = ["--port", "0", "--idle-exit", SERVER_IDLE_EXIT_S, "--on-shutdown", "cancel"]
    started = await start_server(settings, *flags, f"--workspace-root={demo.workspace}", env={**kept, **own_env})
    try:
        yield started.url
    finally:
        started.process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(SERVER_STOP_S):
                while started.process.poll() is None:
                    await asyncio.sleep(0.02)
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


KEPT_SETTINGS = frozenset({"CODY_CODEX_BIN", "CODY_REDIS_SERVER"})


def _is_setting(name: str) -> bool:
    return name.startswith("CODY_") or name == "REDIS_URL"


async def _play(settings: Settings, demo: Demo, arguments: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    words = stderr_console()
    binary = await asyncio.to_thread(_check_agent, settings)
    try:
        async with _model(demo, arguments) as model, _server(demo, model.server_env) as url:
            words.print(f"project  {demo.workspace}", soft_wrap=True)
            words.print(f"model    {model.words}", soft_wrap=True)
            words.print(f"server   {url}\n", soft_wrap=True)
            run = await _watch(demo, model, url)
        await asyncio.to_thread(_judge, demo, run, binary)
    finally:
        if not arguments.keep:
            for place in (demo.state_dir / "redis", demo.codex_home):
                shutil.rmtree(place, ignore_errors=True)
    words.print(f"\nThe tests of the project pass. See what was done: git -C {demo.workspace} diff", soft_wrap=True)
    if arguments.keep:
        words.print(f"See the run again: cody --state-dir {demo.state_dir} serve --port 0 &", soft_wrap=True)
        words.print(f"                   cody --state-dir {demo.state_dir} watch {run.run_id[:8]}", soft_wrap=True)
    return 0


async def _watch(demo: Demo, model: Model, url: str) -> RunSnapshot:
    config = RunConfig(
        working_dir=str(demo.workspace),
        model=model.name,
        max_turns=MAX_TURNS,
        loop_delay_sec=LOOP_DELAY_S,
        env=dict(model.run_env),
    )
    async with CodyClient(url, token=TokenStore(demo.state_dir).local_value()) as client:
        answer = await client.start(StartRunRequest(epic_id="current-epic", config=config))
        watched = await watch(client, answer.meta, make_screen(json=False), from_="0", interactive=False)
    if watched.outcome != "ended":
        raise KeyboardInterrupt
    console = stdout_console()
    console.print()
    output = [("output", str(demo.state_dir / "runs" / watched.snapshot.run_id))]
    console.print(run_text(watched.snapshot, output, brief=True), soft_wrap=True)
    return watched.snapshot


def _judge(demo: Demo, run: RunSnapshot, binary: Path) -> None:
    """Raises Failed unless the run ended as it should and the project's tests pass, which codex' sandbox runs."""
    logs = f"the server's log: {demo.state_dir / LOG_NAME}"
    if run.status != "completed" or run.completion.source != "stop_file":
        how = run.completion.source or run.reason or "no reason"
        raise Failed(f"the run ended as {run.status} ({run.error.message if run.error else how}); {logs}")
    tests = [sys.executable, "-B", "-m", "unittest"]
    argv = [str(binary), "sandbox", "-c", 'sandbox_mode="read-only"', "--", *tests]
    done = run_probe(argv, timeout_s=TESTS_S, cwd=demo.workspace, env=agent_environment())
    if not done.ok:
        raise Failed(f"the run is complete, but the tests in {demo.workspace} fail: {done.said}")


if __name__ == "__main__":
    sys.exit(main())
