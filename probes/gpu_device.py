"""One GPU or MIG instance: all the fields that NVML gives of it, and the totals kept for it.

Source: NVIDIA, "NVML API Reference Guide"; nvml.h for the field ids and the throttle bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probes import gpm
from probes.nvml import ALL_LINKS, Device, FieldId
from probes.sample import Value, tags
from probes.seldom import SELDOM_SECONDS, Seldom

FACTS_SECONDS = 60.0
"""How often what seldom changes is read again."""

MOST_MOMENTS = 240
"""Of one interval between samples; if it is longer, the last one is as long as the rest."""


class Reading(NamedTuple):
    """A call of NVML that gives one number, and the field that it becomes."""

    field: str
    call: str
    arguments: tuple[int, ...] = ()
    times: float = 1.0
    over: float = 1.0


READINGS = (
    Reading("power_watts", "nvmlDeviceGetPowerUsage", over=1e3),
    Reading("energy_joules", "nvmlDeviceGetTotalEnergyConsumption", over=1e3),
    Reading("temperature_celsius", "nvmlDeviceGetTemperature", (0,)),
    Reading("sm_clock_hertz", "nvmlDeviceGetClockInfo", (1,), times=1e6),
    Reading("memory_clock_hertz", "nvmlDeviceGetClockInfo", (2,), times=1e6),
)

MEMORY_ERRORS = (
    Reading("ecc_corrected_total", "nvmlDeviceGetTotalEccErrors", (0, 0)),
    Reading("ecc_uncorrected_total", "nvmlDeviceGetTotalEccErrors", (1, 0)),
)

FACTS = (
    Reading("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", over=1e3),
    Reading("sm_clock_limit_hertz", "nvmlDeviceGetMaxClockInfo", (1,), times=1e6),
)
"""What seldom changes."""


class Throttle(NamedTuple):
    """A reason for a slower clock: its counter (ns) and its bit among the reasons of now."""

    field: str
    counter: FieldId
    bit: int


THROTTLES = (
    Throttle("throttle_power_cap_seconds", (74, 0), 0x04),
    Throttle("throttle_sync_boost_seconds", (76, 0), 0x10),
    Throttle("throttle_software_thermal_seconds", (269, 0), 0x20),
    Throttle("throttle_hardware_thermal_seconds", (270, 0), 0x40),
    Throttle("throttle_power_brake_seconds", (271, 0), 0x80),
)
HARDWARE_SLOWDOWN = 0x08
THROTTLED = HARDWARE_SLOWDOWN | sum(throttle.bit for throttle in THROTTLES)

COUNTERS: dict[FieldId, tuple[str, float]] = {
    (82, 0): ("memory_temperature_celsius", 1.0),
    (138, ALL_LINKS): ("nvlink_transmit_bytes", 1024.0),
    (139, ALL_LINKS): ("nvlink_receive_bytes", 1024.0),
}
"""Our field and what one unit of NVML's is worth."""

REPLAYS: FieldId = (94, 0)
STANDING = (*(throttle.counter for throttle in THROTTLES), REPLAYS)
"""Counters that are `Seldom`: whether anything slows the GPU now is in every sample. A driver's
answers are made one by one, and these are two of three."""

PCIE_COUNTERS: dict[FieldId, str] = {
    (197, 0): "pcie_transmit_bytes",
    (198, 0): "pcie_receive_bytes",
}
PCIE_RATES = {
    "pcie_transmit_bytes": "pcie_transmit_bytes_per_second",
    "pcie_receive_bytes": "pcie_receive_bytes_per_second",
}
FOUR_GIBI = 2.0**32

NO_GPM = (
    "no GPM counters before Hopper: pipe and DRAM activity need a DCGM exporter"
    " (probes.dcgm_url in the configuration)"
)
NARROW_PCIE = (
    "PCIe byte counters may be 32 bits wide, which a busy link wraps ten times a second: "
    "left out until they pass 4 GiB"
)


class Place(NamedTuple):
    """Where Slurm and CUDA find a GPU or MIG instance, beside its index and UUID.

    Attributes:
        minor: N of the GPU's /dev/nvidiaN; None if NVML does not tell.
        instance: ids of GPU instance and compute instance, of a MIG instance.

    """

    minor: int | None = None
    instance: tuple[int, int] | None = None


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class SeenGpu:
    """What tells whose a GPU or MIG instance is, and what it did since the sample before.

    Attributes:
        index: tag `gpu` of its samples.
        uuid: its UUID; empty if it does not answer.
        place: where Slurm and CUDA find it.
        pids: processes with a compute context at the last sample; None if NVML does not tell.
        moments: GPM's readings since the sample before; together they are that whole time.

    """

    index: str
    uuid: str = ""
    place: Place = NOWHERE
    pids: tuple[int, ...] | None = None
    moments: tuple[gpm.Reading, ...] = ()


class Gpu:
    """One GPU or MIG instance: who it is, and its running totals.

    Attributes:
        index: NVML's index, or `parent.instance`.
        device: its handle.
        meter: its GPM, or None where it has none.
        place: where Slurm and CUDA find it.
        uuid: of the GPU or the instance.
        model: NVIDIA's name of the product.
        tags: of its samples.
        pids: processes with a compute context at the last reading; None if NVML does not tell.
        narrow_pcie: whether PCIe byte counters were left out at the last reading.

    """

    def __init__(
        self,
        index: str,
        device: Device,
        meter: gpm.Meter | None,
        place: Place,
        monotonic: Callable[[], float],
    ) -> None:
        self.index = index
        self.device = device
        self.meter = meter
        self.place = place
        self.uuid = device.ask(str, "nvmlDeviceGetUUID") or ""
        self.model = device.ask(str, "nvmlDeviceGetName") or ""
        self.tags = tags(gpu=index, uuid=self.uuid, model=self.model)
        self.pids: tuple[int, ...] | None = None
        self.narrow_pcie = False
        self._moments: list[gpm.Reading] = []
        self._told: tuple[gpm.Reading, ...] = ()
        self._monotonic = monotonic
        self._facts = Seldom(lambda: dict(_numbers(device, FACTS)), FACTS_SECONDS)
        self._errors = Seldom(lambda: _memory_errors(device), SELDOM_SECONDS)
        self._standing = Seldom(lambda: device.field_values(STANDING), SELDOM_SECONDS)
        self._read_time = monotonic()
        self._totals: dict[str, float] = {}

    def read(self) -> dict[str, Value]:
        """Return all fields but Xid events; raises `GpuLost`."""
        now = self._monotonic()
        fields: dict[str, Value] = {**self._facts.values(now), **(self._errors.news(now) or {})}
        fields.update(_numbers(self.device, READINGS))
        fields.update(_utilization(self.device))
        fields.update(_memory(self.device))
        fields.update(self._processes())
        fields.update(self._counters(now))
        fields.update(self._activity())
        fields["source"] = "nvml" if self.meter is None else "gpm"
        self._read_time = now
        return fields

    def freshen(self) -> None:
        """Have the next reading ask for what seldom changes, too."""
        self._errors.forget()
        self._standing.forget()

    def glance(self) -> None:
        """Take GPM's means since its last reading, between two samples; raises `GpuLost`."""
        if len(self._moments) < MOST_MOMENTS:
            self._take_moment()

    def seen(self) -> SeenGpu:
        """Return what tells whose it is, as of the last `read`."""
        return SeenGpu(self.index, self.uuid, self.place, self.pids, self._told)

    def forget(self) -> None:
        """Leave the last reading behind: the GPU does not answer."""
        self.pids, self._told = None, ()

    def close(self) -> None:
        """Give back GPM's samples."""
        if self.meter is not None:
            self.meter.close()

    def limits(self) -> Iterator[str]:
        """Yield what cannot be read of this GPU."""
        if self.meter is None:
            yield NO_GPM
        if self.narrow_pcie:
            yield NARROW_PCIE

    def _processes(self) -> dict[str, float]:
        self.pids = self.device.ask(
            lambda processes: tuple(int(process.pid) for process in processes),
            "nvmlDeviceGetComputeRunningProcesses",
        )
        return {} if self.pids is None else {"processes_total": float(len(self.pids))}

    def _counters(self, now: float) -> dict[str, float]:
        wanted = COUNTERS if self.meter is not None else (*COUNTERS, *PCIE_COUNTERS)
        values = self.device.field_values(wanted)
        fields = {name: values[i] * unit for i, (name, unit) in COUNTERS.items() if i in values}
        fields.update(self._pcie(values))
        fields.update(self._slowing(now))
        return fields

    def _pcie(self, values: dict[FieldId, float]) -> dict[str, float]:
        # nvml.h: "value can be wrapped", and not at which width. Above 4 GiB the width is known.
        found = {name: values[i] for i, name in PCIE_COUNTERS.items() if i in values}
        wide = {name: value for name, value in found.items() if value >= FOUR_GIBI}
        self.narrow_pcie = len(wide) < len(found)
        return wide

    def _slowing(self, now: float) -> dict[str, float]:
        """Return what slowed the GPU, and whether anything does now."""
        values = self._standing.news(now) or {}
        fields = {t.field: values[t.counter] / 1e9 for t in THROTTLES if t.counter in values}
        if REPLAYS in values:
            fields["pcie_replays_total"] = values[REPLAYS]
        reasons = _throttle_reasons(self.device)
        if reasons is None:
            return fields
        fields["throttled_state"] = float(bool(reasons & THROTTLED))
        for throttle in THROTTLES:
            if self.device.lacks(throttle.counter):
                held = now - self._read_time if reasons & throttle.bit else 0.0
                fields[throttle.field] = self._add(throttle.field, held)
        return fields

    def _activity(self) -> dict[str, float]:
        """Return the means since the last sample: those of all moments, each with its length."""
        self._take_moment()
        self._told, self._moments = tuple(self._moments), []
        # a total goes on being told while GPM has nothing new
        totals = {name: self._totals[name] for name in PCIE_RATES if name in self._totals}
        return {**gpm.mean(self._told), **totals}

    def _take_moment(self) -> None:
        reading = self.meter.read() if self.meter is not None else None
        if reading is None:
            return
        self._moments.append(reading)
        for total, rate in PCIE_RATES.items():
            if rate in reading.fields:
                self._add(total, reading.fields[rate] * reading.seconds)

    def _add(self, name: str, amount: float) -> float:
        self._totals[name] = self._totals.get(name, 0.0) + amount
        return self._totals[name]


def _numbers(device: Device, readings: Sequence[Reading]) -> Iterator[tuple[str, float]]:
    for field, call, arguments, times, over in readings:
        value = device.number(call, *arguments)
        if value is not None:
            yield field, value * times / over


def _utilization(device: Device) -> dict[str, float]:
    rates = device.ask(lambda rates: (rates.gpu, rates.memory), "nvmlDeviceGetUtilizationRates")
    if rates is None:
        return {}
    return {"utilization_ratio": rates[0] / 100.0, "memory_utilization_ratio": rates[1] / 100.0}


def _memory(device: Device) -> dict[str, float]:
    """Return used and total bytes; the newer call keeps the driver's own share out of "used"."""
    for arguments in ((device.nvml.nvmlMemory_v2,), ()):
        memory = device.ask(
            lambda memory: (memory.used, memory.total), "nvmlDeviceGetMemoryInfo", *arguments
        )
        if memory is not None:
            used, total = memory
            return {"memory_used_bytes": float(used), "memory_total_bytes": float(total)}
    return {}


def _memory_errors(device: Device) -> dict[str, float]:
    fields = dict(_numbers(device, MEMORY_ERRORS))
    rows = device.ask(tuple, "nvmlDeviceGetRemappedRows")
    if rows is not None:
        corrected, uncorrected, pending, _ = rows
        fields["remapped_rows_total"] = float(corrected + uncorrected)
        fields["remap_pending_state"] = float(bool(pending))
    return fields


def _throttle_reasons(device: Device) -> int | None:
    reasons = device.ask(int, "nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # its name before driver 535
        reasons = device.ask(int, "nvmlDeviceGetCurrentClocksThrottleReasons")
    return reasons
