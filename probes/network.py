"""Network interfaces of the node."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from probes.parsing import KeptFile, counters, lines_of, read_number, read_text, whole_lines
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, tags

FIELDS = (
    # our field, its column in /proc/net/dev after the interface's name
    ("receive_bytes", 0),
    ("receive_packets_total", 1),
    ("receive_errors_total", 2),
    ("receive_drops_total", 3),
    ("transmit_bytes", 8),
    ("transmit_packets_total", 9),
    ("transmit_errors_total", 10),
    ("transmit_drops_total", 11),
)
COLUMNS = 16
LONGEST_LINE = 400
"""A name of at most 15 bytes, and 16 numbers of at most 20 digits."""

HELPERS = (
    *("veth", "docker", "cali", "cni", "flannel", "vxlan", "cilium", "lxc", "kube", "nodelocaldns"),
    *("virbr", "br-", "vnet", "tap", "tun", "wg", "ifb", "dummy", "sit", "ip6tnl", "gre", "erspan"),
)
"""First letters of interfaces that pass on the bytes of others."""

SPEED_SECONDS = 60.0
"""How old a link's speed may be: drivers ask the card's firmware for it, holding a global lock."""


class NetworkProbe(Probe):
    """Reads /proc/net/dev and /sys/class/net.

    No byte is told twice, so that the sum over all interfaces but `lo` is the node's traffic: only
    interfaces with a device of their own are told, which leaves out bonds, bridges, VLANs and
    containers' links, and of a device that is enslaved to another one (a virtual function under
    Azure's synthetic interface) only the master. Where no interface has a device, as in a
    container, all are told but helpers known by name. An interface that is down and never moved a
    byte is left out. Sources: `man 5 proc_pid_net`, kernel documentation
    `ABI/testing/sysfs-class-net`.
    """

    name = "network"

    def __init__(self, context: Context) -> None:
        self._counters = KeptFile(context.roots.proc / "net/dev", lines_of(LONGEST_LINE))
        self._folder = context.roots.sys / "class/net"
        self._monotonic = context.monotonic
        self._names: frozenset[str] = frozenset()
        self._chosen: frozenset[str] = frozenset()
        self._speeds: dict[str, float] = {}
        self._speeds_due = float("-inf")
        if not self._counters.path.exists():
            raise ProbeUnavailable(f"{self._counters.path} is absent")

    def sample(self) -> Sequence[Sample]:
        """Read every interface's counters, and the speed of its link.

        Raises:
            OSError: /proc/net/dev cannot be read.

        """
        interfaces = parse_net_dev(self._counters.read())
        self._choose(frozenset(interfaces))
        return [
            Sample("network", tags(interface=name), self._fields(name, interfaces[name]))
            for name in sorted(self._chosen)
            if self._is_used(name, interfaces[name])
        ]

    def close(self) -> None:
        """Close the kept file."""
        self._counters.close()

    def _choose(self, names: frozenset[str]) -> None:
        now = self._monotonic()
        if names != self._names:
            self._names = names
            self._chosen = frozenset(choose_interfaces(self._folder, names))
        elif now < self._speeds_due:
            return
        self._speeds_due = now + SPEED_SECONDS
        self._speeds = {
            name: megabits * 1e6
            for name in self._chosen
            if (megabits := read_number(self._folder / name / "speed"))
        }

    def _is_used(self, name: str, fields: dict[str, float]) -> bool:
        if fields["receive_bytes"] or fields["transmit_bytes"]:
            return True
        return (read_text(self._folder / name / "operstate") or "").strip() != "down"

    def _fields(self, name: str, fields: dict[str, float]) -> dict[str, float]:
        if name in self._speeds:
            return fields | {"speed_bits_per_second": self._speeds[name]}
        return fields


def parse_net_dev(content: bytes) -> dict[str, dict[str, float]]:
    """Parse /proc/net/dev: fields by interface; malformed lines are left out."""
    interfaces = {}
    for line in whole_lines(content):
        name, colon, rest = line.rpartition(b":")  # an alias, as eth0:1, has a colon in its name
        values = counters(rest.split()) if colon else None
        if values and len(values) == COLUMNS:
            interface = name.strip().decode(errors="replace")
            interfaces[interface] = {field: values[column] for field, column in FIELDS}
    return interfaces


def choose_interfaces(folder: Path, names: Collection[str]) -> set[str]:
    """Return the interfaces that together tell every byte once, and `lo`.

    Args:
        folder: /sys/class/net.
        names: all interfaces.

    """
    loopback = {"lo"} & set(names)
    devices = {name for name in names if _has_device(folder / name)}
    if devices:
        return loopback | {name for name in devices if _master(folder / name) not in devices}
    return loopback | {name for name in names if not name.startswith(HELPERS)}


def _has_device(interface: Path) -> bool:
    try:
        return (interface / "device").exists()
    except (OSError, ValueError):  # a mangled name
        return False


def _master(interface: Path) -> str | None:
    with suppress(OSError):
        return (interface / "master").readlink().name
    return None
