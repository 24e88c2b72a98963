"""The long faults run on request only: `pytest tests/faults -m faults_full`, or `make test-faults` for all with a table."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults_full: a fault that takes long; left out unless -m names the marker")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "faults_full" in config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("faults_full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
