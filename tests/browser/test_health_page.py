"""The health page: what works, what is weaker than it should be, what has stopped."""

from __future__ import annotations

import re

from playwright.async_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import ON_ONE_LOOP, Launch
from tests.browser.pages import shot, sign_in, violations
from tests.browser.workspaces import FOREVER, Repository, read

pytestmark = ON_ONE_LOOP


async def test_health_says_what_works_and_who_is_signed_out_is_told(
    page: Page, context: BrowserContext, launched: Launch, repository: Repository
) -> None:
    server = launched(CODY_CONCURRENCY="1")
    await sign_in(page, server)
    run_id = repository.start(server, FOREVER, gracePeriodSec=1)
    await page.locator(".runs-rows .status-running").wait_for()
    repository.start(server, FOREVER, gracePeriodSec=1)
    await page.get_by_role("link", name="Health").click()
    await expect(page.locator(".check-ok")).not_to_have_count(0)
    await expect(page.locator(".notice").first).to_have_text("Everything works. Runs can be started.")
    await expect(page.get_by_role("table").get_by_role("link")).to_have_text(run_id[:8])
    await expect(page.locator(".waiting")).to_have_text("1 run waits for a host that has room.")
    await shot(page, "health")
    await context.clear_cookies()
    await expect(page.get_by_role("alert")).to_contain_text("cody dashboard")
    await expect(page.locator(".connection")).to_contain_text("Signed out")


async def test_health_says_what_is_weaker_what_is_late_and_what_has_stopped(page: Page, launched: Launch) -> None:
    server = launched(CODY_PROJECTOR="off")
    await sign_in(page, server)
    health = read(server, "/api/health")
    ready = read(server, "/readyz")

    async def answer(route: Route) -> None:
        is_health = route.request.url.endswith("/api/health")
        await route.fulfill(json=health if is_health else ready)

    # What the server says of itself, with what takes days to happen.
    await page.route(re.compile("/(api/health|readyz)$"), answer)
    verdict, projector = page.locator(".notice").first, page.locator(".check", has_text="Projector")
    health["archive"].update(runs={"waiting": 3, "oldestMs": 61_000}, projects=False)
    ready["degraded"] = ["the archive is 61 s behind"]
    await page.goto(f"{server.url}/health")
    await expect(verdict).to_contain_text("Runs can be started, but something is weaker than it should be:")
    await expect(verdict.locator("li")).to_have_text(["the archive is 61 s behind"])
    await expect(projector).to_have_class(re.compile("check-warn"))
    await expect(projector).to_contain_text("3 changes of runs wait, the oldest for 1m 01s")
    await expect(projector).to_contain_text("What waits is safe in Redis.")
    found = await violations(page)

    run_id = "3f9a3f9a-0000-4000-8000-000000000001"
    health["archive"].update(halted=[{"runId": run_id, "reason": "event 7 is missing"}])
    await expect(projector).to_have_class(re.compile("check-bad"))
    await expect(projector).to_contain_text("Stopped for 3f9a3f9a: event 7 is missing")
    ready["ready"] = False
    ready["checks"]["disk"] = "only 3 MiB are free"
    await expect(verdict).to_have_text("Runs can't be started now. What fails is marked below.")
    await expect(page.locator(".check-bad", has_text="Disk")).to_contain_text("only 3 MiB are free")
    assert not found + await violations(page)
