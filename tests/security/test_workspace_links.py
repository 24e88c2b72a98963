"""A link that turns while a run goes on leads nobody out of the roots: at the start, at every turn, and for readers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.errors import Forbidden
from cody.settings import Settings
from harness.permission import located
from harness.regular_file import opened
from harness.service import RunService
from tests.harness.conftest import Watched, serving
from tests.security.asking import start_body
from tests.security.hosts import MARK, request, result_of, swapping


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
    turned_later = False
    with swapping(swap):
        # Also until it has turned after the first look: what is refused then is not called by its link.
        while not turned_later or len(found) < 100 or len(refused) < 100 or len(found) + len(refused) < 2_000:
            try:
                found.append(located(config, "current-epic", settings).working_dir)
            except Forbidden as error:
                refused.append(error.message)
                turned_later = turned_later or str(link) not in error.message
    assert set(found) == {root / "repo"}


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
        # Also until the swap was met.
        while read.get(b"own", 0) < 200 or sum(read.values()) < 3_000 or len(read) == 1:
            found: bytes | type[OSError]
            try:
                with opened(real / "log.md") as file:
                    found = file.read(0, 100)
            except OSError as error:
                found = type(error)
            read[found] = read.get(found, 0) + 1
    assert b"someone else's" not in read
