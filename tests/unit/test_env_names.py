"""Names that a run's environment can't have, because they make code of a value; and those of every day, which it can."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cody.contracts.run_config import RunConfig

REFUSED = (
    *("LD_PRELOAD", "GIT_CONFIG_COUNT", "GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_ALLOW_PROTOCOL"),
    *("MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "GOFLAGS", "GOENV", "GOROOT", "GOTOOLCHAIN"),
    *("RUSTC", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTC", "CARGO_ENCODED_RUSTFLAGS"),
    *("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "CARGO_TARGET_AARCH64_APPLE_DARWIN_RUNNER"),
    *("NPM_CONFIG_USERCONFIG", "npm_config_userconfig", "Npm_Config_GlobalConfig", "npm_config_script_shell"),
    *("NPM_CONFIG_NODE_OPTIONS", "PIP_CONFIG_FILE", "UV_CONFIG_FILE", "MAVEN_OPTS", "GRADLE_OPTS", "BUNDLE_GEMFILE"),
    *("VIMINIT", "EXINIT", "GVIMINIT", "MYVIMRC", "RIPGREP_CONFIG_PATH", "CURL_HOME", "WGETRC", "R_PROFILE_USER"),
)
TAKEN = (
    *("PATH", "HOME", "CODEX_HOME", "CI", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "GIT_TERMINAL_PROMPT"),
    *("CARGO_TARGET_DIR", "CARGO_HOME", "CARGO_TERM_COLOR", "RUST_LOG", "RUSTUP_TOOLCHAIN", "GOPATH", "GOPROXY"),
    *(
        "npm_config_registry",
        "NPM_CONFIG_CACHE",
        "PIP_INDEX_URL",
        "MAKE",
        "JAVA_HOME",
        "VIRTUAL_ENV",
        "VIM",
        "RUSTC_LOG",
    ),
)


def config(name: str) -> RunConfig:
    return RunConfig.model_validate({"workingDir": "/x", "env": {name: "x"}})


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_changes_how_programs_load_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} changes how programs load"):
        config(name)


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_of_every_day_is_taken(name: str) -> None:
    assert config(name).env == {name: "x"}
