"""How the dashboard is built and packed, where there is no Node on the machine too."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

from server.static_files import read_folder
from tests.server.cody_server import REPOSITORY

DEADLINE_S = 120


def test_the_packaged_node_is_new_enough_and_has_its_npm(builder: ModuleType) -> None:
    node = builder.packaged_node()
    assert node is not None
    for arguments in (["--version"], [node.npm, "--version"]):
        done = subprocess.run([node.node, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
        assert done.stdout.strip().lstrip("v").split(".")[0].isdigit()
        if arguments == ["--version"]:
            major, minor = done.stdout.strip().lstrip("v").split(".")[:2]
            assert (int(major), int(minor)) >= builder.NODE_AT_LEAST


def test_a_wheel_has_the_dashboard_and_not_what_it_is_built_with(dashboard: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=DEADLINE_S,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        assert packed.read("server/static/index.html") == (dashboard / "index.html").read_bytes()
    served = {f"server/static/{name}" for name in read_folder(dashboard)}
    assert served <= names
    assert not [name for name in names if "node_modules" in name]
