"""Learn from reference phases how a GPU looks to NVML when its bound is known.

A reference phase counts its own FLOPs and bytes, so its bound needs no counters of the GPU. What
NVML showed meanwhile is the signature that other work on the node is compared with.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from agent.labels.gpuroofs import Signature
from probes.sample import Sample
from workloads.roofline import Bound

SHORTEST_SECONDS = 5.0
FEWEST_LOOKS = 3
SURE_FROM = 0.3
"""Confidence of the phase's own label."""

BUSY_FROM = 0.9
"""A signature is taken and compared only while kernels ran nearly all the time."""


class Look(NamedTuple):
    """How one GPU looked to NVML in the interval that ended at a moment."""

    time_ms: int
    signature: Signature
    utilization: float


class Window(NamedTuple):
    """A stretch of time in which one reference phase, of known bound, ran alone."""

    bound: Bound
    begin_ms: int
    end_ms: int

    def overlaps(self, other: "Window") -> bool:
        """Tell whether the two have time in common."""
        return self.begin_ms < other.end_ms and other.begin_ms < self.end_ms


def windows(phases: Sequence[tuple[int, Sample]]) -> list[Window]:
    """Return the windows of one run's phases, each with its start in milliseconds since 1970.

    Phases that take turns (forward, backward and optimizer of a training step) overlap when their
    calls are laid end to end, and none of them is a window. Short and undecided ones are neither.
    """
    spans = [_span(begin_ms, sample) for begin_ms, sample in phases]
    return [
        span
        for span, (_, sample) in zip(spans, phases, strict=True)
        if _is_reference(span, sample)
        and not any(other is not span and span.overlaps(other) for other in spans)
    ]


def signature_in(window: Window, looks: Iterable[Look]) -> Signature | None:
    """Return the mean look in a window; None unless the GPU was busy and steady throughout.

    The first look describes time before the window too, and is left out.
    """
    within = [look for look in looks if window.begin_ms <= look.time_ms <= window.end_ms][1:]
    if len(within) < FEWEST_LOOKS or any(look.utilization < BUSY_FROM for look in within):
        return None
    mean = Signature(
        fmean(look.signature.power_ratio for look in within),
        fmean(look.signature.memory_utilization_ratio for look in within),
        fmean(look.signature.sm_clock_ratio for look in within),
    )
    return mean if all(look.signature.near(mean) for look in within) else None


def only_one(found: Sequence[tuple[str, Signature | None]]) -> tuple[str, Signature] | None:
    """Return model and signature of the GPU that ran the phase; None if it is not clear which."""
    busy = [(model, signature) for model, signature in found if signature is not None]
    return busy[0] if len(busy) == 1 else None


def _span(begin_ms: int, sample: Sample) -> Window:
    seconds = sample.fields.get("duration_seconds", 0.0)
    length = float(seconds) if isinstance(seconds, float) else 0.0
    known = {bound.value: bound for bound in Bound}
    bound = known.get(str(sample.fields.get("bound", "")), Bound.UNKNOWN)
    return Window(bound, begin_ms, begin_ms + round(1000 * length))


def _is_reference(span: Window, sample: Sample) -> bool:
    confidence = sample.fields.get("confidence_ratio", 0.0)
    return (
        dict(sample.tags).get("device", "").startswith("cuda")
        and span.bound in (Bound.COMPUTE, Bound.MEMORY)
        and span.end_ms - span.begin_ms >= 1000 * SHORTEST_SECONDS
        and isinstance(confidence, float)
        and confidence >= SURE_FROM
    )
