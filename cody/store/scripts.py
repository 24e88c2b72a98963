"""The Lua scripts, loaded once and called by their hash.

Scripts are the only writes that must be atomic; each file's head is its signature. `EVALSHA` falls back to `EVAL` when the
server forgot the script (restart, `SCRIPT FLUSH`), which is safe: every script is written to be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """One script and its hash."""

    name: str
    text: bytes
    sha: str

    async def __call__(self, redis: Redis, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        try:
            return await redis.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return await redis.execute_command("EVAL", self.text, len(keys), *keys, *args)  # type: ignore[no-untyped-call]


@cache
def script(name: str) -> Script:
    """The script of `lua/<name>.lua`."""
    text = files("cody.store").joinpath("lua", f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
