"""What one control group (one job) uses: cgroup v2, v1, and both mounted side by side.

No probe: the agent knows which groups are jobs, and asks here. Sources: the kernel's
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,cpuacct,blkio-controller}.rst.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from probes.parsing import ONE_RECORD, KeptFile, number, read_text
from probes.roots import Roots
from probes.sample import Value
from probes.seldom import SELDOM_SECONDS, Seldom

TICKS_PER_SECOND = float(os.sysconf("SC_CLK_TCK"))
NO_LIMIT = 2.0**62
"""v1 says "no limit" by the largest multiple of the page size, which differs by machine."""

_THIS_MACHINE = Roots()

Devices = Mapping[str, tuple[float, float]]
"""Bytes read and written by block device (`major:minor`)."""


@dataclass(frozen=True, slots=True)
class CgroupPaths:
    """Where one control group is.

    Attributes:
        v2: its directory in the unified hierarchy, if that is mounted.
        v1: its directory for each v1 controller; empty on a pure v2 machine.

    """

    v2: Path | None = None
    v1: Mapping[str, Path] = field(default_factory=dict)


class Cgroup:
    """One control group, read again and again; its files stay open until `close`.

    v1 is read where it has the group: with both mounted, that is where the controllers are. The
    limit is `Seldom`, and so is what the groups below have to be walked through for (number of
    processes, v1's kills).
    """

    def __init__(
        self,
        paths: CgroupPaths,
        roots: Roots = _THIS_MACHINE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = paths
        self._roots = roots
        self._files: dict[str, KeptFile] = {}
        self._seldom = Seldom(self._read_seldom, SELDOM_SECONDS)
        self._monotonic = monotonic

    def read(self) -> dict[str, Value]:
        """Return the fields of `job_cgroup`; empty if the group is gone."""
        if self._is_v1():
            fields, source = self._read_v1(), "cgroup1"
        elif self.paths.v2:
            fields, source = self._read_v2(self.paths.v2), "cgroup2"
        else:
            return {}
        known: dict[str, Value] = {name: it for name, it in fields.items() if it is not None}
        if not known:
            return {}
        # told always: a job may be shorter than these are old
        return {**known, **self._seldom.values(self._monotonic()), "source": source}

    def freshen(self) -> None:
        """Have the next reading read what seldom changes, too."""
        self._seldom.forget()

    def close(self) -> None:
        """Close the kept files."""
        for file in self._files.values():
            file.close()

    def _is_v1(self) -> bool:
        return not self.paths.v1.keys().isdisjoint(("cpuacct", "memory", "blkio"))

    def _text(self, folder: Path, file: str) -> str:
        kept = self._files.get(file)
        if kept is None:
            kept = self._files[file] = KeptFile(folder / file, ONE_RECORD)
        try:
            return kept.read().decode(errors="replace")
        except OSError:
            return ""

    def _read_v2(self, folder: Path) -> dict[str, float | None]:
        def text(file: str) -> str:
            return self._text(folder, file)

        cpu = text("cpu.stat")
        return {
            "cpu_seconds": _divided(parse_named(cpu, "usage_usec"), 1e6),
            "cpu_user_seconds": _divided(parse_named(cpu, "user_usec"), 1e6),
            "cpu_system_seconds": _divided(parse_named(cpu, "system_usec"), 1e6),
            "memory_bytes": number(text("memory.current")),
            "memory_peak_bytes": number(text("memory.peak")),  # since Linux 5.19
            "shared_memory_bytes": parse_named(text("memory.stat"), "shmem"),
            "oom_kills_total": parse_named(text("memory.events"), "oom_kill"),
            "cpu_pressure_seconds": parse_stall(text("cpu.pressure")),
            "memory_pressure_seconds": parse_stall(text("memory.pressure")),
            "io_pressure_seconds": parse_stall(text("io.pressure")),
            **_moved(parse_io_stat(text("io.stat")), self._roots),
        }

    def _read_v1(self) -> dict[str, float | None]:
        folders = self.paths.v1

        def text(controller: str, file: str) -> str:
            return self._text(folders[controller], file) if controller in folders else ""

        cpu = text("cpuacct", "cpuacct.stat")
        return {
            "cpu_seconds": _divided(number(text("cpuacct", "cpuacct.usage")), 1e9),
            "cpu_user_seconds": _divided(parse_named(cpu, "user"), TICKS_PER_SECOND),
            "cpu_system_seconds": _divided(parse_named(cpu, "system"), TICKS_PER_SECOND),
            "memory_bytes": number(text("memory", "memory.usage_in_bytes")),
            "memory_peak_bytes": number(text("memory", "memory.max_usage_in_bytes")),
            "shared_memory_bytes": parse_named(text("memory", "memory.stat"), "total_shmem"),
            **_moved(self._devices_v1(text), self._roots),
        }

    def _devices_v1(self, text: Callable[[str, str], str]) -> Devices:
        """Return bytes moved; v1 charges buffered writes to the root group, not to who wrote."""
        # `_recursive` counts the groups below too, and is there since Linux 4.2
        moved = "blkio.throttle.io_service_bytes"
        return parse_service_bytes(text("blkio", f"{moved}_recursive") or text("blkio", moved))

    def _read_seldom(self) -> dict[str, Value]:
        fields: dict[str, Value] = {"processes_total": float(len(processes_of(self.paths)))}
        if (limit := self._read_limit()) is not None:
            fields["memory_limit_bytes"] = limit
        # the one v1 counter that leaves out the groups below
        files = _texts(self.paths.v1.get("memory"), "memory.oom_control") if self._is_v1() else []
        counts = [parse_named(text, "oom_kill") for text in files]
        known = [count for count in counts if count is not None]
        return {**fields, "oom_kills_total": sum(known)} if known else fields

    def _read_limit(self) -> float | None:
        """Return the limit of memory in bytes; None if there is none, which v2 calls `max`."""
        v1, v2 = self.paths.v1.get("memory"), self.paths.v2
        if self._is_v1():
            limit = number(self._text(v1, "memory.limit_in_bytes")) if v1 else None
            return None if limit is None or limit >= NO_LIMIT else limit
        return number(self._text(v2, "memory.max")) if v2 else None


def processes_of(paths: CgroupPaths) -> set[int]:
    """Return the process ids in the group and in those below it; empty if it is gone.

    `pids.current` would not do for their number: it counts threads.
    """
    top = paths.v1.get("cpuacct") or paths.v1.get("memory") or next(iter(paths.v1.values()), None)
    text = "".join(_texts(top or paths.v2, "cgroup.procs"))
    # 0 stands for a process of another pid namespace
    return {int(word) for word in text.split() if word.isdigit() and len(word) < 10} - {0}


def _texts(folder: Path | None, file: str) -> list[str]:
    """Return the file's text of the group and of all groups below it."""
    groups = [path for path, _, _ in os.walk(folder)] if folder else []
    return [read_text(f"{group}/{file}") or "" for group in groups]


def parse_flat(text: str) -> dict[str, float]:
    """Return the numbers of a flat keyed file: one `name number` a line."""
    rows = (line.split() for line in text.splitlines())
    pairs = ((row[0], number(row[1])) for row in rows if len(row) == 2)
    return {name: value for name, value in pairs if value is not None}


def parse_named(text: str, name: str) -> float | None:
    """Return one number of a flat keyed file: a tenth of the time of parsing all of `memory.stat`.

    None if it is not there, or is no number.
    """
    _, found, after = f"\n{text}".partition(f"\n{name} ")
    return number(after.partition("\n")[0]) if found else None


def parse_io_stat(text: str) -> Devices:
    """Return bytes of v2's `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 ...`."""
    devices = {}
    for device, *words in filter(None, map(str.split, text.splitlines())):
        values = dict(word.partition("=")[::2] for word in words)
        read, written = (number(values.get(name, "")) for name in ("rbytes", "wbytes"))
        if read is not None and written is not None:
            devices[device] = (read, written)
    return devices


def parse_service_bytes(text: str) -> Devices:
    """Return bytes of v1's `blkio.throttle.io_service_bytes`: lines `8:0 Read 4096`."""
    values = {}
    for words in map(str.split, text.splitlines()):
        if len(words) == 3 and (value := number(words[2])) is not None:
            values[words[0], words[1]] = value
    devices = {device for device, _ in values}
    return {
        device: (values[device, "Read"], values[device, "Write"])
        for device in devices
        if (device, "Read") in values and (device, "Write") in values
    }


def parse_stall(text: str) -> float | None:
    """Return seconds in which some task waited: `some avg10=0.00 ... total=MICROSECONDS`."""
    for line in text.splitlines():
        if line.startswith("some "):
            return _divided(number(line.rpartition("total=")[2]), 1e6)
    return None


def _divided(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _moved(devices: Devices, roots: Roots) -> dict[str, float]:
    """Return bytes summed over devices, stacked ones (LVM, dm-crypt, RAID) left out.

    The kernel charges the same bytes to a stacked device and to those below it.
    """
    bottom = [moved for device, moved in devices.items() if not _is_stacked(device, roots)]
    moved = bottom or list(devices.values())
    if not moved:
        return {}
    return {
        "read_bytes": sum(read for read, _ in moved),
        "write_bytes": sum(written for _, written in moved),
    }


def _is_stacked(device: str, roots: Roots) -> bool:
    try:
        return any((roots.sys / "dev/block" / device / "slaves").iterdir())
    except OSError:
        return False
