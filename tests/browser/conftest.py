"""A real browser on a real server: its dashboard is built from the sources as they are."""

from __future__ import annotations

import fcntl
import importlib.util
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.chromium import launch_chromium
from tests.browser.pages import WAIT_MS
from tests.browser.workspaces import Repository
from tests.server.cody_server import REPOSITORY, CodyServer, launch

ON_ONE_LOOP = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]
"""For a file of tests that share the browser. What a page is waited for is bounded by itself."""
expect.set_options(timeout=WAIT_MS)
ENDED = {"completed", "failed", "cancelled"}

Launch = Callable[..., CodyServer]
NewPage = Callable[[], Awaitable[Page]]


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
    with Path(builder.__file__ or "").open() as lock:
        # One test process builds, the others find it built.
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder.build()
    return Path(builder.STATIC)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A folder with a short path, for all tests of a file: a socket's path must fit into 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="cody-page-") as made:
        yield Path(made)


@pytest.fixture
def folder(root: Path) -> Path:
    """An empty folder, which is there until the servers of the file have ended."""
    return Path(tempfile.mkdtemp(prefix="", dir=root))


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository.make(folder)


@pytest.fixture(scope="module")
def lasting(root: Path, dashboard: Path) -> Iterator[CodyServer]:
    started = launch(root, "--workspace-root", str(root))
    try:
        assert started.url, started.stderr
        yield started
    finally:
        started.discard()


@pytest.fixture
def server(lasting: CodyServer) -> Iterator[CodyServer]:
    """One for all tests of a file that neither end it nor look at what else is there; no run outlives its test."""
    yield lasting
    with lasting.client() as client:
        for run in client.get("/api/runs").raise_for_status().json()["runs"]:
            if run["status"] not in ENDED:
                answer = client.post(f"/api/runs/{run['runId']}/cancel", json={})
                # 409: it has ended meanwhile.
                assert answer.status_code in {200, 409}, answer.text


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
async def new_page(context: BrowserContext) -> AsyncIterator[NewPage]:
    """Open pages that fail the test for an error of their scripts, and for what their Content-Security-Policy refused."""
    errors: list[str] = []

    async def open_page() -> Page:
        opened = await context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on(
            "console",
            lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None,
        )
        return opened

    yield open_page
    assert not errors


@pytest_asyncio.fixture(loop_scope="module")
async def page(new_page: NewPage) -> Page:
    return await new_page()


@contextmanager
def frozen(server: CodyServer) -> Iterator[None]:
    """Its connections stay open and nothing is answered, until the block ends."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)
