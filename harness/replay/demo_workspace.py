"""The small project that the bundled scenario `demo` works on: a bug, tests that show it, and an epic about it.

The patches in scenarios/demo.yaml name lines of these files; change both together. A test runs them against each other.
"""

from __future__ import annotations

from pathlib import Path

from cody.errors import ConfigurationError

_PRICING = '''\
"""Prices of an order. All amounts are whole cents."""

from __future__ import annotations

from collections.abc import Iterable


def line_total(unit_cents: int, quantity: int) -> int:
    """Price of `quantity` pieces."""
    if quantity < 0:
        raise ValueError(f"quantity must not be negative: {quantity}")
    return unit_cents * quantity


def discounted(total_cents: int, percent: int) -> int:
    """`total_cents` less `percent` per cent, to the nearest cent; half a cent is rounded up."""
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be between 0 and 100: {percent}")
    return int(total_cents * (1 - percent / 100))


def order_total(lines: Iterable[tuple[int, int]], percent: int = 0) -> int:
    """Price of an order of (unit price, quantity) lines with a discount on the whole."""
    return discounted(sum(line_total(unit, quantity) for unit, quantity in lines), percent)
'''

_TESTS = '''\
"""Run with: python3 -m unittest -v"""

import unittest

from pricing import discounted, line_total, order_total


class LineTotalTest(unittest.TestCase):
    def test_multiplies(self) -> None:
        self.assertEqual(line_total(250, 4), 1000)

    def test_refuses_a_negative_quantity(self) -> None:
        with self.assertRaises(ValueError):
            line_total(250, -1)


class DiscountTest(unittest.TestCase):
    def test_no_discount(self) -> None:
        self.assertEqual(discounted(1999, 0), 1999)

    def test_thirty_per_cent_off(self) -> None:
        self.assertEqual(discounted(1300, 30), 910)

    def test_order_of_two_lines(self) -> None:
        self.assertEqual(order_total([(450, 2), (400, 1)], percent=30), 910)


if __name__ == "__main__":
    unittest.main()
'''

_README = """\
# Pricing

Prices of an order, in whole cents. Python 3.11, no dependencies.

    python3 -m unittest -v

A shop reported that orders with 30 % off are sometimes one cent too cheap. That is what the epic in
`.cody-harness/current-epic` is about.
"""

_DECISION_LOG = """\
# Decision log

One entry for each decision that the next reader would otherwise question.

- Amounts are integers in cents. Floats are for display only.
"""

_QUESTIONS = """\
# Questions for the user

Written here instead of waiting for an answer.

(none)
"""

_LOG = """\
# Cody's log: pricing

Newest entry last. Read this first, then go on where it ends.

## Start

- Nothing done yet.
"""

_GUIDE = """\
# Pricing guide

## What is wrong

Order 4711: 2 x 4.50 + 1 x 4.00 with 30 % off came to 9.09. It must be 9.10.

## What is wanted

1. Find the cause and write it into the log, with the failing test.
2. Mend `pricing.py`. A discount is rounded to the nearest cent, half a cent up. No new dependency.
3. Add a test that would have caught it for every percentage, not for one number.
4. All tests pass: `python3 -m unittest -v`.
"""

_PROMPT = """\
# Mission

Bring the pricing epic to its end. Work in small steps, one step of the guide a turn.

- Each turn begins with the log and ends with a new entry in it: what was done, what was seen, what is next.
- Decisions that outlive the epic go into `.cody-harness/decision-log.md`.
- Run the tests before you say that something works.
- When all steps are done and the tests pass, create the file `.cody-harness/current-epic/.stop`.
"""

DEMO_FILES = {
    ".gitignore": "__pycache__/\n",
    "README.md": _README,
    "pricing.py": _PRICING,
    "test_pricing.py": _TESTS,
    ".cody-harness/decision-log.md": _DECISION_LOG,
    ".cody-harness/user-feedback-questions.md": _QUESTIONS,
    ".cody-harness/current-epic/codys-log.md": _LOG,
    ".cody-harness/current-epic/01-pricing-guide.md": _GUIDE,
    ".cody-harness/current-epic/prompt.md": _PROMPT,
}
"""Path inside the workspace -> text."""


def create_demo_workspace(path: Path) -> None:
    """Write the project into `path`, which is made when missing and must be empty (a `.git` folder may be there).

    Raises ConfigurationError when it is not empty or cannot be written: nothing of the user's is replaced.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(entry.name != ".git" for entry in path.iterdir()):
            raise ConfigurationError(f"the folder {path} is not empty: name a new one for the demo")
        for name, text in DEMO_FILES.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the demo workspace {path} cannot be written: {error}") from None
