"""Where a probe finds the kernel's files: the one place that names them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Roots:
    """Top folders of the kernel's interfaces; tests point them at a fixture machine.

    Attributes:
        proc: procfs (`man 5 proc`).
        sys: sysfs (`man 5 sysfs`).
        cgroup: where the control group hierarchies are mounted (v1, v2 or hybrid).
        run: run-time state of services.

    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    cgroup: Path = Path("/sys/fs/cgroup")
    run: Path = Path("/run")
