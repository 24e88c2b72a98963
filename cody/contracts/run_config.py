"""How a run works: the `config` of the request that starts it, checked before anything is started.

Source: the run contract of this project; field names are what existing clients send.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from cody.contracts.wire import Int, Seconds, Wire
from cody.line_pattern import LinePattern

AgentName = Literal["codex", "command"]

MAX_TEXT = 4096
"""Longest free text of a config (characters): enough for any path, pattern or model name, small in every listing."""

_NUL = "\x00"
_NO_NUL = {"pattern": "^[^\\u0000]*$"}
"""What validators below check is also said in the schema, in its own words, so that it takes nothing that they refuse."""
_MODEL = "^[!-,.-~][ -~]*$"
"""Printable ASCII; not an option."""
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OWN_NAMES = frozenset(
    [
        "CODY_RUN_ID",
        "CODY_TURN",
        "CODY_FENCE",
        "CODY_GUARD_ID",
        "CODY_EPIC_DIR",
        "CODY_HARNESS_DIR",
        "CODY_STOP_FILE",
        "CODY_TOKEN",
        "CODY_SECRET_KEY",
    ]
)
_LOADER_NAMES = (
    # the dynamic linker and the C library
    *("GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES"),
    # shells
    *("BASH_ENV", "ENV", "ZDOTDIR", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "BASH_LOADABLES_PATH", "IFS"),
    # languages
    *("PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONBREAKPOINT"),
    *("PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONPYCACHEPREFIX"),
    *("NODE_OPTIONS", "NODE_PATH", "PERL5OPT", "PERL5LIB", "PERLLIB", "PERL5DB", "PERL5SHELL"),
    *("RUBYOPT", "RUBYLIB", "GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE", "PHPRC", "PHP_INI_SCAN_DIR"),
    *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS", "MAVEN_OPTS", "GRADLE_OPTS", "SBT_OPTS"),
    *(
        "CLASSPATH",
        "DOTNET_STARTUP_HOOKS",
        "JULIA_LOAD_PATH",
        "R_PROFILE",
        "R_PROFILE_USER",
        "R_ENVIRON",
        "R_ENVIRON_USER",
    ),
    "TCLLIBPATH",
    # tools that build and fetch: other options, another compiler, a configuration that names either
    *("MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "MAKEFILES", "GOFLAGS", "GOENV", "GOROOT", "GOTOOLCHAIN"),
    *("RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"),
    *("CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTC", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_RUSTDOC"),
    *("CARGO_BUILD_RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER", "PIP_CONFIG_FILE", "UV_CONFIG_FILE"),
    *("CURL_HOME", "WGETRC", "RIPGREP_CONFIG_PATH", "HGRCPATH", "INPUTRC"),
    # programs that git and others start
    *(
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_EXTERNAL_DIFF",
        "GIT_PAGER",
        "GIT_EDITOR",
        "GIT_SEQUENCE_EDITOR",
        "GIT_EXEC_PATH",
    ),
    *("GIT_PROXY_COMMAND", "GIT_ASKPASS", "GIT_TEMPLATE_DIR", "SSH_ASKPASS", "PAGER", "MANPAGER", "EDITOR", "VISUAL"),
    *("BROWSER", "LESSOPEN", "LESSCLOSE", "SVN_SSH", "RSYNC_RSH", "SUDO_ASKPASS"),
    # a repository with hooks and a configuration of its own
    *("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_ALLOW_PROTOCOL"),
    # editors
    *("VIMINIT", "GVIMINIT", "EXINIT", "MYVIMRC", "MYGVIMRC", "EMACSLOADPATH"),
)
_LOADER_PREFIXES = (
    *("LD_", "DYLD_", "_RLD_", "BASH_FUNC_", "GIT_CONFIG", "LUA_INIT", "CORECLR_", "COR_", "ERL_"),
    r"CARGO_TARGET_\w+_(?:LINKER|RUNNER|RUSTFLAGS|RUSTDOCFLAGS)$",
    # npm does not tell capitals from small letters
    r"(?i:npm_config_(?:node_options|script_shell|userconfig|globalconfig|prefix|git|shell|editor|viewer|browser|init_module)$)",
)
_LOADER_NAME = re.compile("|".join([*_LOADER_PREFIXES, *(f"{name}$" for name in _LOADER_NAMES)]))
"""Variables by which a value becomes code in programs that have nothing to do with the agent."""
ShortText = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class CompletionConfig(Wire):
    """When the work log says that the work is done."""

    pattern: Annotated[str, Field(min_length=1, max_length=512, json_schema_extra={"format": "regex"})] | None = None
    """Regular expression, in RE2's syntax, searched line by line in what this run wrote to codys-log.md; null = the stop file
    only."""
    scan_tail_lines: Annotated[Int, Field(ge=1, le=10_000)] = 50

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            LinePattern(value)
        return value


class WatchConfig(Wire):
    """Which files of the workspace are reported: globs relative to workingDir, `**` crosses folders."""

    include: Annotated[list[Text], Field(max_length=100)] = ["**"]
    exclude: Annotated[list[Text], Field(max_length=100)] = [
        ".git/**",
        "**/node_modules/**",
        "**/.venv/**",
        "**/__pycache__/**",
        "**/.mypy_cache/**",
        "**/.pytest_cache/**",
        "**/.ruff_cache/**",
        "**/target/**",
        "**/*.pyc",
    ]


class Budget(Wire):
    """Limits of one turn. A limit that is null does not apply."""

    max_turn_sec: Annotated[Seconds, Field(gt=0, le=604_800)] | None = 3600.0
    """Wall time of one turn."""
    max_idle_sec: Annotated[Seconds, Field(gt=0, le=604_800)] | None = 900.0
    """Time without a sign of work: output of the agent, but its retries to reach its model, or a change in the workspace."""


def _more_of_config(schema: dict[str, Any]) -> None:
    """What the validators of RunConfig check, as JSON Schema: each with all others, and the command with the agent."""
    properties = schema["properties"]
    env = properties["env"]
    refused = "|".join([_LOADER_NAME.pattern, *(f"{name}$" for name in sorted(_OWN_NAMES))])
    env["propertyNames"] = {"pattern": f"^(?!{refused})[A-Za-z_][A-Za-z0-9_]*$"}
    env["additionalProperties"] |= _NO_NUL
    command = next(one for one in properties["command"]["anyOf"] if one.get("type") == "array")
    command["items"] |= _NO_NUL
    command["prefixItems"] = [{**command["items"], "minLength": 1}]
    schema["if"] = {"properties": {"agent": {"const": "command"}}, "required": ["agent"]}
    schema["then"] = {"properties": {"command": {"type": "array"}}, "required": ["command"]}
    schema["else"] = {"properties": {"command": {"type": "null"}}}


class RunConfig(Wire):
    """How a run works. Everything but workingDir has a default."""

    model_config = ConfigDict(json_schema_extra=_more_of_config)

    working_dir: Annotated[Text, Field(json_schema_extra={"pattern": "^/[^\\u0000]*$"})]
    """Absolute path of the repository the agent works in."""
    loop_delay_sec: Annotated[Seconds, Field(ge=0, le=86_400)] = 2.0
    """Pause between two turns."""
    model: Annotated[ShortText, Field(json_schema_extra={"pattern": _MODEL})] | None = None
    """The agent's model; null = the agent's own default."""
    reasoning: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] | None = None
    """Reasoning effort, as the agent names it (codex: minimal, low, medium, high, xhigh)."""
    approval: Literal["never", "on-request", "on-failure", "untrusted"] = "never"
    sandbox: Literal["read-only", "workspace-write", "danger-full-access"] = "workspace-write"
    completion: CompletionConfig = CompletionConfig()
    watch: WatchConfig = WatchConfig()
    max_turns: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    """The run completes after so many turns; null = no limit."""
    env: Annotated[dict[str, Annotated[str, Field(max_length=32_768)]], Field(max_length=200)] = {}
    """Added to the agent's environment."""
    agent: AgentName = "codex"
    command: Annotated[list[Annotated[str, Field(max_length=32_768)]], Field(min_length=1, max_length=1000)] | None = (
        None
    )
    """The program and its arguments; for agent `command` only. It reads the prompt on stdin."""
    harness_dir: Annotated[Text, Field(json_schema_extra=_NO_NUL)] = ".cody-harness"
    """The harness folder, relative to workingDir and inside it."""
    session: Literal["fresh", "resume"] = "fresh"
    """`fresh`: each turn is a new conversation; `resume`: each turn goes on in the conversation of the one before."""
    budget: Budget = Budget()
    grace_period_sec: Annotated[Seconds, Field(ge=0, le=600)] | None = None
    """Time between SIGTERM and SIGKILL; null = the server's CODY_GRACE_SEC."""

    @field_validator("working_dir", "harness_dir", "model")
    @classmethod
    def _no_nul(cls, value: str | None) -> str | None:
        if value is not None and _NUL in value:
            raise ValueError("contains a NUL byte")
        return value

    @field_validator("model")
    @classmethod
    def _not_a_flag(cls, value: str | None) -> str | None:
        if value is not None and re.search(_MODEL, value) is None:
            raise ValueError("a model name is printable ASCII and does not start with '-'")
        return value

    @field_validator("command")
    @classmethod
    def _runnable(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value[0] or any(_NUL in part for part in value)):
            raise ValueError("the first part is the program; no part has a NUL byte")
        return value

    @field_validator("env")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if not _ENV_NAME.match(name):
                raise ValueError(f"{name[:80]!r} is not a name of an environment variable")
            if _LOADER_NAME.match(name):
                raise ValueError(
                    f"{name[:80]} changes how programs load, of every program that the agent starts: not allowed"
                )
            if name in _OWN_NAMES:
                raise ValueError(f"{name} is Cody's own")
            if _NUL in content:
                raise ValueError(f"the value of {name} has a NUL byte")
        return value

    @model_validator(mode="after")
    def _command_belongs_to_its_agent(self) -> RunConfig:
        if self.agent == "command" and self.command is None:
            raise ValueError("agent 'command' needs config.command: the program and its arguments")
        if self.agent != "command" and self.command is not None:
            raise ValueError(f"config.command is for agent 'command' only; the agent is {self.agent!r}")
        return self
