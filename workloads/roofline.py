"""Which roof a piece of work is under, and why: the roofline model with four roofs.

Williams, Waterman, Patterson, "Roofline" (CACM 2009) compares a kernel's arithmetic intensity
with the machine's ridge, peak FLOP/s over peak bytes/s. That is the same test as comparing the
fractions reached of the two ceilings, for (F/F_peak) / (B/B_peak) = intensity / ridge. Fractions
also work for a link and for storage, and they tell how far from every roof the work is.
Pure: no torch, no I/O.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LATENCY_BELOW = 0.1
"""Under a tenth of every ceiling, neither arithmetic nor data movement explains the time."""

BALANCED_WITHIN = 0.15
"""The leading fraction must exceed the next by this much; closer is balanced."""

CLEAR_FROM = 0.5
"""A leading fraction from here on earns full confidence; below, confidence shrinks with it."""


class Bound(StrEnum):
    """What the time went to."""

    COMPUTE = "compute"
    MEMORY = "memory"
    LINK = "link"  # host to device, or between devices
    IO = "io"  # storage
    LATENCY = "latency"  # overheads: launches, synchronization, a single thread
    BALANCED = "balanced"
    IDLE = "idle"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Roofs of one device; what was not measured is absent or None.

    Attributes:
        flops_per_second: by dtype.
        bytes_per_second: of memory, reading and writing.
        read_bytes_per_second: of memory, reading alone. A CPU core keeps few cache misses in
            flight, so pure reading can stay well below what mixed traffic reaches.
        link_bytes_per_second: host to device, or between devices.
        io_bytes_per_second: of storage.

    """

    flops_per_second: Mapping[str, float] = field(default_factory=dict)
    bytes_per_second: float | None = None
    read_bytes_per_second: float | None = None
    link_bytes_per_second: float | None = None
    io_bytes_per_second: float | None = None

    def memory(self, work: "Work") -> float | None:
        """Return the memory roof over `work`, by what its traffic mostly is."""
        if work.mostly_reads and self.read_bytes_per_second is not None:
            return self.read_bytes_per_second
        return self.bytes_per_second

    def ridge(self, work: "Work") -> float | None:
        """Return the intensity in FLOP/byte at which compute and memory roof of `work` meet."""
        return _quotient(self.flops_per_second.get(work.dtype), self.memory(work))


@dataclass(frozen=True, slots=True)
class Work:
    """What was done in `seconds`.

    Attributes:
        flops: floating-point operations.
        bytes: moved between memory and processor.
        seconds: wall time.
        dtype: number format of the arithmetic.
        mostly_reads: nearly all of `bytes` are read, as weights are.
        link_bytes: moved over the link.
        io_bytes: read from and written to storage.
        units: how many `unit`s it was, for the explanation.
        unit: token, step, prompt.

    """

    flops: float
    bytes: float
    seconds: float
    dtype: str = "fp32"
    mostly_reads: bool = False
    link_bytes: float = 0.0
    io_bytes: float = 0.0
    units: float = 1.0
    unit: str = "call"


@dataclass(frozen=True, slots=True)
class Fractions:
    """Reached share of each ceiling, None where the ceiling or the count is missing."""

    compute: float | None = None
    memory: float | None = None
    link: float | None = None
    io: float | None = None

    def known(self) -> list[tuple[float, Bound]]:
        """Return the known fractions with their roofs, highest first."""
        pairs = (
            (self.compute, Bound.COMPUTE),
            (self.memory, Bound.MEMORY),
            (self.link, Bound.LINK),
            (self.io, Bound.IO),
        )
        found = [(fraction, bound) for fraction, bound in pairs if fraction is not None]
        return sorted(found, key=lambda pair: pair[0], reverse=True)


@dataclass(frozen=True, slots=True)
class Label:
    """A bound with its evidence.

    Attributes:
        bound: the verdict.
        fractions: reached share of each ceiling.
        intensity: FLOP per byte of memory traffic; None when unknown.
        ridge: FLOP per byte at which compute and memory ceiling meet; None when unknown.
        confidence: 0 undecided, 1 clear.
        explanation: one sentence.

    """

    bound: Bound
    fractions: Fractions
    intensity: float | None
    ridge: float | None
    confidence: float
    explanation: str


def label(work: Work, ceilings: Ceilings) -> Label:
    """Label `work` by the ceiling it came closest to.

    Both sides of the ridge must be known (positive, finite counts and ceilings), unless the link or
    storage leads; otherwise the bound is unknown.
    """
    fractions = reached(work, ceilings)
    bound, confidence = classify(fractions)
    intensity = _quotient(work.flops, work.bytes)
    ridge = ceilings.ridge(work)
    explanation = _explain(bound, work, fractions, intensity, ridge)
    return Label(bound, fractions, intensity, ridge, confidence, explanation)


def reached(work: Work, ceilings: Ceilings) -> Fractions:
    """Return the share of each ceiling that `work` reached."""
    return Fractions(
        compute=_share(work.flops, work.seconds, ceilings.flops_per_second.get(work.dtype)),
        memory=_share(work.bytes, work.seconds, ceilings.memory(work)),
        link=_share(work.link_bytes, work.seconds, ceilings.link_bytes_per_second),
        io=_share(work.io_bytes, work.seconds, ceilings.io_bytes_per_second),
    )


def classify(fractions: Fractions) -> tuple[Bound, float]:
    """Return the bound and the confidence in it (0 to 1) from fractions alone.

    Low fractions lower the confidence; they hide the side of the ridge only when all are below
    `LATENCY_BELOW`.
    """
    ranked = fractions.known()
    if not ranked:
        return Bound.UNKNOWN, 0.0
    top, bound = ranked[0]
    if bound in (Bound.COMPUTE, Bound.MEMORY) and None in (fractions.compute, fractions.memory):
        return Bound.UNKNOWN, 0.0
    if top < LATENCY_BELOW:
        return Bound.LATENCY, 1.0 - top / LATENCY_BELOW
    runner_up = ranked[1][0] if len(ranked) > 1 else 0.0
    confidence = (1.0 - runner_up / top) * min(1.0, top / CLEAR_FROM)
    if top < runner_up * (1.0 + BALANCED_WITHIN):
        return Bound.BALANCED, confidence
    return bound, confidence


def _explain(
    bound: Bound, work: Work, fractions: Fractions, intensity: float | None, ridge: float | None
) -> str:
    if bound is Bound.UNKNOWN:
        return "no label: a count, the time or a ceiling is missing"
    ranked = fractions.known()
    share, nearest = ranked[0]
    leaders = [roof for _, roof in ranked[:2]] if bound is Bound.BALANCED else [nearest]
    amounts = " and ".join(_amount(roof, work) for roof in leaders)
    sentence = f"{amounts} per {work.unit}"
    if bound is Bound.LATENCY:
        sentence += f", {share:.1%} of the nearest roof"
    if intensity is None or ridge is None:
        return sentence
    return f"{sentence}; {_ratio(intensity)} FLOP/byte against a ridge of {_ratio(ridge)}"


def _amount(roof: Bound, work: Work) -> str:
    """Say what one unit of `work` asks of a roof."""
    units = work.units if work.units > 0 else 1.0
    if roof is Bound.COMPUTE:
        return f"computes {scaled(work.flops / units, 'FLOP')}"
    if roof is Bound.LINK:
        return f"sends {scaled(work.link_bytes / units, 'B')} over the link"
    if roof is Bound.IO:
        return f"moves {scaled(work.io_bytes / units, 'B')} of storage"
    verb = "reads" if work.mostly_reads else "moves"
    return f"{verb} {scaled(work.bytes / units, 'B')}"


def scaled(value: float, unit: str) -> str:
    """Write `value` with three digits and a decimal prefix: 1.35e10 B is "13.5 GB"."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_short(value / factor)} {prefix}{unit}"
    return f"{_short(value)} {unit}"


def _ratio(value: float) -> str:
    """Write an intensity with three digits, two below one: an estimate is no better there."""
    return _short(value) if value >= 1 else f"{value:.2g}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _share(amount: float, seconds: float, ceiling: float | None) -> float | None:
    return _quotient(_quotient(amount, seconds), ceiling)


def _quotient(above: float | None, below: float | None) -> float | None:
    """Divide two positive finite numbers; None for all else, and for a result that is not one."""
    if above is None or below is None or not (_positive(above) and _positive(below)):
        return None
    quotient = above / below
    return quotient if _positive(quotient) else None


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0.0
