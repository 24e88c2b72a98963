"""An agent with a double-forked setsid daemon that ignores SIGTERM; ends by itself when the file argv[1] is there.

With "hidden" behind it the daemon drops its environment, and its pid is told.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def main(done: str, kind: str = "") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            for fd in (0, 1, 2):
                os.close(fd)
            if kind == "hidden":
                os.execve("/bin/sleep", ["sleep", "600"], {})
            while True:
                time.sleep(600)
        if kind == "hidden":
            os.write(1, b"hidden daemon %d\n" % pid)
        os._exit(0)
    os.wait()
    print("daemon started", flush=True)
    while not os.path.exists(done):
        time.sleep(0.01)
    with open(os.environ["CODY_STOP_FILE"], "w", encoding="utf-8") as file:
        file.write("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
