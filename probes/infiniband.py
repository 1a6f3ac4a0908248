"""InfiniBand, Omni-Path and RoCE ports: data, packets, errors and congestion."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from probes.catalogue import INFINIBAND_COUNTERS, INFINIBAND_HARDWARE_COUNTERS
from probes.parsing import ONE_RECORD, KeptFile, number, read_text
from probes.probe import Context, Probe, ProbeUnavailable
from probes.sample import Sample, Value, tags
from probes.seldom import SELDOM_SECONDS, Seldom

BYTES_PER_WORD = 4.0
_WORD_COUNTERS = {"port_rcv_data": "receive_bytes", "port_xmit_data": "transmit_bytes"}
_IN_WORDS = frozenset(_WORD_COUNTERS.values())
_FIELDS = {
    "hw_counters": {file: name for file, (name, _) in INFINIBAND_HARDWARE_COUNTERS.items()},
    "counters": {
        **{file: name for file, (name, _) in INFINIBAND_COUNTERS.items()},
        **_WORD_COUNTERS,
    },
}
"""Folder -> kernel's file -> our field. Of two sources the later is kept: `counters`."""

TRAFFIC = frozenset(
    {
        *("receive_bytes", "transmit_bytes", "receive_packets_total", "transmit_packets_total"),
        *("transmit_wait_total", "np_cnp_sent_total", "np_ecn_marked_total"),
        *("rp_cnp_handled_total", "rp_cnp_ignored_total"),
    }
)
"""What moves and what holds it up: read at every sample; all else, mostly errors, is `Seldom`."""

ACTIVE = b"4: ACTIVE"
PORT_STATES = (b"0: NOP", b"1: DOWN", b"2: INIT", b"3: ARMED", ACTIVE, b"5: ACTIVE_DEFER")
"""As the kernel writes them (drivers/infiniband/core/sysfs.c, state_show)."""

RESCAN_SECONDS = 60.0


def parse_rate(text: str | bytes) -> float | None:
    """Return bit/s of `100 Gb/sec (4X EDR)`; None if it is not written so."""
    words = text.split()
    if len(words) < 2 or words[1] not in ("Gb/sec", b"Gb/sec"):
        return None
    gigabits = number(words[0])
    return None if gigabits is None else gigabits * 1e9


def parse_state(text: bytes) -> float | None:
    """Return 1 for `4: ACTIVE`, 0 for the kernel's other states, None for anything else."""
    state = text.strip()
    return float(state == ACTIVE) if state in PORT_STATES else None


class _Port:
    """One port: its files, kept open, because a node has some hundred of them."""

    def __init__(self, folder: Path) -> None:
        self._tags = tags(device=folder.parent.parent.name, port=folder.name)
        self._link_layer = (read_text(folder / "link_layer") or "").strip()
        self._state = KeptFile(folder / "state", ONE_RECORD)
        self._rate = KeptFile(folder / "rate", ONE_RECORD)
        files = _counter_files(folder)
        self._traffic = {field: file for field, file in files.items() if field in TRAFFIC}
        self._others = {field: file for field, file in files.items() if field not in TRAFFIC}
        self._rest = Seldom(lambda: dict(self._read_rest()), SELDOM_SECONDS)

    def sample(self, now: float) -> Sample | None:
        """Return what the port says now; None if it says nothing, as a port that is gone."""
        traffic = dict(_counted(self._traffic))
        if not traffic:
            self.freshen()
        fields = {**traffic, **(self._rest.news(now) or {})}
        if not fields:
            return None
        if self._link_layer:
            fields["link_layer"] = self._link_layer
        return Sample("infiniband", self._tags, fields)

    def freshen(self) -> None:
        """Have the next sample read everything anew."""
        self._rest.forget()

    def _read_rest(self) -> Iterator[tuple[str, Value]]:
        yield from _counted(self._others)
        if (state := parse_state(_content(self._state))) is not None:
            yield "link_up_state", state
        if (rate := parse_rate(_content(self._rate))) is not None:
            yield "rate_bits_per_second", rate

    def close(self) -> None:
        counters = (*self._traffic.values(), *self._others.values())
        for file in (self._state, self._rate, *counters):
            file.close()


def _counter_files(port: Path) -> Mapping[str, KeptFile]:
    files = {}
    for folder, fields in _FIELDS.items():
        # a folder may be missing: Soft-RoCE has no `counters`, old drivers have no `hw_counters`
        for path in _entries(port / folder):
            if path.name in fields:
                files[fields[path.name]] = KeptFile(path, ONE_RECORD)
    return files


def _counted(files: Mapping[str, KeptFile]) -> Iterator[tuple[str, Value]]:
    for field, file in files.items():
        value = number(_content(file))
        if value is not None:
            yield field, value * BYTES_PER_WORD if field in _IN_WORDS else value


def _content(file: KeptFile) -> bytes:
    try:
        return file.read()
    except OSError:
        return b""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


class InfinibandProbe(Probe):
    """Reads every port under /sys/class/infiniband.

    Source: kernel Documentation/ABI/stable/sysfs-class-infiniband. `port_rcv_data` and
    `port_xmit_data` count words of four bytes, whatever the width of the link.
    """

    name = "infiniband"

    def __init__(self, context: Context) -> None:
        self._folder = context.roots.sys / "class/infiniband"
        self._monotonic = context.monotonic
        self._ports: dict[Path, _Port] = {}
        self._scan()
        if not self._ports:
            raise ProbeUnavailable(
                "no InfiniBand, Omni-Path or RoCE port (none under /sys/class/infiniband)"
            )

    def sample(self) -> Sequence[Sample]:
        """Read all ports; devices that were plugged in are found within a minute."""
        now = self._monotonic()
        if now - self._scanned >= RESCAN_SECONDS:
            self._scan()
        return [sample for port in self._ports.values() if (sample := port.sample(now))]

    def freshen(self) -> None:
        """Have the next sample read the error counters, too."""
        for port in self._ports.values():
            port.freshen()

    def _scan(self) -> None:
        self._scanned = self._monotonic()
        found = {port for device in _entries(self._folder) for port in _entries(device / "ports")}
        for gone in self._ports.keys() - found:
            self._ports.pop(gone).close()
        if added := found - self._ports.keys():
            self._ports |= {port: _Port(port) for port in sorted(added)}
            self.freshen()  # so that all ports tell of their links at the same samples

    def close(self) -> None:
        """Close the counters' files."""
        for port in self._ports.values():
            port.close()
