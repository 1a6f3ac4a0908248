"""Mark phases of your own program, so that `jobinspect` shows them beside what the job used.

    import rooflight

    with rooflight.phase("prefill"):
        ...

    @rooflight.phase("step")
    def step(): ...

In a job, of Slurm or of `rooflight run`, the marks go to the node's agent; elsewhere they do
nothing. A mark costs some microseconds, never waits and never raises: totals are kept here by name
and sent at most once a second, and when the program ends. Each sending repeats the totals so far
under the time of the phase's first start, so what is lost on the way is made good by the next, and
nothing is counted twice.

This package is all of rooflight that a user's program imports. It is made for the user's Python:
3.9 or later, the standard library alone, and of that next to nothing.
"""

from __future__ import annotations

import atexit
import os
import sys

from rooflight._marks import Marks

__all__ = ["phase"]

_marks = Marks(os.environ)
phase = _marks.phase


def _at_the_end_of_a_process(marks: Marks) -> None:
    """Send the rest at the end of a process of `multiprocessing`, which leaves out `atexit`."""
    sys.modules["multiprocessing.util"].Finalize(None, marks.flush, exitpriority=0)


def _follow_multiprocessing() -> None:
    """Ask it to call us in each new process, once it has forgotten what its parent registered."""
    register = getattr(sys.modules.get("multiprocessing.util"), "register_after_fork", None)
    if register is not None:
        register(_marks, _at_the_end_of_a_process)


def _forked() -> None:
    _marks.forget()
    _follow_multiprocessing()


if _marks.in_a_job:
    atexit.register(_marks.flush)
    os.register_at_fork(after_in_child=_forked)
    _follow_multiprocessing()
