"""The list of runs, the form, the health page: with the mouse, the keyboard, a small screen, and an accessibility checker."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, expect
from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.store import keys
from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import create_demo_workspace
from harness.replay.server import ReplayServer
from tests.browser.conftest import ON_ONE_LOOP, WAIT_MS, Launch, frozen, shot, sign_in
from tests.browser.workspaces import Repository, read
from tests.server.cody_server import REPOSITORY, OwnedRun

pytestmark = ON_ONE_LOOP
expect.set_options(timeout=WAIT_MS)

DASHBOARD = REPOSITORY / "server" / "dashboard"
FOREVER = "wait_for('never')"
CREATED_MS = 1_700_000_000_000


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository.make(folder)


@pytest_asyncio.fixture(loop_scope="module")
async def replayed(folder: Path) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """The project of the bundled scenario, and the environment in which codex plays it."""
    create_demo_workspace(folder / "shop")
    async with ReplayServer("demo", delay_factor=0.2) as replay:
        yield folder / "shop", dict(write_codex_home(folder / "codex-home", replay.base_url))


async def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA, and against good practice."""
    await page.evaluate((DASHBOARD / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = await page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


async def colour_of(locator: Locator) -> str:
    return str(await locator.evaluate("element => getComputedStyle(element).color"))


async def many_runs(redis: Redis, count: int) -> None:
    """Ended runs, as many copies of one that really ended."""
    original = await OwnedRun.create(redis)
    await original.complete()
    fields: dict[Any, Any] = await redis.hgetall(keys.meta(original.run_id))
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1, count):
            run_id = f"00000000-0000-4000-8000-{number:012d}"
            pipe.hset(keys.meta(run_id), mapping={**fields, "epicId": f"epic-{number}", "stats.tokens": number})
            pipe.zadd(keys.INDEX, {run_id: CREATED_MS + number})
        await pipe.execute()


async def test_a_run_of_codex_is_started_from_the_form_and_watched_to_its_end(
    page: Page, launched: Launch, replayed: tuple[Path, dict[str, str]]
) -> None:
    shop, env = replayed
    server = launched()
    await sign_in(page, server)
    await page.get_by_role("link", name="New run").first.click()
    await page.get_by_role("button", name="Start the run").click()
    # The server's words, at the field that they are about.
    folder = page.get_by_label("Working folder")
    await expect(folder).to_have_attribute("aria-invalid", "true")
    await expect(folder).to_be_focused()
    await folder.fill(str(shop))
    await page.get_by_label("Turns at most").fill("many")
    await page.get_by_role("button", name="Show the prompt").click()
    await expect(page.locator(".field-wrong")).to_contain_text("Turns at most")
    await page.get_by_label("Turns at most").fill("6")
    await page.get_by_label("Delay between turns").fill("0")
    await page.locator("summary", has_text="More").click()
    await page.get_by_label("Environment").fill("\n".join(f"{name}={value}" for name, value in env.items()))
    await page.get_by_role("button", name="Show the prompt").click()
    await expect(page.get_by_label("Prompt", exact=True)).to_contain_text("CURRENT STATE (READ THIS FIRST)")
    await shot(page, "new-run")
    assert read(server, "/api/runs")["runs"] == []

    await page.get_by_role("button", name="Start the run").click()
    await page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}$"))
    await expect(page.locator(".entry").first).to_be_visible()
    await shot(page, "run-live")
    await page.locator(".run-title .status-completed").wait_for(timeout=60_000)
    await expect(page.locator(".run-outcome")).to_contain_text("stop file")
    await expect(page.locator(".turn-row")).to_have_count(3)

    await page.locator("#turn-1").click()
    await expect(page.locator(".transcript")).to_contain_text("python3 -m unittest -v")
    await expect(page.locator(".outcome-bad").first).to_have_text("exit 1")
    await expect(page.locator(".turn-panel")).to_contain_text("3 passed, 2 failed")
    await shot(page, "run")
    await page.locator("#turn-2").click()
    # codex tells which files it patched; what it changed in them is Cody's to say.
    patch = page.get_by_role("region", name="Changes of pricing.py")
    await expect(patch.locator(".diff-del")).to_have_text("-    return int(total_cents * (1 - percent / 100))\n")
    await expect(patch.locator(".diff-add")).to_have_text("+    return (total_cents * (100 - percent) + 50) // 100\n")
    await expect(patch.locator(".diff-counts")).to_have_text("+1 −1")
    assert await colour_of(patch.locator(".diff-add")) != await colour_of(patch.locator(".diff-del"))
    await expect(page.locator(".diff-of")).to_have_count(3)
    await patch.scroll_into_view_if_needed()
    await shot(page, "run-diff")
    await page.locator("summary", has_text="Prompt").click()
    told = page.get_by_label("Prompt of turn 2")
    await expect(told).to_contain_text("CURRENT STATE (READ THIS FIRST)")
    await expect(told).to_contain_text("Step 1: the cause")
    await expect(told).not_to_contain_text("Step 2: the fix")
    for tab, sign in (
        ("Events", ".line"),
        ("Plots", ".plot canvas"),
        ("Logs", ".log-parts"),
        ("Next prompt", ".prompt"),
    ):
        await page.get_by_role("tab", name=tab).click()
        await expect(page.locator(sign).first).to_be_visible()
        await shot(page, f"run-{tab.split()[-1].lower()}")
    await page.get_by_role("tab", name="Logs").click()
    whole = page.get_by_role("region", name="codys-log.md")
    written = (shop / ".cody-harness" / "current-epic" / "codys-log.md").read_text(encoding="utf-8")
    await expect(whole.locator("pre")).to_have_text(written, use_inner_text=True)
    await expect(page.get_by_role("region", name="Work log")).to_contain_text("3 additions by this run")
    await page.get_by_role("region", name="Work log").get_by_role("button", name="This run's").click()
    added = page.get_by_role("region", name="What this run added to codys-log.md")
    await expect(added.locator("article")).to_have_count(3)
    await expect(added).not_to_contain_text("Nothing done yet")
    record = read(server, f"/api/runs/{page.url.split('/')[-1].split('?')[0]}")
    await expect(page.locator(".run-numbers")).to_contain_text(f"{record['currentTurn']} / 6")


async def test_a_start_whose_answer_was_lost_is_one_run_when_tried_again(
    page: Page, launched: Launch, repository: Repository
) -> None:
    server = launched()
    await sign_in(page, server)
    config = repository.config(FOREVER)
    await page.get_by_role("link", name="New run").first.click()
    await expect(page.locator(".connection")).to_contain_text("Live")
    await page.get_by_label("Working folder").fill(config["workingDir"])
    await page.get_by_label("Agent", exact=True).select_option("command")
    await page.get_by_label("Command", exact=True).fill("\n".join(config["command"]))
    await page.get_by_label("Grace before SIGKILL").fill("1")
    is_away = True

    async def lose(route: Route) -> None:
        """The request arrives; the answer doesn't, nor do those to the questions after it."""
        if is_away and route.request.method == "POST":
            await route.fetch()
        if is_away:
            await route.abort("connectionreset")
        else:
            await route.continue_()

    await page.route("**/api/**", lose)
    await page.get_by_role("button", name="Start the run").click()
    await expect(page.get_by_role("alert")).to_contain_text("The run may have started: trying again")
    await expect(page.get_by_role("alert")).not_to_contain_text("Nothing was started")
    await expect(page.locator(".connection")).to_contain_text("Reconnecting")
    is_away = False
    await expect(page.locator(".connection")).to_contain_text("Live")
    await page.get_by_role("button", name="Start the run").click()
    await page.wait_for_url(re.compile("/runs/[0-9a-f-]{36}$"))
    # The button that had the focus is gone: the reader is at the beginning of the new page, and of the one gone back to.
    await expect(page.locator("#main")).to_be_focused()
    assert [run["runId"] for run in read(server, "/api/runs")["runs"]] == [page.url.rsplit("/", 1)[1]]
    await page.get_by_role("link", name="Health").focus()
    await page.go_back()
    await expect(page.get_by_role("heading", name="New run")).to_be_visible()
    await expect(page.locator("#main")).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/new", "/health"])
async def test_no_page_calls_a_server_live_that_stopped_answering(page: Page, launched: Launch, path: str) -> None:
    server = launched()
    await sign_in(page, server)
    await page.goto(server.url + path)
    await expect(page.locator(".connection")).to_contain_text("Live")
    with frozen(server):
        await expect(page.locator(".connection")).to_contain_text("Reconnecting", timeout=60_000)
        await expect(page.locator(".outage")).to_contain_text("the server does not answer")
    await expect(page.locator(".connection")).to_contain_text("Live")


async def test_a_page_that_is_looked_at_again_asks_one_question_at_a_time(page: Page, launched: Launch) -> None:
    server = launched()
    await sign_in(page, server)
    free = asyncio.Event()
    asked = asyncio.Semaphore(0)
    under_way: list[int] = [0]

    async def slowly(route: Route) -> None:
        under_way.append(under_way[-1] + 1)
        asked.release()
        await free.wait()
        await route.continue_()
        under_way.append(under_way[-1] - 1)

    await page.route("**/api/runs?*", slowly)
    await asked.acquire()
    for _ in range(5):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    free.set()
    for _ in range(3):
        await asked.acquire()
    assert max(under_way) == 1
    await page.unroute_all(behavior="ignoreErrors")


async def test_the_skip_link_leads_past_the_bar(page: Page, launched: Launch) -> None:
    server = launched()
    await sign_in(page, server)
    await page.goto(f"{server.url}/?sort=tokens")
    await expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    assert page.url == f"{server.url}/?sort=tokens#main"


async def test_ten_thousand_runs_are_paged_searched_sorted_and_walked_through(page: Page, launched: Launch) -> None:
    server = launched()
    async with server.redis() as redis:
        await many_runs(redis, 10_000)
    await sign_in(page, server)
    await expect(page.locator(".counted")).to_contain_text("the newest ")
    rows = page.locator(".runs-rows .runs-row")
    await expect(rows.first).to_be_visible()
    assert await rows.count() < 60
    await shot(page, "runs-many")

    await page.keyboard.press("/")
    await page.keyboard.type("epic-77")
    await expect(page.locator(".counted")).to_have_text("111")
    assert "q=epic-77" in page.url
    await page.get_by_label("Search the runs").fill("")
    await page.get_by_role("button", name="Tokens").click()
    await expect(page.get_by_role("columnheader", name="Tokens")).to_have_attribute("aria-sort", "descending")
    await expect(rows.first).to_contain_text("epic-9999")
    await expect(page.locator(".counted")).to_have_text("10,000")

    await rows.first.get_by_role("link").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("link", name="epic-9998")).to_be_focused()
    await page.keyboard.press("End")
    await expect(page.locator("[aria-rowindex='10001'] a")).to_be_focused()
    assert await rows.count() < 60
    await page.keyboard.press("Home")
    await expect(page.get_by_role("link", name="epic-9999")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="epic-9999")).to_be_visible()
    await page.go_back()
    await expect(rows.first).to_contain_text("epic-9999")


async def test_the_list_is_live_and_filtered_by_status(page: Page, launched: Launch, repository: Repository) -> None:
    server = launched()
    await sign_in(page, server)
    await expect(page.get_by_text("No runs yet")).to_be_visible()
    run_id = repository.start(server, FOREVER, gracePeriodSec=1)
    row = page.locator(".runs-rows .runs-row")
    await expect(row).to_contain_text("running")
    await page.get_by_label("Status").select_option("completed")
    await expect(page.get_by_text("No run matches")).to_be_visible()
    await page.get_by_label("Status").select_option("running")
    await expect(row).to_contain_text(run_id[:8])
    with server.client() as client:
        client.post(f"/api/runs/{run_id}/cancel", json={}).raise_for_status()
    await expect(page.get_by_text("No run matches")).to_be_visible()


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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
async def test_every_page_passes_the_accessibility_checker_and_fits(
    browser: Browser, launched: Launch, repository: Repository, scheme: Any, width: int
) -> None:
    server = launched()
    context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = await context.new_page()
    await sign_in(page, server)
    run_id = repository.start(server, ACTIVE_AGENT, gracePeriodSec=1)
    await page.locator(".runs-rows .status-running").wait_for()
    found = {}
    for name, path, ready in PAGES:
        if name == "nowhere":
            # A wrong address is answered by the server; within the page it is one that a link made.
            await page.evaluate("history.pushState(null, '', '/nowhere'); dispatchEvent(new PopStateEvent('popstate'))")
        else:
            await page.goto(server.url + path.replace("RUN", run_id))
        await expect(page.locator("main h1")).to_be_visible()
        await expect(page.locator(ready).first).to_be_visible()
        if name == "events":
            # Of a scrolled list a row can have a place and still not be seen.
            assert await page.locator(".log-lines").evaluate("element => element.clientHeight") > 200
        await shot(page, f"{scheme}-{width}-{name}")
        found[name] = await violations(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the screen"
    await context.close()
    assert not any(found.values()), json.dumps(found, indent=1)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
async def test_what_a_page_says_in_between_passes_the_accessibility_checker_too(
    browser: Browser, launched: Launch, repository: Repository, scheme: Any, width: int
) -> None:
    server = launched()
    context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    page = await context.new_page()
    await sign_in(page, server)
    run_id = repository.start(
        server,
        "say(type='step', n=1); wait_for('go')",
        gracePeriodSec=1,
        env={"PLACE": "here", "API_KEY": "of the run"},
    )
    found = {}

    async def look(name: str, ready: Locator) -> None:
        await expect(ready).to_be_visible()
        await shot(page, f"{scheme}-{width}-{name}")
        found[name] = await violations(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the screen"

    await page.goto(f"{server.url}/runs/{run_id}?tab=events")
    await page.locator(".line", has_text="step").click()
    await look("picked", page.get_by_role("complementary", name="The picked event"))
    await page.get_by_role("button", name="Cancel …").click()
    # With the pointer on it a button is as readable.
    await page.get_by_role("button", name="Cancel the run").hover()
    await look("dialog", page.get_by_role("dialog"))
    await page.get_by_role("button", name="Keep it").click()

    # A run like that one: its environment as far as the server tells it, and what it does not tell by its name.
    await page.goto(f"{server.url}/new?from={run_id}")
    await expect(page.get_by_label("Environment")).to_have_value("PLACE=here")
    await expect(page.locator(".notice-warn")).to_contain_text("Left out of the environment")
    await expect(page.locator(".notice-warn code")).to_have_text("API_KEY")
    await page.get_by_label("Turns at most").fill("many")
    await page.get_by_role("button", name="Start the run").click()
    await look("wrong", page.locator(".field-wrong").first)

    await page.goto(f"{server.url}/health")
    await expect(page.locator(".connection")).to_contain_text("Live")
    await context.clear_cookies()
    await look("signed-out", page.get_by_role("heading", name="You are signed out"))
    await sign_in(page, server)
    await page.goto(f"{server.url}/runs/{run_id}")
    await expect(page.locator(".connection")).to_contain_text("Live")
    server.process.kill()
    server.wait()
    await look("lost", page.locator(".outage"))
    await context.close()
    assert not any(found.values()), json.dumps(found, indent=1)


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


PAGES = (
    ("runs", "/", ".runs-rows .status"),
    ("turn", "/runs/RUN", ".turn-panel"),
    ("events", "/runs/RUN?tab=events", ".line"),
    ("plots", "/runs/RUN?tab=plots", ".plot canvas"),
    ("logs", "/runs/RUN?tab=logs", ".log-parts"),
    ("prompt", "/runs/RUN?tab=prompt", ".prompt"),
    ("new", "/new", ".new-run"),
    ("health", "/health", ".check-ok"),
    ("nowhere", "/nowhere", ".empty"),
)
"""Name, address, and what is there when the page is."""
ACTIVE_AGENT = r"""
    for code in range(30, 38): print(f"\x1b[{code}mcolour {code}\x1b[0m \x1b[{code + 60};7mbright\x1b[0m \x1b[2mdim\x1b[0m")
    print("trouble", file=sys.stderr)
    say(type="test_run_completed", passed=3, failed=1)
    say(type="file_written", path="src/a.py")
    say(type="token_usage", inputTokens=1200, cachedInputTokens=800, outputTokens=90, totalTokens=1290)
    LOG.write_text(LOG.read_text() + "- step one\n")
    if TURN > 2: wait_for("never")
"""


class _Hostile(BaseHTTPRequestHandler):
    """A page of another origin; its scripts are the test's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>hostile</title>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[str]:
    """Another web server on this machine: to the browser it is the same site, so it sends Cody's cookies with requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


TRY = """async ([url, options]) => {
  try {
    const answer = await fetch(url, { credentials: 'include', ...options })
    return answer.type === 'opaque' ? 'sent blindly' : `read ${answer.status}`
  } catch { return 'refused' }
}"""


async def test_a_page_of_another_origin_can_neither_act_nor_read(
    page: Page, context: BrowserContext, launched: Launch, repository: Repository, hostile: str
) -> None:
    server = launched()
    await sign_in(page, server)
    run_id = repository.start(server, FOREVER, gracePeriodSec=1)
    await page.locator(".runs-rows .status-running").wait_for()
    foreign = await context.new_page()
    await foreign.goto(hostile)
    cancel = f"{server.url}/api/runs/{run_id}/cancel"
    body = json.dumps({"reason": "hostile"})
    json_type = {"Content-Type": "application/json"}
    tries: list[tuple[str, dict[str, Any]]] = [
        (cancel, {"method": "POST", "headers": json_type, "body": body}),
        (cancel, {"method": "POST", "body": body}),
        (cancel, {"method": "POST", "mode": "no-cors", "body": body}),
        (cancel, {"method": "POST", "mode": "no-cors"}),
        (f"{server.url}/api/runs", {}),
        (f"{server.url}/api/runs/{run_id}/stream", {}),
    ]
    answers = [await foreign.evaluate(TRY, list(one)) for one in tries]
    assert set(answers) <= {"refused", "sent blindly"}, answers
    framed = await foreign.evaluate(
        """(url) => new Promise((done) => {
          const frame = document.createElement('iframe')
          frame.onload = () => { try { done(String(frame.contentDocument)) } catch { done('closed') } }
          frame.src = url
          document.body.append(frame)
        })""",
        server.url,
    )
    assert framed in {"null", "closed"}
    assert read(server, f"/api/runs/{run_id}")["status"] == "running"


def test_the_forms_defaults_and_choices_are_those_of_the_contract() -> None:
    config = json.loads(RunConfig(working_dir="/").model_dump_json(by_alias=True))
    written = json.loads((DASHBOARD / "src" / "model" / "run_defaults.json").read_text(encoding="utf-8"))
    assert written["defaults"] == {"epicId": "current-epic", "config": {**config, "workingDir": ""}}
    for place, choices in written["choices"].items():
        field = RunConfig.model_fields[place.removeprefix("config.")]
        assert choices == list(get_args(field.annotation)), place


def test_the_pure_parts_pass_their_own_tests(builder: Any) -> None:
    builder.test()


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]
    assert not [name for name, found in lock["packages"].items() if "resolved" in found]
    assert all("integrity" in found for name, found in lock["packages"].items() if name)
