"""`python -m tests.browser.screenshots`: the pictures of docs/dashboard.md, taken of a real server and a real codex.

Beside them every page in both sizes and both colours, under build/screenshots/survey: to be looked at.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx2
from playwright.async_api import Browser, Page, async_playwright

from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.server import ReplayServer
from tests.browser.chromium import launch_chromium
from tests.browser.conftest import dashboard_builder
from tests.browser.pages import SHOTS, sign_in
from tests.browser.workspaces import Repository
from tests.server.cody_server import REPOSITORY, CodyServer, launch

IMAGES = REPOSITORY / "docs" / "images"
SURVEY = SHOTS / "survey"
WIDE = (1120, 640)
NARROW = (360, 640)
DEADLINE_MS = 60_000
BUSY = r"""
    say(type="token_usage", inputTokens=48200, cachedInputTokens=41000, outputTokens=1900, totalTokens=50100)
    say(type="test_run_completed", passed=128, failed=0)
    for n in range(40):
        print(f"\x1b[32mok\x1b[0m   tests/test_orders.py::test_case_{n:02d} \x1b[2m[{n * 2 + 20:3d}%]\x1b[0m")
        if n % 9 == 8: print(f"\x1b[33mwarn\x1b[0m slow query in \x1b[1morders/repository.py\x1b[0m", file=sys.stderr)
        time.sleep(0.12)
    wait_for("never")
"""


async def main() -> None:
    """Take them all; what they show is started here, and ended."""
    dashboard_builder().build()
    for target in (IMAGES, SURVEY):
        target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cody-") as made:
        folder = Path(made)
        create_demo_workspace(folder / "pricing")
        async with ReplayServer("demo", delay_factor=0.4) as replay, async_playwright() as playwright:
            env = write_codex_home(folder / "codex-home", replay.base_url)
            server = launch(folder, "--workspace-root", made)
            browser = await launch_chromium(playwright)
            try:
                await take(server, browser, folder, dict(env))
            finally:
                await browser.close()
                server.discard()


async def take(server: CodyServer, browser: Browser, folder: Path, env: dict[str, str]) -> None:
    with server.client() as client:
        codex = started(client, {"workingDir": str(folder / "pricing"), "maxTurns": 6, "env": env})
        orders = Repository.make(folder / "orders")
        busy = started(client, orders.config(BUSY, gracePeriodSec=1))
        broken = Repository.make(folder / "search")
        started(client, broken.config("print('no module named search', file=sys.stderr); sys.exit(3)"))
    page = await signed_in(server, browser, WIDE, "light")
    # The live run first, while its first turn is under way.
    await page.goto(f"{server.url}/runs/{codex}")
    await page.locator(".run-title .status-completed").wait_for(timeout=DEADLINE_MS)
    run, live = f"{server.url}/runs/{codex}", f"{server.url}/runs/{busy}"
    await picture(page, f"{server.url}/", ".status-completed", "dashboard-runs")
    await picture(page, f"{run}?turn=1", ".outcome-bad", "dashboard-run", scroll_to=".outcome-bad")
    await picture(page, f"{run}?turn=2", ".diff-add", "dashboard-diff", scroll_to=".diff-of")
    await picture(page, f"{run}?tab=logs", ".log-parts pre", "dashboard-logs")
    await picture(page, f"{server.url}/health", ".check-ok", "dashboard-health")
    dark = await signed_in(server, browser, WIDE, "dark")
    await picture(dark, f"{run}?tab=plots", ".plot canvas", "dashboard-plots")
    await picture(dark, f"{live}?tab=events", ".line .ansi-fg-3", "dashboard-events")
    narrow = await signed_in(server, browser, NARROW, "light")
    await picture(narrow, run, ".turn-row", "dashboard-phone")
    await survey(server, browser, run, live)
    with server.client() as client:
        client.post(f"/api/runs/{busy}/cancel", json={}).raise_for_status()


def started(client: httpx2.Client, config: dict[str, Any]) -> str:
    answer = client.post("/api/runs/continuous", json={"epicId": "current-epic", "config": config})
    return str(answer.raise_for_status().json()["runId"])


async def signed_in(server: CodyServer, browser: Browser, size: tuple[int, int], scheme: Any) -> Page:
    page = await browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    await sign_in(page, server)
    return page


async def survey(server: CodyServer, browser: Browser, run: str, live: str) -> None:
    pages = {
        "runs": (f"{server.url}/", ".runs-rows .status", None),
        "turn": (run, ".turn-panel", None),
        "diff": (f"{run}?turn=2", ".diff-add", ".diff-of"),
        "events": (f"{live}?tab=events", ".line", None),
        "plots": (f"{run}?tab=plots", ".plot canvas", None),
        "logs": (f"{run}?tab=logs", ".log-parts pre", ".log-parts"),
        "prompt": (f"{run}?tab=prompt", ".prompt", None),
        "new": (f"{server.url}/new", ".new-run", None),
        "health": (f"{server.url}/health", ".check-ok", None),
    }
    for size in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            page = await signed_in(server, browser, size, scheme)
            for name, (address, ready, scroll_to) in pages.items():
                await picture(page, address, ready, f"{name}-{scheme}-{size[0]}", scroll_to=scroll_to, folder=SURVEY)
            await page.close()


async def picture(
    page: Page, address: str, ready: str, name: str, *, scroll_to: str | None = None, folder: Path = IMAGES
) -> None:
    await page.goto(address)
    await page.locator(ready).first.wait_for()
    if scroll_to is not None:
        # As far down as it takes to see what the picture is about.
        await page.locator(scroll_to).first.evaluate("element => element.scrollIntoView({ block: 'center' })")
    # Two frames: what was measured after the first one is drawn in the second.
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    await page.screenshot(path=folder / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    asyncio.run(main())
