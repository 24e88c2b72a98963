"""The work of `cody projector dead-letters`: straight on the Redis that the projector reads."""

from __future__ import annotations

from dataclasses import asdict

from cody.cli.terminal import print_json, stderr_console, stdout_console
from cody.cli.untrusted import one_line
from cody.errors import ConfigurationError
from cody.settings import Settings
from cody.store import dead_letters
from cody.store.clients import connect


def _url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise ConfigurationError("dead letters are kept in Redis: set REDIS_URL to the one that the server uses")
    return settings.redis_url


async def show_letters(settings: Settings, *, limit: int, json: bool) -> None:
    async with connect(_url(settings)) as redis:
        found = await dead_letters.list_letters(redis, limit=limit)
    if json:
        print_json({"letters": [asdict(letter) for letter in found]})
        return
    console = stdout_console()
    for letter in found:
        what = f"{one_line(letter.code)}: {one_line(letter.reason, 300)}"
        console.print(f"{letter.id}  {one_line(letter.response_id)}  {what}", soft_wrap=True)
    if not found:
        stderr_console().print("no dead letters")


async def retry(settings: Settings, letter_id: str) -> None:
    async with connect(_url(settings)) as redis:
        letter = await dead_letters.retry_letter(redis, letter_id)
    stderr_console().print(f"letter {letter_id} is at the end of response {one_line(letter.response_id)} again")


async def drop(settings: Settings, letter_id: str) -> None:
    async with connect(_url(settings)) as redis:
        await dead_letters.drop_letter(redis, letter_id)
    stderr_console().print(f"letter {letter_id} is forgotten")
