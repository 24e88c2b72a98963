"""Sums and differences of token usage."""

from __future__ import annotations

from cody.contracts.run import TokenUsage


class UsageSum:
    """Adds reports up; as cheap as five additions, since a program may report a million times."""

    def __init__(self) -> None:
        self._input = self._cached = self._output = self._reasoning = self._total = 0

    def add(self, part: TokenUsage) -> None:
        self._input += part.input_tokens
        self._cached += part.cached_input_tokens
        self._output += part.output_tokens
        self._reasoning += part.reasoning_tokens
        self._total += part.total_tokens

    def total(self) -> TokenUsage:
        return TokenUsage(
            input_tokens=self._input,
            cached_input_tokens=self._cached,
            output_tokens=self._output,
            reasoning_tokens=self._reasoning,
            total_tokens=self._total,
        )


def difference(now: TokenUsage, before: TokenUsage) -> TokenUsage:
    """What `now` has more than `before`, figure by figure and never below 0; its total = input + output."""
    given = max(0, now.input_tokens - before.input_tokens)
    produced = max(0, now.output_tokens - before.output_tokens)
    return TokenUsage(
        input_tokens=given,
        cached_input_tokens=max(0, now.cached_input_tokens - before.cached_input_tokens),
        output_tokens=produced,
        reasoning_tokens=max(0, now.reasoning_tokens - before.reasoning_tokens),
        total_tokens=given + produced,
    )
