"""How the dashboard is built and packed, where there is no Node on the machine too; its pure parts, and what it is built of."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from cody.contracts.run_config import RunConfig
from server.static_files import read_folder
from tests.server.cody_server import REPOSITORY

DASHBOARD = REPOSITORY / "server" / "dashboard"
DEADLINE_S = 300


def test_the_packaged_node_is_new_enough_and_has_its_npm(builder: ModuleType) -> None:
    node = builder.packaged_node()
    assert node is not None
    for arguments in (["--version"], [node.npm, "--version"]):
        done = subprocess.run([node.node, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
        assert done.stdout.strip().lstrip("v").split(".")[0].isdigit()
        if arguments == ["--version"]:
            major, minor = done.stdout.strip().lstrip("v").split(".")[:2]
            assert (int(major), int(minor)) >= builder.NODE_AT_LEAST


@pytest.mark.timeout(400)
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
    # Nobody who installs Cody gets a package that is called "tests".
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"cody", "harness", "server"}
    assert not [name for name in names if name.startswith("server/dashboard/")]


def test_the_forms_defaults_and_choices_are_those_of_the_contract() -> None:
    config = json.loads(RunConfig(working_dir="/").model_dump_json(by_alias=True))
    written = json.loads((DASHBOARD / "src" / "model" / "run_defaults.json").read_text(encoding="utf-8"))
    assert written["defaults"] == {"epicId": "current-epic", "config": {**config, "workingDir": ""}}
    for place, choices in written["choices"].items():
        field = RunConfig.model_fields[place.removeprefix("config.")]
        assert choices == list(get_args(field.annotation)), place


@pytest.mark.timeout(400)
def test_the_pure_parts_pass_their_own_tests(builder: ModuleType, dashboard: Path) -> None:
    builder.test()


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]
    assert not [name for name, found in lock["packages"].items() if "resolved" in found]
    assert all("integrity" in found for name, found in lock["packages"].items() if name)
