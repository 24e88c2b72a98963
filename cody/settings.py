"""Cody's settings: the only reader of the environment and of cody.toml.

Order: a flag, the environment (`CODY_*`, `REDIS_URL`, ...), `cody.toml` in the state folder, the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from cody.errors import ConfigurationError
from cody.redaction import Secret, secrets_of

DEFAULT_PORT = 8899

LogLevel = Literal["debug", "info", "warning", "error", "critical"]


def _names(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Settings(BaseSettings):
    """Everything that can be set, with its default. Durations are in the unit the name says."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    host: Annotated[str, Field(validation_alias=_names("CODY_HOST"))] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, validation_alias=_names("CODY_PORT"))] = DEFAULT_PORT
    url: Annotated[str | None, Field(validation_alias=_names("CODY_URL"))] = None
    """Where the CLI finds the server; null = what the running server wrote into the state folder."""
    state_dir: Annotated[Path, Field(validation_alias=_names("CODY_STATE_DIR"))] = Field(
        default_factory=lambda: platformdirs.user_state_path("cody")
    )
    token: Annotated[str | None, Field(min_length=16, validation_alias=_names("CODY_TOKEN"))] = None
    """The token that the CLI sends and the server takes as its local one; null = the one in the state folder."""
    workspace_roots: Annotated[tuple[Path, ...], NoDecode, Field(validation_alias=_names("CODY_WORKSPACE_ROOTS"))] = ()
    """Folders that runs may work in, or below. Empty: `rooted` makes it the current folder; without that, anywhere."""
    allow_remote: Annotated[bool, Field(validation_alias=_names("CODY_ALLOW_REMOTE"))] = False
    """`host` may be an address that other machines can reach, in plain HTTP."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, Field(validation_alias=_names("CODY_ALLOWED_HOSTS"))] = ()
    """What the server is called besides loopback names: NAME, NAME:PORT or https://NAME, separated by commas."""
    allow_danger: Annotated[bool, Field(validation_alias=_names("CODY_ALLOW_DANGER"))] = False
    codex_bin: Annotated[str | None, Field(validation_alias=_names("CODY_CODEX_BIN"))] = None
    redis_url: Annotated[str | None, Field(validation_alias=_names("REDIS_URL"))] = None
    redis_server: Annotated[str | None, Field(validation_alias=_names("CODY_REDIS_SERVER"))] = None
    embedded_redis: Annotated[bool, Field(validation_alias=_names("CODY_EMBEDDED_REDIS"))] = True
    lock_ttl_ms: Annotated[int, Field(ge=500, le=600_000, validation_alias=_names("CODY_LOCK_TTL_MS"))] = 15_000
    sse_keepalive_s: Annotated[float, Field(gt=0, le=3600, validation_alias=_names("CODY_SSE_KEEPALIVE_SEC"))] = 15.0
    grace_s: Annotated[float, Field(ge=0, le=600, validation_alias=_names("CODY_GRACE_SEC"))] = 5.0
    on_shutdown: Annotated[
        Literal["resume", "finish-turn", "cancel"], Field(validation_alias=_names("CODY_ON_SHUTDOWN"))
    ] = "resume"
    """What a stopping process does with its runs: end the turn or finish it and hand the run on, or cancel the run."""
    concurrency: Annotated[int, Field(ge=0, le=10_000, validation_alias=_names("CODY_CONCURRENCY"))] = 4
    """How many runs this process works on at a time; 0 = it only hands them out."""
    idle_exit_s: Annotated[float | None, Field(gt=0, validation_alias=_names("CODY_IDLE_EXIT_SEC"))] = None
    """The server ends by itself after so long without an active run and without a client; null = never."""
    secret_key: Annotated[str | None, Field(min_length=16, validation_alias=_names("CODY_SECRET_KEY"))] = None
    """Seals the secrets in runs' config.env; the same for all that share a Redis. Null = a key in the state folder."""
    redact: Annotated[tuple[str, ...], NoDecode, Field(validation_alias=_names("CODY_REDACT"))] = ()
    """More values that must appear nowhere, one a line."""
    run_ttl_s: Annotated[int, Field(ge=60, validation_alias=_names("CODY_RUN_TTL_SEC"))] = 7 * 86_400
    """How long Redis keeps a run that has ended."""
    keep_output_days: Annotated[int, Field(ge=1, le=36_500, validation_alias=_names("CODY_KEEP_OUTPUT_DAYS"))] = 30
    """How long a host keeps the raw output and the prompts of a run after the last of them was written."""
    database_url: Annotated[str | None, Field(validation_alias=_names("DATABASE_URL"))] = None
    """The archive's database: postgresql://... or sqlite:///...; null = a SQLite file in the state folder."""
    projector: Annotated[bool, Field(validation_alias=_names("CODY_PROJECTOR"))] = True
    """This process keeps the archive up to date; off when `cody projector` runs beside it."""
    openai_api_key: Annotated[str | None, Field(validation_alias=_names("OPENAI_API_KEY"))] = None
    openai_base_url: Annotated[str | None, Field(validation_alias=_names("OPENAI_BASE_URL"))] = None
    anthropic_api_key: Annotated[str | None, Field(validation_alias=_names("ANTHROPIC_API_KEY"))] = None
    anthropic_base_url: Annotated[str | None, Field(validation_alias=_names("ANTHROPIC_BASE_URL"))] = None
    models: Annotated[tuple[str, ...], NoDecode, Field(validation_alias=_names("CODY_MODELS"))] = ()
    """Models that may be asked, separated by commas; empty = all."""
    log_level: Annotated[LogLevel, Field(validation_alias=_names("CODY_LOG_LEVEL"))] = "info"
    sync_token: Annotated[str | None, Field(validation_alias=_names("CODY_SYNC_TOKEN"))] = None
    """What `cody sync` sends to the other side; null = what is kept for it here."""
    sync_keep_s: Annotated[float, Field(ge=60, validation_alias=_names("CODY_SYNC_KEEP_SEC"))] = 7 * 86_400.0
    """How long what others began to send here is kept when nothing more comes of it, and jobs that have ended."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @field_validator("workspace_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("redact", mode="before")
    @classmethod
    def _split_lines(cls, value: object) -> object:
        return tuple(line for line in value.splitlines() if line) if isinstance(value, str) else value

    @field_validator("models", "allowed_hosts", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        *("redis_url", "redis_server", "codex_bin", "url", "secret_key", "token", "sync_token", "database_url"),
        *("openai_api_key", "openai_base_url", "anthropic_api_key", "anthropic_base_url"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return (value.lower() or "info") if isinstance(value, str) else value

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return Path(os.path.abspath(value.expanduser()))

    @cached_property
    def server_file(self) -> Path:
        """Where a running server writes its URL and pid, for the CLI of the same user."""
        return self.state_dir / "server.json"

    @cached_property
    def runs_dir(self) -> Path:
        """Prompts and raw output of every turn, by run."""
        return self.state_dir / "runs"


def loopback_of(host: str) -> str:
    """How a program of this machine reaches a server that is bound to this host: by loopback, when it is on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)  # noqa: S104


def _toml_values(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise ConfigurationError(
            f"{path.parent} is no folder: choose another with CODY_STATE_DIR (--state-dir)"
        ) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}") from error
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        known = ", ".join(sorted(Settings.model_fields))
        raise ConfigurationError(f"{path}: unknown setting {', '.join(unknown)} (known: {known})")
    return values


def load_settings(**flags: Any) -> Settings:
    """The settings in force; flags that are None do not count. Raises ConfigurationError, naming the setting."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        first = Settings(**given)
        values = _toml_values(first.state_dir / "cody.toml")
        from_env = {name for name in Settings.model_fields if name in first.model_fields_set}
        return Settings(**given, **{name: value for name, value in values.items() if name not in from_env})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"settings: {problems}") from None


def rooted(settings: Settings) -> Settings:
    """The settings of a process that works on runs: its workspace roots as real paths, by default the current folder.

    Raises ConfigurationError for a root that is not a folder: a misspelt one would only be noticed by the first run.
    """
    roots = settings.workspace_roots or (Path.cwd(),)
    for root in roots:
        if not root.expanduser().is_dir():
            raise ConfigurationError(f"--workspace-root {root} (CODY_WORKSPACE_ROOTS) is not a folder")
    real = tuple(Path(os.path.realpath(root.expanduser())) for root in roots)
    return settings.model_copy(update={"workspace_roots": real})


def process_secrets(settings: Settings) -> list[Secret]:
    """What must appear in nothing that this process writes: the secrets of its environment, and the configured ones."""
    configured = [Secret("CODY_REDACT", value) for value in settings.redact]
    own = [
        Secret(name, value)
        for name, value in (
            ("CODY_SECRET_KEY", settings.secret_key),
            ("CODY_TOKEN", settings.token),
            ("CODY_SYNC_TOKEN", settings.sync_token),
            ("OPENAI_API_KEY", settings.openai_api_key),
            ("ANTHROPIC_API_KEY", settings.anthropic_api_key),
        )
        if value
    ]
    # Those of the environment are found below; cody.toml and flags may set them too.
    urls = {
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "OPENAI_BASE_URL": settings.openai_base_url,
        "ANTHROPIC_BASE_URL": settings.anthropic_base_url,
        "CODY_URL": settings.url,
    }
    in_urls = secrets_of({name: url for name, url in urls.items() if url})
    return [*secrets_of(os.environ), *configured, *own, *in_urls]


AGENT_ENVIRONMENT = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"),
        # Without it Debian's bash takes each command of codex for one over the network, and reads ~/.bashrc before it:
        # other settings than the same codex has in the terminal that Cody was started from, and up to a second a command.
        "SHLVL",
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *(
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "CODEX_HOME",
            "CODEX_API_KEY",
        ),
    }
)
"""What an agent inherits from the server's environment; everything else stays with the server."""


def agent_environment() -> dict[str, str]:
    """The allow-listed part of this process's environment (LC_* included)."""
    return {name: value for name, value in os.environ.items() if name in AGENT_ENVIRONMENT or name.startswith("LC_")}


def environment() -> Mapping[str, str]:
    """All of this process's environment, as it is now: for processes that are Cody's own, and what is no setting of its."""
    return os.environ


def tracing_exporter() -> str | None:
    """Where the standard OTEL_* variables send traces: `otlp`, another exporter's name, or None for nowhere.

    OpenTelemetry's own default, a collector on this machine, is not taken over: traces are sent where that was asked for.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    chosen = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if chosen:
        return None if chosen == "none" else chosen
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return "otlp" if any(os.environ.get(name, "").strip() for name in endpoints) else None
