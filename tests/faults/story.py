"""What goes wrong, and when: told by a seed, so that it can be told again."""

import random
from collections.abc import Iterator
from typing import NamedTuple

STATUSES = (401, 403, 404, 408, 429, 500, 502, 503, 504)

TROUBLES = (
    "kill",  # the server, with SIGKILL
    "pause",  # the server, with SIGSTOP
    "overflow",  # away for longer than the spool has room
    *("refuse", "hang", "slow", "half_close", "cut", "garbage", "limit", "poison", "status"),
    *("endless", "trickle", "bomb", "page", "half"),
)
"""What the server does; those not explained here are modes of the proxy."""

STEPS = (-3600.0, 3600.0, -1.0, 1.0)
"""Seconds by which the clock is stepped; a short step back meets ticks of its own past."""

OVERFLOW_TICKS = 150

NEED_DISK = ("overflow", "poison")
"""Troubles that need room on the disk: for the spool's files, and for the quarantine's."""


class Episode(NamedTuple):
    """One trouble, and what else happens at the same time.

    Attributes:
        trouble: one of `TROUBLES`.
        status: the HTTP status if the trouble is "status".
        ticks: how long it lasts.
        kill_after: ticks after which the agent is killed with SIGKILL; None: it is not.
        disk_full: whether the spool's disk is full for as long.
        step: seconds by which the clock is stepped at the beginning.
        calm: ticks without trouble afterwards.

    """

    trouble: str
    status: int
    ticks: int
    kill_after: int | None
    disk_full: bool
    step: float
    calm: int

    def __str__(self) -> str:
        parts = [f"{self.trouble} {self.status or ''}".strip() + f" for {self.ticks} ticks"]
        parts += ["disk full"] if self.disk_full else []
        parts += [f"clock {self.step:+g} s"] if self.step else []
        parts += [f"agent killed after {self.kill_after}"] if self.kill_after is not None else []
        return ", ".join(parts)


def episodes(seed: int) -> Iterator[Episode]:
    """Yield episodes without end: every trouble once in a random order, and then anew."""
    numbers = random.Random(seed)
    statuses = _shuffled_for_ever(numbers, STATUSES)
    for trouble in _shuffled_for_ever(numbers, TROUBLES):
        ticks = OVERFLOW_TICKS if trouble == "overflow" else numbers.randint(5, 60)
        yield Episode(
            trouble,
            status=int(next(statuses)) if trouble == "status" else 0,
            ticks=ticks,
            kill_after=numbers.randrange(ticks) if numbers.random() < 0.5 else None,
            disk_full=trouble not in NEED_DISK and numbers.random() < 0.3,
            step=numbers.choice(STEPS) if numbers.random() < 0.4 else 0.0,
            calm=numbers.randint(0, 20),
        )


def _shuffled_for_ever(numbers: random.Random, things: tuple[object, ...]) -> Iterator[str]:
    while True:
        order = [str(thing) for thing in things]
        numbers.shuffle(order)
        yield from order
