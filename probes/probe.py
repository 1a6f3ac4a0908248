"""What every probe is: a class with a name and one method, `sample`."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from probes.roots import Roots
from probes.sample import Sample


class ProbeUnavailable(Exception):
    """The source is not on this node; the message says what is missing, for `rooflight check`."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a probe may know of its surroundings.

    Attributes:
        roots: where the kernel's files are.
        monotonic: clock in seconds that never goes back, for rates.
        tempdisk_paths: folders of node-local temporary storage, beside $TMPDIR and /tmp.
        dcgm_url: metrics of a DCGM exporter on this node, for GPUs without GPM; empty for none.

    """

    roots: Roots = field(default_factory=Roots)
    monotonic: Callable[[], float] = time.monotonic
    tempdisk_paths: tuple[Path, ...] = ()
    dcgm_url: str = ""


class Probe(ABC):
    """Reads one source on this node. Knows no job and no store.

    `__init__` looks for the source and raises `ProbeUnavailable` where it is absent. It runs no
    command and needs no root. Any read may block without end (a driver, a dead mount): the agent
    then goes on without the probe until the read returns.

    Attributes:
        name: the probe's name in the configuration, in `rooflight check` and in `agent_probe`.
        own_thread: whether reading may take long without hanging (NVML), or goes on between
            samples: such a probe is read in a worker, beside the others.

    """

    name: ClassVar[str]
    own_thread: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, context: Context) -> None:
        """Find the source.

        Raises:
            ProbeUnavailable: this node has no such source.

        """

    @abstractmethod
    def sample(self) -> Sequence[Sample]:
        """Read the source now.

        A field that cannot be read or parsed is left out, and the other fields are still given.

        Raises:
            OSError: the source went away; the agent counts it and tries again at the next tick.

        """

    def glance_seconds(self) -> float | None:
        """Return how often to `glance` between two samples; None for never."""
        return None

    def glance(self) -> None:  # noqa: B027 - most probes lose nothing between two samples
        """Read what would be lost or blurred before the next sample, and keep it until then."""

    def freshen(self) -> None:  # noqa: B027 - most probes read everything at every sample
        """Have the next sample read everything anew: a job begins, or ended."""

    def limits(self) -> Sequence[str]:
        """Say what this probe cannot read here, each with what would add it; empty if nothing."""
        return ()

    def close(self) -> None:  # noqa: B027 - most probes hold nothing open
        """Give back what the probe holds open."""
