"""The kit as a test class: inherit it, say how an adapter is made, and every scenario is a test.

    class TestMyAdapter(AdapterConformance):
        def factory(self) -> MyAdapter:
            return MyAdapter()

Collected by pytest and by unittest alike, whatever the collector calls its classes.
"""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from cody.sync.conformance.runner import run, scenario_names


class AdapterConformance(unittest.TestCase):
    """Inherit it and override `factory`. A scenario that needs a bench is skipped for an adapter that shows none."""

    __test__: ClassVar[bool] = False  # of this class nothing is to be collected, of its heirs everything

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__test__ = True
        for name in scenario_names():
            setattr(cls, f"test_{name}", _test_of(name))

    def factory(self) -> object:
        """A new adapter, an awaitable of it, or a context manager that enters with it."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its adapter is made: override factory")


def _test_of(name: str) -> Any:
    def test(self: AdapterConformance) -> None:
        report = run(self.factory, only=(name,))
        if report[name].outcome == "not_exercised":
            raise unittest.SkipTest(*report[name].diagnostics)
        report.raise_for_failures()

    test.__name__ = f"test_{name}"
    return test
