"""A CODEX_HOME that points the codex CLI at a server of the Responses API, and at nothing else.

Keys of config.toml as of codex 0.163.0; most of them keep an offline start from waiting for hosts that it cannot reach.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from cody.errors import ConfigurationError

_MARK = "# Written by Cody (harness.replay): this codex talks to a replay server, not to a provider."

_CONFIG = """\
{mark}
model = {model}
model_provider = "replay"
approval_policy = "never"
web_search = "disabled"
check_for_update_on_startup = false
# Commands by `bash -c`, not `bash -lc`: a user's profile prints into their output, and a tool in it (pyenv) that is
# killed with a turn leaves a lock behind that holds up every shell after it for a minute.
allow_login_shell = false

[model_providers.replay]
name = "replay"
base_url = {base_url}
wire_api = "responses"
env_key = {env_key}
requires_openai_auth = false
supports_websockets = false
request_max_retries = {max_retries}
stream_max_retries = {max_retries}
stream_idle_timeout_ms = {idle_timeout_ms}

[analytics]
enabled = false

[otel]
exporter = "none"
trace_exporter = "none"
metrics_exporter = "none"

[feedback]
enabled = false

# Without these, codex looks for plugins and apps and waits some 5 s at exit; the last one would retry without end.
[features]
plugins = false
remote_plugin = false
apps = false
unbounded_connection_retries = false
"""


def write_codex_home(
    path: Path,
    base_url: str,
    *,
    env_key: str = "CODY_REPLAY_KEY",
    model: str = "gpt-5.5",
    key: str | None = None,
    max_retries: int = 0,
    idle_timeout_ms: int = 60_000,
) -> dict[str, str]:
    """Write `path`/config.toml and give the variables that codex needs: CODEX_HOME, the key, and NO_PROXY.

    The key is a new one at each call unless `key` is given: so each home is a session of its own to a replay server.
    NO_PROXY, because codex would ask a proxy named in the environment for 127.0.0.1 as well.
    Models that codex does not know get no apply_patch tool. Keep the home out of $TMPDIR: codex warns about one there.
    Raises ConfigurationError when there is a config.toml that was not written here: a user's own is never replaced.
    """
    config = path / "config.toml"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if config.exists() and not config.read_text(encoding="utf-8").startswith(_MARK):
            raise ConfigurationError(f"{config} is not Cody's and stays as it is: name another folder")
        config.write_text(
            _CONFIG.format(
                mark=_MARK,
                model=_toml(model),
                base_url=_toml(base_url),
                env_key=_toml(env_key),
                max_retries=max_retries,
                idle_timeout_ms=idle_timeout_ms,
            ),
            encoding="utf-8",
        )
    except OSError as error:
        raise ConfigurationError(f"the CODEX_HOME {path} cannot be written: {error}") from None
    return {
        "CODEX_HOME": os.path.abspath(path),
        env_key: key or f"replay-{secrets.token_hex(8)}",
        "NO_PROXY": "127.0.0.1,localhost,::1",
    }


def _toml(text: str) -> str:
    """A TOML basic string: JSON's, as long as nothing is escaped as a pair of surrogates."""
    return json.dumps(text, ensure_ascii=False)
