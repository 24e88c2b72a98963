"""Runs work inside the roots that were allowed, whatever paths say."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2

from cody.cli.local_server import workspace_root
from harness.permission import is_inside
from tests.security.asking import START, start_body
from tests.security.conftest import Launch
from tests.server.cody_server import CodyServer


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
