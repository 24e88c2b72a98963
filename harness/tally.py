"""What a turn's events add up to: the numbers of the snapshot and of the turn's record. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cody.contracts.run import RunStats, TokenUsage
from harness.agents.base import Body

FILES_KEPT = 200


@dataclass(slots=True)
class Tally:
    """Counts one turn."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    written: dict[str, None] = field(default_factory=dict)
    files_written: int = 0
    tests_passed: int = 0
    tests_failed: int = 0

    def add(self, body: Body) -> bool:
        """Count an event; True when a number changed."""
        # By the type's name: most events are none of these, and isinstance of models is slow.
        if body.type == "file_written":
            return self._add_file(body.path)
        if body.type == "test_run_completed":
            self.tests_passed += body.passed
            self.tests_failed += body.failed
            return True
        if body.type == "token_usage":
            # Numbers, no model: an agent may report its tokens a hundred thousand times a second.
            self.input_tokens += body.input_tokens
            self.cached_input_tokens += body.cached_input_tokens
            self.output_tokens += body.output_tokens
            self.reasoning_tokens += body.reasoning_tokens
            self.total_tokens += body.total_tokens
            return True
        return False

    def _add_file(self, path: str) -> bool:
        if path in self.written:
            return False
        self.files_written += 1
        # Bounded: a turn that writes a million files is counted, not listed.
        if len(self.written) < 100_000:
            self.written[path] = None
        return True

    @property
    def usage(self) -> TokenUsage:
        """All tokens reported so far."""
        return TokenUsage(
            input_tokens=self.input_tokens,
            cached_input_tokens=self.cached_input_tokens,
            output_tokens=self.output_tokens,
            reasoning_tokens=self.reasoning_tokens,
            total_tokens=self.total_tokens,
        )

    @property
    def files(self) -> list[str]:
        """The first paths written, in order."""
        return list(self.written)[:FILES_KEPT]

    def on_top_of(self, before: RunStats, *, ended: bool) -> RunStats:
        """The run's numbers with this turn in them."""
        return RunStats(
            turns=before.turns + (1 if ended else 0),
            tokens=before.tokens + self.total_tokens,
            input_tokens=before.input_tokens + self.input_tokens,
            cached_input_tokens=before.cached_input_tokens + self.cached_input_tokens,
            output_tokens=before.output_tokens + self.output_tokens,
            files_written=before.files_written + self.files_written,
            tests_passed=before.tests_passed + self.tests_passed,
            tests_failed=before.tests_failed + self.tests_failed,
        )
