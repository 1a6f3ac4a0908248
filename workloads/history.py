"""What a device reached before and what its peers reach: is it below its kind? No torch.

One JSON object per line and measured ceiling. A reading is held against the median of its peers
(other devices of the same model), against its own best, and, where there is neither, against the
datasheet's peak times the share of it that such devices have been shown to reach.
"""

import fcntl
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from workloads.hardware import find_peaks
from workloads.kinds import unit
from workloads.roofline import scaled

if TYPE_CHECKING:
    from workloads.ceilings import Ceiling

TOLERANCE = 0.10
MOST_SPREAD = 0.5
"""However much the repeats differ, half of what is expected is too little."""

FEWEST_PEERS = 2
"""Of one peer nobody knows whether it or this device is the odd one."""

KEPT_BYTES = 1 << 20
KEPT_LATEST = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """One ceiling of one device at one time.

    Attributes:
        host: name of the node.
        device: "cpu", "cuda:0" or a GPU's UUID: what tells the devices of a node apart.
        model: name of the device, the same for all peers.
        driver: version of the driver, or of the kernel for a CPU.
        kind: a name in `workloads.kinds`.
        dtype: number format.
        per_second: FLOP/s or bytes/s.
        at: seconds since 1970.
        spread: (longest - shortest) / median of the repeats that gave it.

    """

    host: str
    device: str
    model: str
    driver: str
    kind: str
    dtype: str
    per_second: float
    at: float
    spread: float = 0.0

    @property
    def is_number(self) -> bool:
        """Whether it can be compared with anything."""
        return math.isfinite(self.per_second) and self.per_second > 0


class Place(NamedTuple):
    """Where and when ceilings were measured; see `Reading`."""

    host: str
    device: str
    model: str
    driver: str
    at: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A reading beside what it should be.

    Attributes:
        reading: of this device, now.
        expected: FLOP/s or bytes/s.
        reference: what `expected` is, in words.

    """

    reading: Reading
    expected: float
    reference: str

    @property
    def ratio(self) -> float:
        """Reached share of what is expected."""
        return self.reading.per_second / self.expected

    def is_short(self, tolerance: float) -> bool:
        """Tell whether more is missing than `tolerance` and than the reading's own spread.

        A disk or a shared machine whose repeats differ by 30 % says nothing about 10 %.
        """
        return self.ratio < 1.0 - max(tolerance, min(self.reading.spread, MOST_SPREAD))

    def __str__(self) -> str:
        reading, of = self.reading, unit(self.reading.kind)
        return (
            f"{reading.device} {reading.kind} {reading.dtype}: {scaled(reading.per_second, of)} is"
            f" {self.ratio:.0%} of {scaled(self.expected, of)}, {self.reference}"
        )


def readings(ceilings: "Iterable[Ceiling]", place: Place) -> list[Reading]:
    """Return measured ceilings with where and when they were measured."""
    where = (place.host, place.device, place.model, place.driver)
    return [Reading(*where, c.kind, c.dtype, c.per_second, place.at, c.spread) for c in ceilings]


def append(path: Path, new: Iterable[Reading]) -> None:
    """Add readings to a history file, which is made if it is missing; OSError if it cannot be.

    Beyond `KEPT_BYTES` the file keeps the best and the `KEPT_LATEST` latest of each ceiling.
    Several processes may append at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # whatever the umask, nobody else may write to it
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"".join(map(_line, new)))
        if file.tell() > KEPT_BYTES:
            file.seek(0)
            kept = b"".join(map(_line, thinned(_parse(file))))
            file.truncate(0)
            file.write(kept)


def load(path: Path) -> list[Reading]:
    """Return all readings of a history file, oldest first; none if there is no such file.

    Lines that are no reading (cut short by a crash) are left out.
    """
    try:
        return list(_parse(path.read_bytes().splitlines()))
    except FileNotFoundError:
        return []


def best(past: Iterable[Reading]) -> Reading | None:
    """Return the highest of readings of one ceiling."""
    return max(past, key=lambda reading: reading.per_second, default=None)


def latest(past: Iterable[Reading]) -> Reading | None:
    """Return the last of readings of one ceiling; of several at one time the last given."""
    ordered = sorted(past, key=lambda reading: reading.at)
    return ordered[-1] if ordered else None


def thinned(past: Iterable[Reading]) -> list[Reading]:
    """Keep the best and the `KEPT_LATEST` latest of each ceiling and driver, oldest first."""
    ordered = sorted(past, key=lambda reading: reading.at)
    kept: set[Reading] = set()
    for group in _grouped(ordered, lambda each: (*_ceiling_of(each), each.driver)).values():
        kept.update(group[-KEPT_LATEST:])
        kept.add(max(group, key=lambda reading: reading.per_second))
    return [reading for reading in ordered if reading in kept]


def check(
    current: Iterable[Reading], past: Sequence[Reading], tolerance: float = TOLERANCE
) -> list[Comparison]:
    """Return the comparisons in which a device is more than `tolerance` below what is expected."""
    return [found for found in compare(current, past) if found.is_short(tolerance)]


def compare(current: Iterable[Reading], past: Sequence[Reading]) -> list[Comparison]:
    """Hold each reading against its peers and its own best, else against the datasheet.

    `past` holds readings of this device and of others in any order; those of `current` may be
    among them. A reading that nothing is known to compare with is left out.
    """
    compared: list[Comparison] = []
    for reading in current:
        known = [other for other in past if other.is_number]
        found = [by(reading, known) for by in (_peers, _own_best)]
        if not any(found):
            found = [_datasheet(reading)]
        compared += [comparison for comparison in found if comparison]
    return compared


def _peers(reading: Reading, known: Iterable[Reading]) -> Comparison | None:
    """Compare with the median of what each other device of the model reached last."""
    alike = [other for other in known if _sort_of(other) == _sort_of(reading)]
    others = _grouped(alike, lambda other: (other.host, other.device))
    others.pop((reading.host, reading.device), None)
    if len(others) < FEWEST_PEERS:
        return None
    last = [found.per_second for group in others.values() if (found := latest(group))]
    words = f"the median of {len(last)} peers ({reading.model})"
    return Comparison(reading, statistics.median(last), words)


def _own_best(reading: Reading, known: Iterable[Reading]) -> Comparison | None:
    mine = (other for other in known if _ceiling_of(other) == _ceiling_of(reading))
    top = best(other for other in mine if other.at < reading.at)
    if top is None:
        return None
    day = datetime.fromtimestamp(top.at, UTC).strftime("%Y-%m-%d")
    driver = "" if top.driver == reading.driver else f", with driver {top.driver or 'unknown'}"
    return Comparison(reading, top.per_second, f"its own best ({day}{driver})")


def _datasheet(reading: Reading) -> Comparison | None:
    peaks = find_peaks(reading.model)
    if peaks is None:
        return None
    peak = peaks.peak(reading.kind, reading.dtype)
    share = peaks.attainable_ratio(reading.kind, reading.dtype)
    if peak is None or share is None:
        return None
    return Comparison(reading, peak * share, f"{share:.0%} of the datasheet's peak ({peaks.name})")


def _sort_of(reading: Reading) -> tuple[str, ...]:
    return (reading.model, reading.kind, reading.dtype)


def _ceiling_of(reading: Reading) -> tuple[str, ...]:
    return (reading.host, reading.device, *_sort_of(reading))


def _grouped(
    past: Iterable[Reading], key: Callable[[Reading], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Reading]]:
    groups: dict[tuple[str, ...], list[Reading]] = {}
    for reading in past:
        groups.setdefault(key(reading), []).append(reading)
    return groups


def _line(reading: Reading) -> bytes:
    return msgspec.json.encode(reading) + b"\n"


def _parse(lines: Iterable[bytes]) -> Iterator[Reading]:
    for line in lines:
        try:
            reading = msgspec.json.decode(line, type=Reading)
        except msgspec.MsgspecError:
            continue
        if reading.is_number:
            yield reading
