"""`python -m server`: see `server.command`."""

from __future__ import annotations

import sys

from cody import collecting


def main() -> int:
    """Run the server; answers the exit code."""
    collecting.begin()
    from server.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
