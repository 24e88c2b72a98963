"""A run that one host accepts and another works on, with something done in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cody.contracts.run import StartRunRequest
from cody.settings import Settings
from tests.harness.conftest import Watched, serving
from tests.security.asking import start_body

MARK = "import pathlib; pathlib.Path('worked-here').touch()"
"""An agent that leaves a trace of where it worked."""


def request(working_dir: Path, code: str, **config: Any) -> StartRunRequest:
    return StartRunRequest.model_validate(start_body(working_dir, code, **config))


async def result_of(front: Settings, host: Settings, asked: StartRunRequest, between: Callable[[], object]) -> Watched:
    """A run that a server accepts and another host works on, with something done in between."""
    async with serving(front.model_copy(update={"concurrency": 0})) as service:
        run = Watched(service, (await service.start(asked)).run_id)
        run.listen()
        between()
        other = host.model_copy(update={"state_dir": host.state_dir.with_name("other")})
        async with serving(other):
            await run.end()
        return run


@contextmanager
def swapping(swap: Callable[[], None]) -> Iterator[None]:
    """`swap` is called again and again, as fast as can be."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            swap()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
