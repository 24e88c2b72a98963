"""Play every scenario against an adapter, each on a fresh one, and never hang whatever the adapter does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from inspect import isawaitable

from cody.sync.conformance import scenarios
from cody.sync.conformance.kit import GRACE_S, ContractBroken, Kit, Patience, is_done
from cody.sync.conformance.report import Outcome, Report, ScenarioResult, report_of
from cody.sync.conformance.scenario import Scenario

Factory = Callable[[], object]
"""An adapter's class, or anything that makes one when called: the adapter, an awaitable of it, or a context manager,
async or not, that enters with it."""

CALL_TIMEOUT_S = 5.0
DEADLINE_S = 60.0


def run(
    factory: Factory,
    *,
    only: Collection[str] = (),
    call_timeout_s: float = CALL_TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
) -> Report:
    """The report on the adapters that `factory` makes; blocks until it is there.

    The scenarios run on an event loop of their own, in a thread: this may be called inside a running loop, and comes
    back even when the adapter blocks its loop for ever (the thread is then left behind). `only`: names of scenarios,
    all when empty; raises KeyError for an unknown one. `call_timeout_s` bounds one call, `deadline_s` everything.
    """
    chosen = _chosen(only)
    results: list[ScenarioResult] = []
    done = threading.Event()
    started = time.perf_counter()

    def play() -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(_play_all(chosen, factory, Patience(call_timeout_s), deadline_s, results))
            finally:
                done.set()  # before the loop is closed: that waits for tasks which ignore their cancellation

    thread = threading.Thread(target=play, name="sync-conformance", daemon=True)
    thread.start()
    if done.wait(deadline_s + call_timeout_s):
        thread.join(1.0)
    kept = list(results)
    for scenario in chosen[len(kept) :]:
        kept.append(_failed(scenario, "the adapter blocked the event loop: this scenario never came to its end"))
    return report_of(kept, time.perf_counter() - started)


async def run_async(
    factory: Factory,
    *,
    only: Collection[str] = (),
    call_timeout_s: float = CALL_TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
) -> Report:
    """As `run`, on the caller's event loop: for a factory whose adapters live on it."""
    chosen = _chosen(only)
    results: list[ScenarioResult] = []
    started = time.perf_counter()
    await _play_all(chosen, factory, Patience(call_timeout_s), deadline_s, results)
    return report_of(results, time.perf_counter() - started)


def scenario_names() -> tuple[str, ...]:
    """The names of all scenarios, to parametrise a test with."""
    return tuple(scenario.name for scenario in scenarios.ALL)


def _chosen(only: Collection[str]) -> tuple[Scenario, ...]:
    unknown = set(only) - set(scenario_names())
    if unknown:
        raise KeyError(f"no scenarios called {', '.join(sorted(unknown))}")
    return tuple(scenario for scenario in scenarios.ALL if not only or scenario.name in only)


async def _play_all(
    chosen: tuple[Scenario, ...],
    factory: Factory,
    patience: Patience,
    deadline_s: float,
    results: list[ScenarioResult],
) -> None:
    end = time.perf_counter() + deadline_s
    for scenario in chosen:
        left_s = end - time.perf_counter()
        if left_s <= 0:
            results.append(_failed(scenario, f"not played: the adapter had used up all {deadline_s:g} s by then"))
        else:
            results.append(await _play(scenario, factory, patience, left_s))


async def _play(scenario: Scenario, factory: Factory, patience: Patience, timeout_s: float) -> ScenarioResult:
    started = time.perf_counter()
    task = asyncio.create_task(_on_its_own_adapter(scenario, factory, patience))
    if not await is_done(task, min(timeout_s, 4 * patience.call_s)):
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_S)
        patience.lost(scenario.name)
        result = _failed(scenario, "did not come to an end: making, using or closing the adapter hangs")
    else:
        result = task.result()
    return result.model_copy(update={"duration_s": time.perf_counter() - started})


async def _on_its_own_adapter(scenario: Scenario, factory: Factory, patience: Patience) -> ScenarioResult:
    kit: Kit | None = None
    try:
        async with _made(factory) as adapter:
            kit = Kit(adapter, patience)
            if scenario.needs_bench and not kit.has_bench:
                why = "the adapter shows no bench to inject faults with"
                return _result(scenario, "not_exercised", (why,))
            await scenario.play(kit)
    except ContractBroken as broken:
        return _failed(scenario, str(broken), kit)
    except Exception as failure:
        return _failed(scenario, f"raised {failure!r}", kit)
    return _result(scenario, "passed", ())


@asynccontextmanager
async def _made(factory: Factory) -> AsyncIterator[object]:
    made = factory()
    if isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as adapter:
            yield adapter
    elif isinstance(made, AbstractContextManager):
        with made as adapter:
            yield adapter
    else:
        yield made
        close = getattr(made, "aclose", None)
        if close is not None:
            await close()


def _result(scenario: Scenario, outcome: Outcome, diagnostics: tuple[str, ...]) -> ScenarioResult:
    return ScenarioResult(
        name=scenario.name,
        promise=scenario.promise,
        outcome=outcome,
        passed=outcome == "passed",
        diagnostics=diagnostics,
        duration_s=0.0,
    )


def _failed(scenario: Scenario, why: str, kit: Kit | None = None) -> ScenarioResult:
    return _result(scenario, "failed", (why, *(kit.transcript if kit else ())))
