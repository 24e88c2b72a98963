"""What every test of a page does: sign in, open a run, wait for its status, have the page checked, keep a picture of it."""

from __future__ import annotations

from playwright.async_api import Locator, Page

from tests.server.cody_server import REPOSITORY, CodyServer

AXE = REPOSITORY / "server" / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = REPOSITORY / "build" / "screenshots"
WAIT_MS = 45_000
NOTICED_MS = 90_000
"""A server that stops answering is given some seconds before it is called lost."""


async def sign_in(page: Page, server: CodyServer) -> None:
    """Open the one-time link, as a person does with the one that `cody dashboard` prints."""
    with server.client() as client:
        answer = client.post("/api/session/link", json={})
    await page.goto(answer.raise_for_status().json()["url"])
    await page.get_by_role("heading", name="Runs", exact=True).wait_for()


async def open_run(page: Page, server: CodyServer, run_id: str, query: str = "") -> None:
    await page.goto(f"{server.url}/runs/{run_id}{query}")
    await page.locator(".run-title h1").wait_for()


def status(page: Page, wanted: str) -> Locator:
    """The status of the run that the page shows, once it is this one."""
    return page.locator(f".run-title .status-{wanted}")


async def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA, and against good practice."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


async def painted(page: Page, frames: int = 10) -> None:
    """So many frames later: what was being drawn has found its place."""
    await page.evaluate(
        """(frames) => new Promise((done) => {
          const next = () => (frames-- > 0 ? requestAnimationFrame(next) : done())
          next()
        })""",
        frames,
    )


async def shot(page: Page, name: str) -> None:
    """Keep a picture of the page under build/screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
