"""From samples to hosts: gauges as they are, counters as what they grow by per second.

The same fields come from this node's probes and from a store, so that both make the same screen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.top.model import Disk, Flow, Gpu, Host, Span, gpu_order
from probes.catalogue import CATALOGUE, Kind
from probes.sample import Sample, Tags, Value

WANTED: Mapping[str, tuple[str, ...]] = {
    "cpu": ("utilization_ratio", "busiest_core_ratio", "cpus_total", "load_1m_load"),
    "memory": ("used_bytes", "total_bytes"),
    "pressure": ("cpu_some_ratio", "memory_some_ratio", "io_some_ratio"),
    "power": ("power_watts",),
    "infiniband": (
        *("receive_bytes", "transmit_bytes"),
        *("symbol_errors_total", "receive_errors_total", "link_downed_total"),
    ),
    "network": ("receive_bytes", "transmit_bytes"),
    "tempdisk": ("used_bytes", "available_bytes", "total_bytes", "read_bytes", "write_bytes"),
    "filesystem": ("read_bytes", "write_bytes"),
    "gpu": (
        *("utilization_ratio", "memory_used_bytes", "memory_total_bytes"),
        *("power_watts", "power_limit_watts", "temperature_celsius", "sm_clock_hertz"),
        *("throttle_software_thermal_seconds", "throttle_hardware_thermal_seconds"),
        *("throttle_power_brake_seconds", "processes_total"),
        *("ecc_uncorrected_total", "xid_errors_total"),
    ),
    "bound": ("compute_ratio", "memory_ratio", "link_ratio"),
    "job_cgroup": ("cpu_seconds", "memory_bytes", "memory_limit_bytes"),
}
"""What the screen shows, by measurement."""

SUMS = frozenset({"ecc_uncorrected_total", "xid_errors_total"})
"""Counters of which only counts that they are not 0: this node's probes give them as they stand."""

ERRORS = ("symbol_errors_total", "receive_errors_total", "link_downed_total")
WAITS = ("cpu", "memory", "io")
LOOPBACK = "lo"
MICROSECOND = 1e-6

Fields = Mapping[str, Value]


@dataclass(slots=True)
class Readings:
    """Values of one host now, by measurement and tags."""

    found: dict[str, dict[Tags, dict[str, Value]]] = field(default_factory=dict)

    def put(self, measurement: str, tags: Tags, name: str, value: Value) -> None:
        """Take one value."""
        self.found.setdefault(measurement, {}).setdefault(tags, {})[name] = value

    def take(self, other: "Readings") -> None:
        """Take all values of another."""
        for measurement, by_tags in other.found.items():
            for tags, fields in by_tags.items():
                self.found.setdefault(measurement, {}).setdefault(tags, {}).update(fields)

    def each(self, measurement: str) -> Iterator[tuple[dict[str, str], Fields]]:
        """Yield tags and fields of everything that was measured."""
        for tags, fields in self.found.get(measurement, {}).items():
            yield dict(tags), fields

    def only(self, measurement: str) -> Fields:
        """Return the fields of a measurement that a host has once; empty if it has not."""
        return next(iter(self.found.get(measurement, {}).values()), {})


class Growth:
    """Makes readings of successive samples of this node."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, Tags, str], float] = {}
        self._time = 0.0

    def read(self, samples: Iterable[Sample], now: float) -> Readings:
        """Return the readings; a counter seen for the first time, or that went back, has none.

        Args:
            samples: of one tick.
            now: its time on a clock that never goes back, in seconds.

        """
        passed, self._time = max(now - self._time, MICROSECOND), now
        before, self._before = self._before, {}
        readings = Readings()
        for measurement, tags, fields in samples:
            known = CATALOGUE[measurement].fields
            for name in WANTED.get(measurement, ()):
                value = fields.get(name)
                if value is None:
                    continue
                if known[name].kind is not Kind.COUNTER or name in SUMS:
                    readings.put(measurement, tags, name, value)
                    continue
                key = (measurement, tags, name)
                self._before[key] = float(value)
                grown = float(value) - before.get(key, float("inf"))
                if grown >= 0:
                    readings.put(measurement, tags, name, grown / passed)
        return readings


def host_of(name: str, readings: Readings, histories: Mapping[str, Sequence[Span]]) -> Host:
    """Return the host; `histories` are bounds by index of GPU."""
    cpu, memory, pressure = map(readings.only, ("cpu", "memory", "pressure"))
    waits = [(each, _number(pressure, f"{each}_some_ratio")) for each in WAITS]
    return Host(
        name,
        cpus=_number(cpu, "cpus_total"),
        cpu=_number(cpu, "utilization_ratio"),
        busiest_core=_number(cpu, "busiest_core_ratio"),
        load=_number(cpu, "load_1m_load"),
        memory_used=_number(memory, "used_bytes"),
        memory_total=_number(memory, "total_bytes"),
        waits=[(each, share) for each, share in waits if share is not None],
        watts=sorted(_watts(readings)),
        infiniband=_flow(readings.each("infiniband")),
        network=_flow(each for each in readings.each("network") if _is_external(each[0])),
        files=_flow(readings.each("filesystem"), "read_bytes", "write_bytes"),
        fabric_errors=sorted(_ports_with_errors(readings)),
        disks=sorted(_disks(readings), key=lambda disk: disk.path),
        gpus=sorted(_gpus(readings, histories), key=lambda gpu: gpu_order(gpu.index)),
    )


def with_job(host: Host, readings: Readings, cpus: float) -> Host:
    """Return the host with what the job itself uses, where that is known, in place of the node's.

    Args:
        host: as the node is.
        readings: of the host, the job's own among them.
        cpus: that the job has on it.

    """
    own = readings.only("job_cgroup")
    cores, used = _number(own, "cpu_seconds"), _number(own, "memory_bytes")
    limit = _number(own, "memory_limit_bytes") or host.memory_total
    return replace(
        host,
        of_job=cores is not None,
        cpu=cores / cpus if cores is not None and cpus else host.cpu,
        memory_used=host.memory_used if used is None else used,
        memory_total=host.memory_total if used is None else limit,
        gpus=[replace(gpu, held=True) for gpu in host.gpus],
    )


def _number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    return value if isinstance(value, float) else None


def _rate(fields: Fields, name: str) -> float:
    return _number(fields, name) or 0.0


def _is_external(tags: Mapping[str, str]) -> bool:
    return tags["interface"] != LOOPBACK


def _flow(
    found: Iterable[tuple[Mapping[str, str], Fields]],
    into: str = "receive_bytes",
    out: str = "transmit_bytes",
) -> Flow | None:
    """Return the sum of all; None if there is none of them, or nothing is known yet."""
    known = [fields for _, fields in found if into in fields or out in fields]
    if not known:
        return None
    return Flow(sum(_rate(each, into) for each in known), sum(_rate(each, out) for each in known))


def _watts(readings: Readings) -> Iterator[tuple[str, float]]:
    for tags, fields in readings.each("power"):
        watts = _number(fields, "power_watts")
        if watts is not None:
            yield tags["domain"], watts


def _ports_with_errors(readings: Readings) -> Iterator[str]:
    for tags, fields in readings.each("infiniband"):
        if any(_rate(fields, name) > 0 for name in ERRORS):
            yield f"{tags['device']} port {tags['port']}"


def _disks(readings: Readings) -> Iterator[Disk]:
    for tags, fields in readings.each("tempdisk"):
        used, total = _number(fields, "used_bytes"), _number(fields, "total_bytes")
        available = _number(fields, "available_bytes")
        if used is None or not total:
            continue
        whole = used + available if available is not None else total
        moved = _flow([(tags, fields)], "read_bytes", "write_bytes")
        yield Disk(tags["path"], used / whole if whole else 0.0, used, total, moved)


def _gpus(readings: Readings, histories: Mapping[str, Sequence[Span]]) -> Iterator[Gpu]:
    roofs = {tags["gpu"]: fields for tags, fields in readings.each("bound")}
    seen = {tags["gpu"]: (tags.get("model", ""), fields) for tags, fields in readings.each("gpu")}
    for index, (model, fields) in seen.items():
        yield _gpu(index, model, fields, roofs.get(index, {}), histories.get(index, ()))
    for index in histories.keys() - seen.keys():
        yield Gpu(index, answers=False, history=histories[index])


def _gpu(index: str, model: str, fields: Fields, roofs: Fields, history: Sequence[Span]) -> Gpu:
    return Gpu(
        index,
        model,
        utilization=_number(fields, "utilization_ratio"),
        memory_used=_number(fields, "memory_used_bytes"),
        memory_total=_number(fields, "memory_total_bytes"),
        watts=_number(fields, "power_watts"),
        watts_limit=_number(fields, "power_limit_watts"),
        celsius=_number(fields, "temperature_celsius"),
        hertz=_number(fields, "sm_clock_hertz"),
        compute=_number(roofs, "compute_ratio"),
        memory=_number(roofs, "memory_ratio"),
        link=_number(roofs, "link_ratio"),
        slowed_for_heat=_rate(fields, "throttle_software_thermal_seconds")
        + _rate(fields, "throttle_hardware_thermal_seconds"),
        slowed_by_brake=_rate(fields, "throttle_power_brake_seconds"),
        held=_rate(fields, "processes_total") > 0,
        errors=any(_rate(fields, name) > 0 for name in SUMS),
        history=history,
    )
