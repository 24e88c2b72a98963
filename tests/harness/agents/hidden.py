"""An agent with a double-forked setsid daemon that has dropped its environment. Tells the daemon's pid, and stays."""

from __future__ import annotations

import os
import signal


def main() -> None:
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid > 0:
            os.write(1, b"%d\n" % pid)
            os._exit(0)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os.wait()
    while True:
        signal.pause()


main()
