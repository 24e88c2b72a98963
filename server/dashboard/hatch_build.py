"""hatchling's build hook: the dashboard is built before a wheel or an sdist is packed (hatchling 1.27)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = "server/static"


def _builder(root: str) -> ModuleType:
    """build.py by its path: nothing of Cody can be imported while it is built."""
    path = Path(root) / "server" / "dashboard" / "build.py"
    spec = importlib.util.spec_from_file_location("cody_dashboard_build", path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class DashboardBuildHook(BuildHookInterface[Any]):
    """Builds server/static, and packs it although git ignores it."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node from PyPI, on a machine that has none that will do."""
        builder = _builder(self.root)
        return [] if builder.is_built() or builder.machine_node() else [builder.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable installation serves the source tree's server/static, which `make dashboard` builds."""
        if version != "editable":
            _builder(self.root).build()
            build_data["artifacts"].append(f"/{STATIC}/**")
