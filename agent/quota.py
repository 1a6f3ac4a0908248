"""How much users' programs may tell the agent: it must stay cheap, and its store small."""

from collections.abc import Callable
from dataclasses import dataclass, field

from probes.sample import Tags

POINTS_PER_SECOND = 50.0
"""A program that marks phases of a fraction of a second stays below this."""

POINTS_AT_ONCE = 500.0
TOO_MANY = (
    f"too many points: at most {POINTS_PER_SECOND:.0f} each second, {POINTS_AT_ONCE:.0f} at once"
)
MOST_NAMES = 200
"""Different names of phases in one job: each is a series that the store keeps."""


@dataclass(slots=True)
class Quota:
    """Counts what each user has told: a bucket of points that fills up by and by.

    Attributes:
        monotonic: a clock in seconds.

    """

    monotonic: Callable[[], float]
    _buckets: dict[int, tuple[float, float]] = field(default_factory=dict)
    _names: dict[str, set[Tags]] = field(default_factory=dict)

    def allows(self, uid: int, points: int) -> bool:
        """Tell whether a user may tell so many points now, and count them if so."""
        now = self.monotonic()
        left, since = self._buckets.get(uid, (POINTS_AT_ONCE, now))
        left = min(POINTS_AT_ONCE, left + (now - since) * POINTS_PER_SECOND)
        good = points <= left
        self._buckets[uid] = (left - points if good else left, now)
        return good

    def knows(self, jobid: str, name: Tags) -> bool:
        """Tell whether a job may use this name of a phase, and remember it if so."""
        names = self._names.setdefault(jobid, set())
        if name not in names and len(names) >= MOST_NAMES:
            return False
        names.add(name)
        return True

    def forget(self, jobid: str) -> None:
        """Forget a job that ended."""
        self._names.pop(jobid, None)
