"""Runs work inside the roots that were allowed, whatever paths and links say, at the start and at every turn."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from cody.cli.local_server import workspace_root
from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.errors import Forbidden
from cody.settings import Settings, load_settings
from harness.agents.base import TurnRequest
from harness.agents.codex import CodexAgent
from harness.permission import check_allowed, is_inside, located
from harness.regular_file import opened
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario import Answer, CustomToolCall, FunctionCall, Message, Scenario, Turn, Usage
from harness.replay.server import ReplayServer
from harness.service import RunService
from tests.harness.conftest import Watched, serving
from tests.security.asking import START, ended_run, start_body
from tests.security.conftest import Launch, make_workspace
from tests.server.cody_server import CodyServer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    make_workspace(made / "repo")
    make_workspace(tmp_path / "outside" / "repo")
    make_workspace(tmp_path / "root2" / "repo")
    (made / "out").symlink_to(tmp_path / "outside" / "repo")
    (made / "loop").symlink_to(made / "loop")
    (tmp_path / "in").symlink_to(made / "repo")
    return made


@pytest.fixture
def rooted(launched: Launch, root: Path) -> CodyServer:
    return launched("--allow-danger", workspace_root=str(root))


def test_only_what_is_really_inside_a_root_may_be_worked_in(rooted: CodyServer, root: Path) -> None:
    with rooted.client() as client:

        def answer(path: str) -> httpx2.Response:
            return client.post("/api/runs/preview", json=start_body(Path(path)))

        for inside in (f"{root}/repo", f"{root}/repo/", f"{root}/../root/./repo", f"{root.parent}/in"):
            assert answer(inside).status_code == 200, inside
        outside = [
            f"{root}/../outside/repo",
            f"{root}2/repo",
            f"{root}/out",
            f"{root}/out/../repo",
            f"{root}/repo/../../outside/repo",
            "/",
            "/proc/self/cwd",
            f"/proc/{os.getpid()}/root{root}/repo/../../outside",
        ]
        for path in outside:
            refused = answer(path)
            assert refused.status_code == 403, path
            error = refused.json()["error"]
            assert (error["code"], error["details"]) == ("forbidden", {"field": "config.workingDir"})
            assert "--workspace-root" in error["message"]
        for path in (f"{root}/nothing", f"{root}/loop", "repo", "."):
            assert answer(path).status_code == 400, path
        assert client.post(START, json=start_body(Path(f"{root}/out"))).status_code == 403


def test_without_a_root_it_is_the_folder_that_the_server_was_started_in(launched: Launch, workspace: Path) -> None:
    server = launched(workspace_root=None)
    with server.client() as client:
        refused = client.post(START, json=start_body(workspace))
    assert refused.status_code == 403
    assert f"({os.getcwd()})" in refused.json()["error"]["message"]


def test_several_roots_come_from_the_environment(launched: Launch, root: Path, tmp_path: Path) -> None:
    roots = os.pathsep.join([str(root), str(tmp_path / "root2")])
    server = launched(workspace_root=None, CODY_WORKSPACE_ROOTS=roots)
    with server.client() as client:
        for path, status in ((root, 200), (tmp_path / "root2", 200), (tmp_path / "outside", 403)):
            assert client.post("/api/runs/preview", json=start_body(path / "repo")).status_code == status


def test_a_root_that_is_no_folder_stops_the_start(launched: Launch, tmp_path: Path) -> None:
    server = launched(workspace_root=str(tmp_path / "misspelt"))
    assert server.url == ""
    assert server.wait() == 1
    assert "misspelt (CODY_WORKSPACE_ROOTS) is not a folder" in server.stderr


def test_cody_run_starts_its_server_for_the_home_folder_or_for_the_repository(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "src" / "shop").mkdir(parents=True)
    (tmp_path / "srv").mkdir()
    (tmp_path / "link").symlink_to(home / "src")
    assert workspace_root(home / "src" / "shop", home) == home
    assert workspace_root(home, home) == home
    assert workspace_root(tmp_path / "link" / "shop", home) == home
    assert workspace_root(tmp_path / "srv", home) == tmp_path / "srv"
    assert workspace_root(tmp_path / "home2", home) == tmp_path / "home2"
    assert workspace_root(tmp_path / "srv", Path("/")) == tmp_path / "srv"


def test_roots_are_compared_by_components(tmp_path: Path) -> None:
    assert is_inside(f"{tmp_path}/shop", (tmp_path / "shop",))
    assert not is_inside(f"{tmp_path}/shop2", (tmp_path / "shop",))
    assert not is_inside(str(tmp_path), (tmp_path / "shop",))
    assert is_inside(f"{tmp_path}/b/x", (tmp_path / "a", tmp_path / "b"))
    assert is_inside("/anywhere", ())


def test_danger_needs_the_flag(rooted: CodyServer, root: Path, server: CodyServer, workspace: Path) -> None:
    body = start_body(root / "repo", sandbox="danger-full-access")
    with rooted.client() as allowed, server.client() as other:
        assert allowed.post("/api/runs/preview", json=body).status_code == 200
        refused = other.post(START, json=start_body(workspace, sandbox="danger-full-access"))
    assert refused.status_code == 403
    assert "--allow-danger" in refused.json()["error"]["message"]


@pytest.fixture
def settings(valkey_url: str, root: Path, tmp_path: Path) -> Settings:
    return load_settings(
        state_dir=tmp_path / "state",
        redis_url=valkey_url,
        grace_s=0.5,
        lock_ttl_ms=3_000,
        workspace_roots=(root,),
    )


def request(working_dir: Path, code: str, **config: Any) -> StartRunRequest:
    return StartRunRequest.model_validate(start_body(working_dir, code, **config))


async def result_of(front: Settings, host: Settings, asked: StartRunRequest, between: Callable[[], object]) -> Watched:
    """A run that a server accepts and another host works on, with something done in between."""
    async with serving(front.model_copy(update={"concurrency": 0})) as service:
        run = Watched(service, (await service.start(asked)).run_id)
        run.listen()
        between()
        other = host.model_copy(update={"state_dir": host.state_dir.with_name("other")})
        async with serving(other):
            await run.end()
        return run


MARK = "import pathlib; pathlib.Path('worked-here').touch()"


async def test_a_link_that_turns_outside_after_the_start_is_seen_by_the_host(
    settings: Settings, root: Path, tmp_path: Path, redis: Redis
) -> None:
    link = root / "link"
    link.symlink_to(root / "repo")

    def swap() -> None:
        link.unlink()
        link.symlink_to(tmp_path / "outside" / "repo")

    run = await result_of(settings, settings, request(link, MARK), swap)
    (failed,) = run.of("run_failed")
    assert failed["error"]["code"] == "forbidden"
    assert not list(tmp_path.rglob("worked-here"))


async def test_a_host_works_only_inside_its_own_roots_and_consents(
    settings: Settings, root: Path, tmp_path: Path, redis: Redis
) -> None:
    elsewhere = settings.model_copy(update={"workspace_roots": (tmp_path / "root2",)})
    run = await result_of(settings, elsewhere, request(root / "repo", MARK), lambda: None)
    assert run.of("run_failed")[0]["error"]["code"] == "forbidden"
    bold = settings.model_copy(update={"allow_danger": True})
    asked = request(root / "repo", MARK, sandbox="danger-full-access")
    run = await result_of(bold, settings, asked, lambda: None)
    assert run.of("run_failed")[0]["error"]["code"] == "forbidden"
    assert not list(tmp_path.rglob("worked-here"))


@pytest.mark.parametrize("swapped", ["workingDir", "harness", "epic"])
async def test_a_folder_that_becomes_a_link_between_two_turns_is_not_followed(
    settings: Settings, root: Path, tmp_path: Path, redis: Redis, swapped: str
) -> None:
    """The first turn puts a link to a folder of someone else's in place of its own; no other turn works or reads there."""
    outside = tmp_path / "outside" / "repo"
    (outside / ".cody-harness" / "current-epic" / "guide.md").write_text("the text of someone else")
    link = root / "link"
    link.symlink_to(root / "repo")
    place = {
        "workingDir": link,
        "harness": root / "repo" / ".cody-harness",
        "epic": root / "repo" / ".cody-harness" / "current-epic",
    }[swapped]
    target = {
        "workingDir": outside,
        "harness": outside / ".cody-harness",
        "epic": outside / ".cody-harness" / "current-epic",
    }[swapped]
    code = f"""
import os, pathlib, sys
prompt = sys.stdin.read()
pathlib.Path("turns.txt").open("a").write("x")
assert "someone else" not in prompt
place = {str(place)!r}
os.rename(place, place + ".aside")
os.symlink({str(target)!r}, place)
"""
    async with serving(settings) as service:
        run = Watched(service, (await service.start(request(link, code, maxTurns=2))).run_id)
        run.listen()
        await run.end()
        turns = (await service.records.turns(run.run_id)).turns
    assert [turn.status for turn in turns[:2]] == ["completed", "failed"]
    error = turns[1].error
    assert error is not None
    assert error.code == "invalid_request"
    assert "link" in error.message or "somewhere else" in error.message
    assert not (outside / "turns.txt").exists()
    assert (root / "repo" / "turns.txt").read_text() == "x"
    for kept in settings.runs_dir.rglob("*"):
        assert not kept.is_file() or "someone else" not in kept.read_text(errors="replace")


CODEX_THAT_SWAPS = """#!{python}
import os, pathlib, sys
if "--version" in sys.argv:
    os.rename("{folder}", "{folder}.aside")
    os.symlink("{target}", "{folder}")
    print("codex-cli 0.163.0")
else:
    pathlib.Path("worked-here").touch()
"""


async def test_a_folder_that_becomes_a_link_while_the_agent_is_started_is_not_worked_in(
    settings: Settings, root: Path, tmp_path: Path, redis: Redis
) -> None:
    """It happens when all was looked at, and the agent's options were made: its program does it when asked for its version."""
    folder, outside, program = root / "repo", tmp_path / "outside" / "repo", tmp_path / "codex"
    program.write_text(CODEX_THAT_SWAPS.format(python=sys.executable, folder=folder, target=outside))
    program.chmod(0o755)
    async with serving(settings.model_copy(update={"codex_bin": str(program)})) as service:
        body = start_body(folder)
        body["config"] |= {"agent": "codex", "command": None}
        run = Watched(service, (await service.start(StartRunRequest.model_validate(body))).run_id)
        run.listen()
        await run.end()
        (turn,) = (await service.records.turns(run.run_id)).turns
    assert folder.is_symlink()
    assert turn.error is not None
    assert turn.error.code == "agent_start_failed"
    assert "link" in turn.error.message
    assert not list(tmp_path.rglob("worked-here"))


@contextmanager
def swapping(swap: Callable[[], None]) -> Iterator[None]:
    """`swap` is called again and again, as fast as can be."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            swap()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_folder_that_is_worked_in_is_the_one_that_was_allowed(
    settings: Settings, root: Path, tmp_path: Path
) -> None:
    """A link turns in and out as fast as it can while the epic behind it is looked for."""
    link, spare = root / "link", root / "spare"

    def swap() -> None:
        for target in (root / "repo", tmp_path / "outside" / "repo"):
            spare.symlink_to(target)
            os.replace(spare, link)

    swap()
    config = RunConfig(working_dir=str(link))
    found: list[Path] = []
    refused: list[str] = []
    with swapping(swap):
        while len(found) < 100 or len(refused) < 100 or len(found) + len(refused) < 2_000:
            try:
                found.append(located(config, "current-epic", settings).working_dir)
            except Forbidden as error:
                refused.append(error.message)
    assert set(found) == {root / "repo"}
    assert any(str(link) not in message for message in refused), "it never turned after the first look"


@pytest.mark.parametrize("asked", ["prompt", "codys-log.md", "decision-log.md"])
async def test_of_a_run_outside_of_its_roots_a_host_reads_nothing(
    settings: Settings, root: Path, tmp_path: Path, redis: Redis, asked: Any
) -> None:
    """Two hosts with one Redis: what the run's folder is called means something else on the other one."""

    async def read(host: RunService, run_id: str) -> str:
        if asked == "prompt":
            return (await host.prompt(run_id)).prompt
        return (await host.epic_log(run_id, asked)).text

    other = {"workspace_roots": (tmp_path / "root2",), "state_dir": tmp_path / "state2", "concurrency": 0}
    (root / "repo" / ".cody-harness" / "decision-log.md").touch()
    async with serving(settings) as host, serving(settings.model_copy(update=other)) as second:
        run = Watched(host, (await host.start(request(root / "repo", "pass"))).run_id)
        run.listen()
        await run.end()
        assert ("# Log" in await read(host, run.run_id)) == (asked != "decision-log.md")
        with pytest.raises(Forbidden, match="--workspace-root"):
            await read(second, run.run_id)


async def test_what_a_run_said_stays_readable_where_its_sandbox_is_no_more_allowed(
    settings: Settings, root: Path, redis: Redis
) -> None:
    """Only its folder decides who reads."""
    bold = settings.model_copy(update={"allow_danger": True})
    async with serving(bold) as host:
        run = Watched(host, (await host.start(request(root / "repo", "pass", sandbox="danger-full-access"))).run_id)
        run.listen()
        await run.end()
    async with serving(settings) as strict:
        assert "# Log" in (await strict.epic_log(run.run_id, "codys-log.md")).text
        assert "# Log" in (await strict.prompt(run.run_id)).prompt


@pytest.mark.parametrize(
    "home",
    [
        "{repo}/codex",
        "{repo}",
        "{repo}/.cody-harness/.codex",
        "codex",
        ".codex/../codex",
        "{repo}/../repo/codex",
        "{root}/in/codex",
        "{root}/into",
        "{repo}/out",
        "{repo}/out/codex",
        "{repo}/.codex",
    ],
)
def test_codex_settings_that_its_agent_could_write_need_the_flag(
    settings: Settings, root: Path, tmp_path: Path, home: str
) -> None:
    """`.codex` is a link here; `into` leads into the workspace, `out` leads out of it: the agent could turn it back."""
    repo = root / "repo"
    (root / "in").symlink_to(repo)
    (root / "into").symlink_to(repo / "codex")
    (repo / "out").symlink_to(tmp_path)
    (repo / ".codex").symlink_to(tmp_path)
    config = RunConfig(
        working_dir=str(repo), sandbox="read-only", env={"CODEX_HOME": home.format(repo=repo, root=root)}
    )
    with pytest.raises(Forbidden, match=r"CODEX_HOME .* is in workingDir .*--allow-danger"):
        check_allowed(config, settings)
    check_allowed(config, settings.model_copy(update={"allow_danger": True}))
    check_allowed(config.model_copy(update={"agent": "command", "command": ["true"]}), settings)


def test_codex_settings_elsewhere_are_taken(
    settings: Settings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEX_HOME", raising=False)
    repo = root / "repo"
    for env in (
        {"CODEX_HOME": f"{root}/codex"},
        {"CODEX_HOME": f"{repo}2"},
        {"CODEX_HOME": f"{repo}/.codex"},
        {"CODEX_HOME": ""},
        {"HOME": str(repo)},
        {},
    ):
        check_allowed(RunConfig(working_dir=str(repo), env=env), settings)
    with pytest.raises(Forbidden, match="CODEX_HOME"):
        check_allowed(RunConfig(working_dir=str(root), env={"HOME": str(repo)}), settings)
    monkeypatch.setenv("CODEX_HOME", f"{repo}/codex")
    with pytest.raises(Forbidden, match="CODEX_HOME"):
        check_allowed(RunConfig(working_dir=str(repo)), settings)


async def test_codex_keeps_its_agent_from_the_settings_in_the_workspaces_own_folder(root: Path, tmp_path: Path) -> None:
    """Why that one place in a workspace is taken: a repository that is a home folder has it."""
    repo = root / "repo"
    script = "cd .codex && (echo >> config.toml; touch more; mv ../.codex ../aside); cd .. && touch written; true"
    call = Answer(items=(FunctionCall(type="function_call", name="exec_command", arguments={"cmd": script}),))
    text = "*** Begin Patch\n*** Add File: .codex/more\n+notify = 1\n*** Add File: patched\n+x\n*** End Patch\n"
    patch = Answer(items=(CustomToolCall(type="custom_tool_call", name="apply_patch", input=text),))
    own = text.replace(".codex/more", "own")
    allowed = Answer(items=(CustomToolCall(type="custom_tool_call", name="apply_patch", input=own),))
    word = Answer(items=(Message(type="message", text="Done."),), usage=Usage(input=10, output=5))
    scenario = Scenario(name="reach", on_exhausted="repeat_last", turns=(Turn(responses=(call, patch, allowed, word)),))
    prompt = tmp_path / "prompt.md"
    prompt.write_text("Go on.")
    async with ReplayServer(scenario) as server:
        env = write_codex_home(repo / ".codex", server.base_url, env_key="MODEL_API_KEY", key="sk-of-the-model")
        before = (repo / ".codex" / "config.toml").read_bytes()
        launch = CodexAgent().launch(
            TurnRequest(
                run_id="run",
                turn=1,
                config=RunConfig(working_dir=str(repo)),
                prompt=prompt,
                base_env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **env},
            )
        )

        def codex() -> None:
            with launch.stdin.open("rb") as stdin:
                subprocess.run(
                    launch.argv, cwd=launch.cwd, env=dict(launch.env), stdin=stdin, capture_output=True, check=True
                )

        await asyncio.to_thread(codex)
    assert (repo / "written").exists()
    assert (repo / "own").exists()
    assert (repo / ".codex" / "config.toml").read_bytes() == before
    assert not (repo / ".codex" / "more").exists()


def test_no_moment_is_left_in_which_a_link_on_the_way_is_followed(tmp_path: Path) -> None:
    """A folder and a link change places as fast as they can while the file below is read."""
    real, outside = tmp_path / "epic", tmp_path / "outside"
    for folder, text in ((real, "own"), (outside, "someone else's")):
        folder.mkdir()
        (folder / "log.md").write_text(text)
    spare = tmp_path / "spare"
    spare.symlink_to(outside)

    def swap() -> None:
        aside = tmp_path / "aside"
        os.rename(real, aside)
        os.rename(spare, real)
        os.rename(real, spare)
        os.rename(aside, real)

    read: dict[bytes | type[OSError], int] = {}
    with swapping(swap):
        while read.get(b"own", 0) < 200 or sum(read.values()) < 3_000:
            found: bytes | type[OSError]
            try:
                with opened(real / "log.md") as file:
                    found = file.read(0, 100)
            except OSError as error:
                found = type(error)
            read[found] = read.get(found, 0) + 1
    assert b"own" in read
    assert b"someone else's" not in read
    assert len(read) > 1, "the swap was never met"


LOADERS = (
    *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "GCONV_PATH"),
    *(
        "NODE_OPTIONS",
        "NODE_PATH",
        "npm_config_script_shell",
        "BASH_ENV",
        "ENV",
        "ZDOTDIR",
        "BASH_FUNC_ls",
        "PS4",
        "IFS",
    ),
    *("PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PERL5OPT", "PERL5LIB", "PERL5DB", "RUBYOPT"),
    *("JAVA_TOOL_OPTIONS", "CLASSPATH", "DOTNET_STARTUP_HOOKS", "ERL_AFLAGS", "LUA_INIT_5_4", "RUSTC_WRAPPER", "PHPRC"),
    *("GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_EXEC_PATH", "GIT_EDITOR", "SSH_ASKPASS", "PAGER"),
    *("CODY_SECRET_KEY", "CODY_RUN_ID", "CODY_FENCE"),
)
"""Each makes code of its value, in programs that have nothing to do with the run; or is Cody's own."""
HOSTILE: list[tuple[str, Any]] = [
    ("model", "--dangerously-bypass-approvals-and-sandbox"),
    ("model", "-c"),
    ("model", "x\n--sandbox=danger-full-access"),
    ("model", "x\x00y"),
    ("model", "\u202egpt"),
    ("reasoning", 'high" -c sandbox_mode="danger-full-access'),
    ("reasoning", "--help"),
    ("sandbox", "danger-full-access --full-auto"),
    ("sandbox", "none"),
    ("approval", "never --yolo"),
    ("session", "--last"),
    ("agent", "/bin/sh"),
    ("harnessDir", "../../etc"),
    ("harnessDir", "/etc"),
    ("harnessDir", "."),
    ("harnessDir", "a\x00b"),
    *(("env", {name: "/tmp/evil"}) for name in LOADERS),
    ("env", {"CODY_TOKEN": "x"}),
    ("env", {"CODY_STOP_FILE": "/etc/passwd"}),
    ("env", {"A=B": "x"}),
    ("env", {"A\nB": "x"}),
    ("env", {"": "x"}),
    ("env", {"A": "x\x00y"}),
    ("command", []),
    ("command", [""]),
    ("command", ["true\x00"]),
    ("command", "rm -rf /"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE)
def test_no_value_becomes_an_option_or_another_program(
    client: httpx2.Client, workspace: Path, field: str, value: Any
) -> None:
    config = {"workingDir": str(workspace), field: value} | ({"agent": "command"} if field == "command" else {})
    refused = client.post(START, json={"epicId": "e", "config": config})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"].isprintable()
    assert refused.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "epic_id",
    ["..", ".", "../current-epic", "a/b", "a\\b", "/etc", "a\x00b", "a\nb", "\u202etxt", "a\x1b[2J", "", "x" * 129],
)
def test_an_epic_is_one_name(client: httpx2.Client, workspace: Path, epic_id: str) -> None:
    refused = client.post(START, json={**start_body(workspace), "epicId": epic_id})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].isprintable()


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/static/../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/api/runs/..%2f..%2f/turns/1/output",
        "/api/runs/6f2c1a52-7c62-4bde-9b53-25a1a6b1c111/turns/..%2f1/output",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_no_path_of_a_request_reaches_the_disk(server: CodyServer, path: str) -> None:
    status, _, body = server.raw(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{server.auth_line}Connection: close\r\n\r\n".encode()
    )
    assert status in {400, 404}
    assert b"root:" not in body


CANARIES = {
    "CODY_TOKEN": "the-token-of-the-operator",
    "CODY_SECRET_KEY": "the-key-of-the-operator",
    "DATABASE_URL": "sqlite+aiosqlite:///{folder}/archive.db?x=database-canary",
    "AWS_SECRET_ACCESS_KEY": "aws-canary",
    "SSH_AUTH_SOCK": "/run/ssh-canary",
    "GITHUB_TOKEN": "github-canary",
    "LD_LIBRARY_PATH": "/ld-canary",
}


def test_the_agents_environment_has_what_is_allowed_and_what_the_run_gives(
    launched: Launch, folder: Path, workspace: Path, valkey_url: str
) -> None:
    """Of the guard that starts it too: every process of the turn is looked at."""
    own = {name: value.replace("{folder}", str(folder)) for name, value in CANARIES.items()}
    server = launched(**own, REDIS_URL=valkey_url, OPENAI_API_KEY="for-the-agent", LC_ALL="C.UTF-8")
    code = """
import json, os, pathlib
seen = {"own": dict(os.environ)}
pid = os.getppid()
while pid > 1:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    name = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\\0", b" ").decode()
    if "server" in name: break
    seen[name] = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode()
    pid = int(status.split("PPid:")[1].split()[0])
pathlib.Path("environment.json").write_text(json.dumps(seen))
"""
    headers = {"Authorization": f"Bearer {CANARIES['CODY_TOKEN']}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
        body = start_body(workspace, code, env={"CODEX_HOME": "/own/codex", "FOO": "bar"})
        ended_run(client, body)
    text = (workspace / "environment.json").read_text()
    for name, value in own.items():
        assert value not in text, name
        assert f'"{name}"' not in text
    assert valkey_url not in text
    assert "REDIS_URL" not in text
    assert '"FOO": "bar"' in text
    assert '"CODEX_HOME": "/own/codex"' in text
    assert '"OPENAI_API_KEY": "for-the-agent"' in text
