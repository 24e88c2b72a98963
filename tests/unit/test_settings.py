"""The settings that are promised: their names in the environment, their defaults, what they become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cody.settings import load_settings

DAY_S = 86_400

PROMISED: tuple[tuple[str, str, Any, str, Any], ...] = (
    # the variable, the setting, its default, another text, what that becomes
    ("CODY_HOST", "host", "127.0.0.1", "::1", "::1"),
    ("CODY_PORT", "port", 8899, "1234", 1234),
    ("CODY_WORKSPACE_ROOTS", "workspace_roots", (), f"/a{os.pathsep}/b", (Path("/a"), Path("/b"))),
    ("CODY_ALLOW_DANGER", "allow_danger", False, "1", True),
    ("CODY_TOKEN", "token", None, "0123456789abcdef", "0123456789abcdef"),
    ("CODY_CODEX_BIN", "codex_bin", None, "/bin/codex", "/bin/codex"),
    ("CODY_REDIS_SERVER", "redis_server", None, "/bin/redis-server", "/bin/redis-server"),
    ("CODY_EMBEDDED_REDIS", "embedded_redis", True, "off", False),
    ("CODY_LOCK_TTL_MS", "lock_ttl_ms", 15_000, "3000", 3_000),
    ("CODY_SSE_KEEPALIVE_SEC", "sse_keepalive_s", 15.0, "0.5", 0.5),
    ("CODY_GRACE_SEC", "grace_s", 5.0, "0.5", 0.5),
    ("CODY_RUN_TTL_SEC", "run_ttl_s", 7 * DAY_S, "60", 60),
    ("CODY_ON_SHUTDOWN", "on_shutdown", "resume", "finish-turn", "finish-turn"),
    ("CODY_CONCURRENCY", "concurrency", 4, "0", 0),
    ("CODY_IDLE_EXIT_SEC", "idle_exit_s", None, "2.5", 2.5),
    ("CODY_KEEP_OUTPUT_DAYS", "keep_output_days", 30, "1", 1),
    ("CODY_PROJECTOR", "projector", True, "off", False),
    ("CODY_LOG_LEVEL", "log_level", "info", "DEBUG", "debug"),
    ("REDIS_URL", "redis_url", None, "redis://there/0", "redis://there/0"),
    ("DATABASE_URL", "database_url", None, "sqlite:///x", "sqlite:///x"),
    ("OPENAI_API_KEY", "openai_api_key", None, "k", "k"),
    ("OPENAI_BASE_URL", "openai_base_url", None, "http://there", "http://there"),
    ("ANTHROPIC_API_KEY", "anthropic_api_key", None, "k", "k"),
    ("ANTHROPIC_BASE_URL", "anthropic_base_url", None, "http://there", "http://there"),
)
CASES = [pytest.param(*row, id=row[0]) for row in PROMISED]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is set but an empty state folder."""
    for name in {*(row[0] for row in PROMISED), *(name for name in os.environ if name.startswith("CODY_"))}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODY_STATE_DIR", str(tmp_path / "state"))
    return monkeypatch


@pytest.mark.parametrize(("variable", "name", "default", "text", "value"), CASES)
def test_a_setting_has_its_default_and_is_what_its_variable_says(
    bare: pytest.MonkeyPatch, tmp_path: Path, variable: str, name: str, default: object, text: str, value: object
) -> None:
    assert getattr(load_settings(), name) == default
    bare.setenv(variable, text)
    assert getattr(load_settings(), name) == value
    assert load_settings().state_dir == tmp_path / "state"


def test_a_flag_goes_before_the_environment_and_that_before_the_file(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "cody.toml").write_text("run_ttl_s = 61\ngrace_s = 1\n")
    assert load_settings().run_ttl_s == 61
    bare.setenv("CODY_RUN_TTL_SEC", "62")
    assert load_settings().run_ttl_s == 62
    assert load_settings(run_ttl_s=63).run_ttl_s == 63
    assert load_settings(run_ttl_s=None).grace_s == 1
