"""The key of a state folder: whole from the first moment, one for all processes, and what it seals."""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from cody.errors import ConfigurationError
from cody.sealing import SEALED, Sealer, key_of, shown_env
from cody.settings import load_settings, process_secrets

PROCESSES = 4
READS = 200


def keys_seen(folder: str) -> set[str]:
    """What one process gets for the key, asked while others make it."""
    return {key_of(Path(folder)) for _ in range(READS)}


def watched(path: str) -> set[str]:
    """What stands in the file, from its first moment on."""
    while not os.path.exists(path):
        pass
    return {Path(path).read_text(encoding="ascii") for _ in range(READS)}


def test_the_first_use_makes_a_key_of_this_users_own(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    path = tmp_path / "secret.key"
    assert len(key) == 44
    assert path.read_text() == f"{key}\n"
    assert (key_of(tmp_path), stat.S_IMODE(path.stat().st_mode)) == (key, 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["secret.key"]


def test_no_process_ever_sees_a_part_of_the_key(tmp_path: Path) -> None:
    with get_context("spawn").Pool(PROCESSES) as pool, ThreadPoolExecutor(1) as looking:
        for number in range(20):
            folder = tmp_path / str(number)
            folder.mkdir()
            seen = looking.submit(watched, str(folder / "secret.key"))
            found = set[str]().union(*pool.map(keys_seen, [str(folder)] * PROCESSES))
            assert len(found) == 1
            assert seen.result() == {f"{found.pop()}\n"}


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"\xff" * 44])
def test_a_key_that_is_none_seals_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret.key").write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "secret.key"))):
        key_of(tmp_path)
    assert (tmp_path / "secret.key").read_bytes() == content


def test_passwords_by_whatever_name_are_sealed_and_never_shown() -> None:
    env = {"PGPASSWORD": "hunter2-hunter2", "DB_PASS": "another-one", "MAX_TOKENS": "100000", "PLAIN": "shown"}
    sealed = Sealer("0123456789abcdef").seal_env(env)
    assert {name for name, value in sealed.items() if value.startswith(SEALED)} == {"PGPASSWORD", "DB_PASS"}
    shown = {"PGPASSWORD": "[redacted:PGPASSWORD]", "DB_PASS": "[redacted:DB_PASS]"}
    assert shown_env(env) == shown_env(sealed) == {**env, **shown}


def test_passwords_in_urls_that_the_file_sets_are_secrets_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("redis_url", "database_url", "openai_base_url", "anthropic_base_url")
    for name in ("REDIS_URL", "DATABASE_URL", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "CODY_URL"):
        monkeypatch.delenv(name, raising=False)
    lines = [f'{name} = "https://user:p%40ss-of-{name}@there/x"\n' for name in (*names, "url")]
    (tmp_path / "cody.toml").write_text("".join(lines))
    found = {secret.value: secret.name for secret in process_secrets(load_settings(state_dir=tmp_path))}
    for name in names:
        assert found[f"p%40ss-of-{name}"] == found[f"p@ss-of-{name}"] == name.upper()
    assert found["p@ss-of-url"] == "CODY_URL"
