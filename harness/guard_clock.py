"""Timers of the kernel on the clock that no step moves and no suspend stops.

poll()'s own timeout stands still while the machine sleeps, and a process that is stopped acts on nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

NS = 1_000_000_000
CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its monotonic clock runs on in sleep
ABSTIME = 1  # TFD_TIMER_ABSTIME and TIMER_ABSTIME


def boottime_ns() -> int:
    """Now, on the clock that all of the guard's deadlines are counted on."""
    return time.clock_gettime_ns(CLOCK)


class KernelClock:
    """`fd` becomes readable at the instant of `wake_at`; `kill_this_process_at` works on a stopped process too.

    Linux only (timerfd_create(2), timer_create(2)). `fd` is -1 where the kernel or a sandbox forbids the former.
    """

    def __init__(self, libc: ctypes.CDLL) -> None:
        self.fd: int = libc.timerfd_create(CLOCK, os.O_CLOEXEC)
        self._libc = libc
        self._rt = libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1")  # glibc before 2.34
        self._timer = ctypes.c_void_p()
        sigevent = (ctypes.c_int * 16)()  # union sigval, as wide as a pointer; int signo; int notify = 0, SIGEV_SIGNAL
        sigevent[ctypes.sizeof(ctypes.c_void_p) // 4] = signal.SIGKILL
        self._rt.timer_create(CLOCK, ctypes.byref(sigevent), ctypes.byref(self._timer))

    def wake_at(self, instant_ns: int | None) -> None:
        self._libc.timerfd_settime(self.fd, ABSTIME, ctypes.byref(_itimerspec(instant_ns)), None)

    def kill_this_process_at(self, instant_ns: int | None) -> None:
        self._rt.timer_settime(self._timer, ABSTIME, ctypes.byref(_itimerspec(instant_ns)), None)


def _itimerspec(instant_ns: int | None) -> ctypes.Array[ctypes.c_long]:
    at = 0 if instant_ns is None else max(instant_ns, 1)  # zero disarms
    return (ctypes.c_long * 4)(0, 0, at // NS, at % NS)
