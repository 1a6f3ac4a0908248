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

from rooflight._marks import Marks

__all__ = ["phase"]

_marks = Marks(os.environ)
phase = _marks.phase

if _marks.in_a_job:
    atexit.register(_marks.flush)
    os.register_at_fork(after_in_child=_marks.forget)
