"""What a run of the conformance kit found."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal, Self

from cody.sync.contracts import Frozen

Outcome = Literal["passed", "failed", "not_exercised"]


class ScenarioResult(Frozen):
    """One promise, kept or not. `not_exercised`: it takes faults, and the adapter shows no bench to inject them."""

    name: str
    promise: str
    outcome: Outcome
    passed: bool
    diagnostics: tuple[str, ...] = ()
    """What went wrong first, then the last calls and their answers."""
    duration_s: float


class Report(Frozen):
    """All scenarios. `passed`: none failed, and at least one was played; read `not_exercised` beside it."""

    passed: bool
    scenarios: tuple[ScenarioResult, ...]
    duration_s: float

    @property
    def failures(self) -> tuple[ScenarioResult, ...]:
        """The promises that are broken."""
        return tuple(result for result in self.scenarios if result.outcome == "failed")

    @property
    def not_exercised(self) -> tuple[ScenarioResult, ...]:
        """The promises that nobody looked at."""
        return tuple(result for result in self.scenarios if result.outcome == "not_exercised")

    def __getitem__(self, name: str) -> ScenarioResult:
        for result in self.scenarios:
            if result.name == name:
                return result
        raise KeyError(name)

    def __await__(self) -> Generator[Any, None, Self]:
        """The report itself, so that `await conformance.run(...)` is no mistake in an async test."""
        yield from ()
        return self

    def __str__(self) -> str:
        played = len(self.scenarios) - len(self.not_exercised)
        lines = [
            f"conformance {'passed' if self.passed else 'FAILED'}: {len(self.failures)} of {played} scenarios failed, "
            f"{len(self.not_exercised)} not exercised, {self.duration_s:.1f} s"
        ]
        for result in self.scenarios:
            lines.append(f"  {result.outcome:13} {result.name} ({result.duration_s:.2f} s): {result.promise}")
            if result.outcome != "passed":
                lines += [f"      {line}" for line in result.diagnostics]
        return "\n".join(lines)

    def raise_for_failures(self) -> None:
        """AssertionError with the whole report, when it did not pass."""
        if not self.passed:
            raise AssertionError(str(self))


def report_of(results: list[ScenarioResult], duration_s: float) -> Report:
    """The report of these results."""
    kept = any(result.passed for result in results) and not any(result.outcome == "failed" for result in results)
    return Report(passed=kept, scenarios=tuple(results), duration_s=duration_s)
