"""What programs report to the agent: bounded, of their own jobs, in their time."""

import os
import pwd
from collections.abc import Callable, Sequence

from agent.jobs import JobTable
from agent.messages import TOLD, PointMessage, Reply
from agent.quota import MOST_NAMES, TOO_MANY, Quota
from probes.catalogue import CATALOGUE
from probes.sample import Sample, Tags, Value

LATEST_SECONDS = 60.0
"""How far from a job's time a point of it may lie: clocks differ."""

LONGEST_NAME = 100
"""Characters of a tag that are kept: a phase's name, say. Every other one is a series more."""

LONGEST_TEXT = 500
"""Characters of a text that are kept: an explanation."""

Learn = Callable[[Sequence[tuple[int, Sample]], Sequence[Sample]], None]
"""Takes phases with their times (ms since 1970), and ceilings, that root measured."""


class Intake:
    """Takes points of programs.

    Args:
        jobs: of this node.
        quota: bounds what users may report.
        now_ms: the wall clock.
        write: checks a sample and hands it to the spool; returns what was plausible of it.
        learn: see `Learn`.

    """

    def __init__(
        self,
        jobs: JobTable,
        quota: Quota,
        now_ms: Callable[[], int],
        write: Callable[[Sample, int], Sample],
        learn: Learn,
    ) -> None:
        self._jobs = jobs
        self._quota = quota
        self._now_ms = now_ms
        self._write = write
        self._learn = learn

    def allows(self, uid: int, size: int) -> bool:
        """Tell whether a message of a user, of so many bytes, may be decoded now, and count it."""
        return is_trusted(uid) or self._quota.allows_bytes(uid, size)

    def take(self, points: Sequence[PointMessage], uid: int) -> Reply:
        """Write points that a user may report, and say why the first other one is refused."""
        trusted = is_trusted(uid)
        if not trusted and not self._quota.allows(uid, len(points)):
            return Reply(False, TOO_MANY)
        phases, ceilings = [], []
        for point in points:
            if point.measurement not in TOLD:
                return Reply(
                    False, f"{point.measurement[:LONGEST_NAME]}: not for programs to report"
                )
            sample = bounded(point)
            refused = "" if trusted else self._refusal(sample.tags, point.time_ms, uid)
            if refused:
                return Reply(False, refused)
            good = self._write(sample, point.time_ms)
            if point.measurement == "phase":
                phases.append((point.time_ms, good))
            else:
                ceilings.append(good)
        if trusted:  # others' words do not change what everyone is held against
            self._learn(phases, ceilings)
        return Reply(True)

    def _refusal(self, own: Tags, time_ms: int, uid: int) -> str:
        """Say why a user's point is not taken; empty if it is: jobs' owners report their jobs."""
        jobid = dict(own).get("jobid", "")
        running = self._jobs.get(jobid)
        if running is None or running.job.uid != uid:
            return f"{user_name(uid)} does not own this job"
        begun, slack = running.job.start_ms, int(LATEST_SECONDS * 1000)
        if not begun - slack <= time_ms <= self._now_ms() + slack:
            return "its time lies outside the job's"
        if not self._quota.knows(jobid, own):
            return f"too many names of phases in this job: {MOST_NAMES} are enough"
        return ""


def bounded(point: PointMessage) -> Sample:
    """Return a point with the tags that its measurement has, and no text longer than is useful."""
    known = CATALOGUE[point.measurement].tags
    tags = sorted((name, text[:LONGEST_NAME]) for name, text in point.tags.items() if name in known)
    fields: dict[str, Value] = {
        name: value[:LONGEST_TEXT] if isinstance(value, str) else value
        for name, value in point.fields.items()
    }
    return Sample(point.measurement, tuple(tags), fields)


def is_trusted(uid: int) -> bool:
    """Tell whether a user is root, or the agent's own."""
    return uid in (0, os.geteuid())


def user_name(uid: int) -> str:
    """Return a user's name, for a person to read."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
