"""Which roof each GPU is under, tick by tick, whatever job runs on it.

With counters of pipes, memory and links (GPM, or a DCGM exporter) the bound follows from the
fractions of the roofs, as in `workloads.roofline`: their quotient is arithmetic intensity over the
ridge, and no number format need be known. SM activity is left out: it tells that warps are
resident, not that they compute, and is as high in a memory-bound decode as in a matrix product.
Without counters a weaker grade remains: the GPU looks to NVML as it did in a reference phase, or
the bound is unknown.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.labels.gpuroofs import GpuRoofs, Signature, with_defaults
from agent.labels.reference import BUSY_FROM, Look, only_one, signature_in, windows
from probes.gpm import Reading
from probes.gpu_device import SeenGpu
from probes.sample import Sample, Tags, Value
from workloads.roofline import Bound, Fractions

HYSTERESIS = 0.15
"""A leading fraction must exceed the next by this much to be named, and merely lead to stay."""

LATENCY_BELOW = 0.3
"""Under this share of both roofs neither explains the time. A mean over a second holds the gaps
between kernels too, so this is higher than for a phase that is timed by itself."""

LINK_FROM = 0.4
IDLE_BELOW = 0.05
MOST_LOOKS = 720
"""Looks of a GPU that are kept for a reference phase to be learned from: two hours at 10 s."""

DWELL_SAMPLES = 2
DWELL_SECONDS = 2.0
ENERGY_SECONDS = 0.5
"""Shortest interval over which the energy counter, which moves in steps, gives a mean power."""

PIPES = (
    "tensor_active_ratio",
    "fp64_active_ratio",
    "fp32_active_ratio",
    "fp16_active_ratio",
    "integer_active_ratio",
)
NEEDED_PIPES = PIPES[:3]
LINKS = (
    "pcie_receive_bytes_per_second",
    "pcie_transmit_bytes_per_second",
    "nvlink_receive_bytes_per_second",
    "nvlink_transmit_bytes_per_second",
)
CLEAR = frozenset({Bound.COMPUTE, Bound.MEMORY, Bound.LINK, Bound.IDLE})

Fields = Mapping[str, Value]


def fractions_of(fields: Fields, roofs: GpuRoofs) -> Fractions:
    """Return the shares of the roofs that counters of a `gpu` sample show.

    Compute is the busiest pipe. Where an exporter leaves pipes out, the busiest known one is only
    a lower bound: it counts if it leads all the same, and else compute is unknown.
    """
    pipes = [share for name in PIPES if (share := roofs.share(fields, name)) is not None]
    links = [share for name in LINKS if (share := roofs.share(fields, name)) is not None]
    memory = roofs.share(fields, "dram_active_ratio")
    compute = max(pipes, default=None)
    if compute is not None and not all(name in fields for name in NEEDED_PIPES):
        leads = memory is not None and compute >= memory * (1.0 + HYSTERESIS)
        compute = compute if leads else None
    return Fractions(compute, memory, max(links, default=None))


def judge(fractions: Fractions, held: Bound | None = None) -> Bound:
    """Return the bound that fractions speak for; the one that is held needs only to lead."""
    if fractions.compute is None or fractions.memory is None:
        return Bound.UNKNOWN
    ranked = [
        (fraction, bound)
        for fraction, bound in fractions.known()
        if bound is not Bound.LINK or fraction >= LINK_FROM
    ]
    (top, bound), (next_highest, _) = ranked[:2]
    faint = LATENCY_BELOW * (1.0 + HYSTERESIS if held is Bound.LATENCY else 1.0)
    if top < faint:
        return Bound.LATENCY
    lead = 1.0 if bound is held else 1.0 + HYSTERESIS
    return bound if top >= next_highest * lead else Bound.BALANCED


@dataclass(slots=True)
class _Run:
    """How long something has lasted."""

    samples: int = 0
    seconds: float = 0.0

    def go_on(self, seconds: float) -> None:
        self.samples += 1
        self.seconds += seconds

    @property
    def settled(self) -> bool:
        return self.samples >= DWELL_SAMPLES or self.seconds >= DWELL_SECONDS


class BoundTracker:
    """The label of one GPU from one tick to the next: one for each interval, and no flicker.

    A clear label (compute, memory, link, idle) is taken at once and kept for two samples or two
    seconds. Balanced and latency replace a clear one only when they last as long: a second that
    holds both the end of a prefill and the start of a decode looks balanced, and is not. Unknown
    is taken and left at once.
    """

    def __init__(self) -> None:
        self._held: Bound | None = None
        self._stood = _Run()
        self._doubted = _Run()

    def update(self, fractions: Fractions, seconds: float, busy: float | None = None) -> Bound:
        """Return the label of the interval that just ended.

        Args:
            fractions: shares of the roofs over the interval.
            seconds: its length.
            busy: share of it in which any kernel ran; None if unknown.

        """
        idle = busy is not None and busy < IDLE_BELOW
        wanted = Bound.IDLE if idle else judge(fractions, self._held)
        if wanted is self._held:
            self._doubted = _Run()
        else:
            self._doubted.go_on(seconds)
            if self._held is None or self._may_become(wanted):
                self._held, self._stood, self._doubted = wanted, _Run(), _Run()
        self._stood.go_on(seconds)
        return self._held

    def _may_become(self, wanted: Bound) -> bool:
        if self._held not in CLEAR or wanted is Bound.UNKNOWN:
            return True
        return self._stood.settled if wanted in CLEAR else self._doubted.settled


def resembled(now: Signature | None, utilization: float | None, roofs: GpuRoofs) -> Bound:
    """Return the bound of the one reference phase that the GPU looks like, by NVML alone."""
    if utilization is not None and utilization < IDLE_BELOW:
        return Bound.IDLE
    if now is None or utilization is None or utilization < BUSY_FROM:
        return Bound.UNKNOWN
    references = ((Bound.COMPUTE, roofs.compute), (Bound.MEMORY, roofs.memory))
    found = [bound for bound, reference in references if reference and reference.near(now)]
    return found[0] if len(found) == 1 else Bound.UNKNOWN


def signature_of(fields: Fields, watts: float | None = None) -> Signature | None:
    """Return how a `gpu` sample looks to NVML; None if a part is missing.

    `watts` is the mean power, where it is known better than by the sensor's reading of now.
    """
    power = _share(watts or fields.get("power_watts"), fields.get("power_limit_watts"))
    clock = _share(fields.get("sm_clock_hertz"), fields.get("sm_clock_limit_hertz"))
    memory = fields.get("memory_utilization_ratio")
    if power is None or clock is None or not isinstance(memory, float):
        return None
    return Signature(power, memory, clock)


class _Part(NamedTuple):
    """A part of an interval: shares of the roofs, share in which any kernel ran, and length."""

    fractions: Fractions
    busy: float | None
    seconds: float


@dataclass(slots=True)
class _Gpu:
    """One GPU from tick to tick; `index` is the tag of its samples."""

    index: str
    model: str
    roofs: GpuRoofs
    last_ms: int
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=MOST_LOOKS))
    tracker: BoundTracker = field(default_factory=BoundTracker)
    resembled_before: Bound = Bound.UNKNOWN
    joules: float | None = None

    def bound(
        self, fields: Fields, seconds: float, moments: Sequence[Reading] = ()
    ) -> dict[str, Value]:
        """Return the fields of the `bound` sample.

        Args:
            fields: of the `gpu` sample; means over the interval.
            seconds: length of the interval.
            moments: the parts of which it is made, where they are known.

        """
        fractions = fractions_of(fields, self.roofs)
        if fractions.compute is None and fractions.memory is None:
            return {**_held({self._weak_bound(fields, seconds): seconds}), "evidence": "nvml"}
        shares = {
            "compute_ratio": fractions.compute,
            "memory_ratio": fractions.memory,
            "link_ratio": fractions.link,
        }
        parts = [_Part(fractions, _busy(fields), seconds)]
        if len(moments) > 1:  # otherwise the one moment is the interval
            parts = [
                _Part(fractions_of(each.fields, self.roofs), _busy(each.fields), each.seconds)
                for each in moments
            ]
        return {
            **{name: min(1.0, share) for name, share in shares.items() if share is not None},
            **_held(self._time_under(parts, seconds)),
            "evidence": str(fields.get("source", "")),
        }

    def _time_under(self, parts: Sequence[_Part], seconds: float) -> dict[Bound, float]:
        """Return the seconds of the interval under each roof, in order of appearance.

        The mean over a prefill and a decode would look balanced; its parts do not.
        """
        whole = sum(part.seconds for part in parts) or 1.0
        held: dict[Bound, float] = {}
        for fractions, busy, length in parts:
            bound = self.tracker.update(fractions, length, busy)
            held[bound] = held.get(bound, 0.0) + seconds * length / whole
        return held

    def _weak_bound(self, fields: Fields, seconds: float) -> Bound:
        """Believe a resemblance only when two samples in a row show it."""
        # MIG instances have no utilization; one on which no program has a context is idle
        unused = 0.0 if fields.get("processes_total") == 0.0 else None
        utilization = fields.get("utilization_ratio", unused)
        known = utilization if isinstance(utilization, float) else None
        now = signature_of(fields, self._mean_watts(fields, seconds))
        if now is not None and known is not None:
            self.looks.append(Look(self.last_ms, now, known))
        seen = resembled(now, known, self.roofs)
        confirmed = seen in (self.resembled_before, Bound.IDLE)
        self.resembled_before = seen
        return seen if confirmed else Bound.UNKNOWN

    def _mean_watts(self, fields: Fields, seconds: float) -> float | None:
        before, joules = self.joules, fields.get("energy_joules")
        self.joules = joules if isinstance(joules, float) else None
        if before is None or self.joules is None or seconds < ENERGY_SECONDS:
            return None
        return (self.joules - before) / seconds if self.joules > before else None


class Labeller:
    """Labels every GPU at every tick.

    Args:
        measured: what reference workloads showed, by model of GPU.
        keep: told whenever more is known of that.

    """

    def __init__(
        self,
        measured: Mapping[str, GpuRoofs] | None = None,
        keep: Callable[[Mapping[str, GpuRoofs]], None] = lambda _: None,
    ) -> None:
        self._measured = dict(measured or {})
        self._keep = keep
        self._gpus: dict[Tags, _Gpu] = {}

    def label(
        self, samples: Iterable[Sample], time_ms: int, seen: Iterable[SeenGpu] = ()
    ) -> list[Sample]:
        """Return a `bound` sample for each `gpu` sample of a tick; `seen` are the same GPUs."""
        moments = {gpu.index: gpu.moments for gpu in seen}
        gpus = [sample for sample in samples if sample.measurement == "gpu"]
        return [self._label(each, time_ms, moments) for each in gpus]

    def learn(self, phases: Sequence[tuple[int, Sample]]) -> None:
        """Take what GPUs without counters showed during the reference phases of one run.

        Args:
            phases: `phase` samples with their start, in milliseconds since 1970.

        """
        for window in windows(phases):
            looks = [(gpu.model, signature_in(window, gpu.looks)) for gpu in self._gpus.values()]
            shown = only_one(looks)
            if shown:
                self._adopt(*shown, window.bound)

    def _adopt(self, model: str, signature: Signature, bound: Bound) -> None:
        known = self._measured.get(model, GpuRoofs())
        named = {"compute": known.compute, "memory": known.memory, bound.value: signature}
        self._measured[model] = GpuRoofs(known.tops, **named)
        for gpu in self._gpus.values():
            gpu.roofs = with_defaults(gpu.model, self._measured.get(gpu.model))
        self._keep(self._measured)

    def _label(
        self, sample: Sample, time_ms: int, moments: Mapping[str, Sequence[Reading]]
    ) -> Sample:
        gpu = self._gpus.get(sample.tags) or self._meet(sample.tags, time_ms)
        seconds = max(0.0, (time_ms - gpu.last_ms) / 1000)
        gpu.last_ms = time_ms
        parts = moments.get(gpu.index, ()) if sample.fields.get("source") == "gpm" else ()
        return Sample("bound", (("gpu", gpu.index),), gpu.bound(sample.fields, seconds, parts))

    def _meet(self, seen: Tags, time_ms: int) -> _Gpu:
        names = dict(seen)
        model = names.get("model", "")
        roofs = with_defaults(model, self._measured.get(model))
        gpu = self._gpus[seen] = _Gpu(names["gpu"], model, roofs, time_ms)
        return gpu


def _held(seconds: Mapping[Bound, float]) -> dict[str, Value]:
    """Return the fields that tell how long each bound held, and which did longest, or last."""
    longest = max(reversed(list(seconds)), key=lambda bound: seconds[bound])
    return {f"{bound}_seconds": length for bound, length in seconds.items()} | {
        "bound": longest.value
    }


def _busy(fields: Fields) -> float | None:
    busy = fields.get("graphics_active_ratio", fields.get("utilization_ratio"))
    return busy if isinstance(busy, float) else None


def _share(part: object, whole: object) -> float | None:
    if not (isinstance(part, float) and isinstance(whole, float) and whole > 0):
        return None
    return part / whole
