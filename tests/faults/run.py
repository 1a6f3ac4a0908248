"""One run of the fault suite, from a seed to a verdict."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.bed import bed, live_through, settle
from tests.faults.story import TROUBLES, episodes
from tests.faults.verdict import Verdict, judge
from tests.integration.services import influxd


@dataclass(frozen=True)
class Run:
    """What was done, and how it ended."""

    seed: int
    episodes: int
    kills: int
    steps: int
    disks: int
    seconds: float
    requests: dict[str, int]
    verdict: Verdict

    def __str__(self) -> str:
        verdict = self.verdict
        lost = ", ".join(f"{reason} {points}" for reason, points in verdict.lost.items()) or "none"
        requests = ", ".join(f"{name} {number}" for name, number in sorted(self.requests.items()))
        return "\n".join(
            [
                f"seed {self.seed}: {self.episodes} episodes in {self.seconds:.0f} s; agent killed "
                f"{self.kills} times, disk full {self.disks}, clock stepped {self.steps} times",
                f"requests by what the proxy did: {requests}",
                f"finished ticks {verdict.ticks}, lines {verdict.lines}; written again at the same "
                f"time {verdict.replaced}; ticks {verdict.replaced_ticks} (agent: "
                f"{verdict.told_replaced})",
                f"not in the store {verdict.missing} lines; counted as lost: {lost}",
                f"unaccounted {verdict.unaccounted}",
                *verdict.faults[:20],
            ]
        )


def run(
    folder: Path,
    seed: int,
    ticks: int,
    tell: Callable[[str], None] = print,
    at_least: int = len(TROUBLES),
) -> Run:
    """Sample for so many ticks and so many episodes at least, with every trouble; judge.

    Raises:
        Missing: influxd is not installed, or nothing may be mounted.
        AssertionError: an agent died by itself, or did not get on.

    """
    begun = time.monotonic()
    tell(f"fault suite: make faults SEED={seed} TICKS={ticks}")
    (folder / "influxd").mkdir()
    done = Counter[str]()
    with influxd(folder / "influxd") as server, bed(folder, server) as made:
        for number, episode in enumerate(episodes(seed)):
            sampled = sum(made.ticks(life) for life in range(1, made.lives + 1))
            if number >= at_least and sampled >= ticks:
                break
            tell(f"{time.monotonic() - begun:6.1f} s {sampled:6} ticks: {episode}")
            live_through(made, episode)
            done.update(episodes=1, steps=bool(episode.step), disks=episode.disk_full)
        settle(made)
        verdict = judge(made)
        seconds = time.monotonic() - begun
        return Run(
            seed,
            done["episodes"],
            made.kills,
            done["steps"],
            done["disks"],
            seconds,
            made.proxy.seen,
            verdict,
        )
