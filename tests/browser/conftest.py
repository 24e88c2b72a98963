"""A real browser on a real server: its dashboard is built from the sources as they are."""

from __future__ import annotations

import importlib.util
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.browser.chromium import launch_chromium
from tests.server.cody_server import REPOSITORY, CodyServer, launch

ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
"""For a file of tests that share the browser."""
SHOTS = REPOSITORY / "build" / "screenshots"
WAIT_MS = 20_000

Launch = Callable[..., CodyServer]


def dashboard_builder() -> ModuleType:
    """server/dashboard/build.py, which is a script beside the sources and no module of the server."""
    spec = importlib.util.spec_from_file_location("dashboard_build", REPOSITORY / "server" / "dashboard" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    return dashboard_builder()


@pytest.fixture(scope="session")
def dashboard(builder: ModuleType) -> Path:
    """server/static, built."""
    builder.build()
    return Path(builder.STATIC)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path: a socket's path must fit into 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="cody-page-") as made:
        yield Path(made)


@pytest.fixture
def launched(folder: Path, dashboard: Path) -> Iterator[Launch]:
    """Start servers of the test's own; they end with the test."""
    started: list[CodyServer] = []

    def start(*flags: str, **options: Any) -> CodyServer:
        one = launch(folder, "--workspace-root", str(folder), *flags, **options)
        started.append(one)
        assert one.url, one.stderr
        return one

    try:
        yield start
    finally:
        for one in started:
            one.discard()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests of a file, which are on its event loop: starting it costs more than most of them do."""
    async with async_playwright() as playwright:
        opened = await launch_chromium(playwright)
        try:
            yield opened
        finally:
            await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser's profile of 1280 x 800, in light colours."""
    opened = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    opened.set_default_timeout(WAIT_MS)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that fails the test for an error of its scripts, and for what its Content-Security-Policy refused."""
    opened = await context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console",
        lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield opened
    assert not errors


async def sign_in(page: Page, server: CodyServer) -> None:
    """Open the one-time link, as a person does with the one that `cody dashboard` prints."""
    with server.client() as client:
        answer = client.post("/api/session/link", json={})
    await page.goto(answer.raise_for_status().json()["url"])
    await page.get_by_role("heading", name="Runs", exact=True).wait_for()


@contextmanager
def frozen(server: CodyServer) -> Iterator[None]:
    """Its connections stay open and nothing is answered, until the block ends."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def shot(page: Page, name: str) -> None:
    """Keep a picture of the page under build/screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
