"""An agent that prints what it was born with, as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(
    json.dumps(
        {
            "cwd": os.getcwd(),
            "env": dict(os.environ),
            "fds": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
            "leads_session": os.getsid(0) == os.getpid(),
            "blocked": int(status["SigBlk"], 16),
        }
    )
)
