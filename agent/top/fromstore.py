"""The hosts of a job, looked at through the store: rows of the job, and windows of its hosts.

Series of devices carry no job id; they are found by the job's hosts, GPUs and time. The store
itself thins them out, so that a look costs the same however often the agents sample.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from agent.config import Config
from agent.inspect.model import JobHeader, JobReport, Node
from agent.stores.store import Row, Store, Windows
from agent.top.history import HISTORY_MS, History
from agent.top.model import Host, Span
from agent.top.readings import Readings, host_of, with_job
from probes.sample import tags
from workloads.roofline import Bound

NOW: Mapping[str, tuple[str, ...]] = {
    "cpu": ("utilization_ratio",),
    "memory": ("used_bytes",),
    "power": ("power_watts",),
    "infiniband": ("receive_bytes", "transmit_bytes"),
    "network": ("receive_bytes", "transmit_bytes"),
    "gpu": (
        *("utilization_ratio", "memory_used_bytes", "power_watts", "temperature_celsius"),
        "sm_clock_hertz",
    ),
    "bound": ("compute_ratio", "memory_ratio"),
    "job_cgroup": ("cpu_seconds", "memory_bytes"),
}
"""What is asked for at every look, by measurement."""

SELDOM: Mapping[str, tuple[str, ...]] = {
    "cpu": ("cpus_total",),
    "memory": ("total_bytes",),
    "pressure": ("memory_some_ratio", "io_some_ratio"),
    "infiniband": ("symbol_errors_total", "receive_errors_total", "link_downed_total"),
    "tempdisk": ("used_bytes", "available_bytes", "total_bytes"),
    "gpu": (
        *("memory_total_bytes", "power_limit_watts"),
        *("throttle_software_thermal_seconds", "throttle_hardware_thermal_seconds"),
        *("throttle_power_brake_seconds", "ecc_uncorrected_total", "xid_errors_total"),
    ),
    "job_cgroup": ("memory_limit_bytes",),
}
"""What changes slowly, or must be seen within a minute and no sooner."""

SELDOM_MS = 30_000
OWN_TAGS = {
    "power": ("domain",),
    "infiniband": ("device", "port"),
    "network": ("interface",),
    "tempdisk": ("path",),
    "gpu": ("gpu",),
    "bound": ("gpu",),
}
"""Tags that tell apart what a host has several of."""

OF_GPUS = ("gpu", "bound")
LABELS = tuple(bound for bound in Bound if bound is not Bound.IO)
HOSTS_AT_ONCE = 16
"""A query that names more hosts grows beyond what a proxy lets through."""

STRIP_MS = 5_000
AGAIN_MS = 60_000
"""Bounds so far back are asked for again: an agent ships late, and a window fills up."""

SHORTEST_LOOK_MS = 60_000


class JobHosts:
    """All hosts of one job, from one look to the next."""

    def __init__(self, store: Store, config: Config, jobid: str) -> None:
        self._store = store
        self._cluster = config.cluster
        self._jobid = jobid
        interval_ms = round(config.agent.interval_seconds * 1000)
        late_ms = round(config.agent.flush_seconds * 1000)
        self._window_ms = max(STRIP_MS, interval_ms)
        self._look_ms = max(SHORTEST_LOOK_MS, 3 * interval_ms + late_ms)
        self._seldom: dict[str, Readings] = {}
        self._seldom_at = 0
        self._bounds: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        self._bounds_until = 0

    def read(self, report: JobReport, at_ms: int) -> list[Host]:
        """Return every host of the job as it is at a moment.

        Raises:
            StoreUnreachable, StoreRefused: the store could not be asked.

        """
        nodes = report.nodes
        readings, heard = self._readings(nodes, NOW, at_ms)
        if at_ms - self._seldom_at >= SELDOM_MS or self._seldom.keys() != readings.keys():
            self._seldom, _ = self._readings(nodes, SELDOM, at_ms)
            self._seldom_at = at_ms
        self._read_bounds(nodes, at_ms)
        hosts = [self._host(node, readings[node.host], heard, report.job, at_ms) for node in nodes]
        silent = set(report.job.hosts) - {node.name for node in nodes}
        return [*hosts, *(Host(name) for name in sorted(silent))]

    def _host(
        self,
        node: Node,
        readings: Readings,
        heard: Mapping[str, int],
        job: JobHeader,
        at_ms: int,
    ) -> Host:
        if node.host not in heard and job.end_ms is None:
            silent_ms = max(self._look_ms, at_ms - node.updated_ms)
            return Host(node.name, silent_seconds=silent_ms / 1000)
        readings.take(self._seldom[node.host])
        histories = {gpu.gpu: self._history(node.host, gpu.gpu, at_ms) for gpu in node.gpus}
        return with_job(host_of(node.name, readings, histories), readings, node.cpus)

    def _readings(
        self, nodes: Sequence[Node], wanted: Mapping[str, tuple[str, ...]], at_ms: int
    ) -> tuple[dict[str, Readings], dict[str, int]]:
        """Return the newest value of each series by host, and when each host was heard of."""
        found = {node.host: Readings() for node in nodes}
        models = {(node.host, gpu.gpu): gpu.model for node in nodes for gpu in node.gpus}
        heard: dict[str, int] = {}
        for measurement, names in wanted.items():
            for name in names if models or measurement not in OF_GPUS else ():
                for row in self._rows(nodes, measurement, name, at_ms):
                    host = str(row["host"])
                    own = {tag: str(row.get(tag, "")) for tag in OWN_TAGS.get(measurement, ())}
                    if measurement in OF_GPUS:
                        if (host, own["gpu"]) not in models:
                            continue  # another job's
                        own["model"] = models[host, own["gpu"]]
                    found[host].put(measurement, tags(**own), name, row["mean"])
                    heard[host] = max(heard.get(host, 0), int(float(row["time_ms"])))
        return found, heard

    def _rows(
        self, nodes: Sequence[Node], measurement: str, name: str, at_ms: int
    ) -> Iterator[Row]:
        more = {"jobid": [self._jobid]} if measurement == "job_cgroup" else {}
        by = ("host", *OWN_TAGS.get(measurement, ()))
        times = (at_ms - self._look_ms, at_ms, self._window_ms)
        for where in self._places(nodes, more):
            yield from self._store.windows(Windows(measurement, name, where, by, *times))

    def _read_bounds(self, nodes: Sequence[Node], at_ms: int) -> None:
        """Ask for the bounds since the last look, or of the last minutes."""
        since = max(at_ms - HISTORY_MS, self._bounds_until - AGAIN_MS)
        counts: defaultdict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
        times = (since - since % STRIP_MS, at_ms, STRIP_MS)
        for bound in LABELS if any(node.gpus for node in nodes) else ():
            for where in self._places(nodes, {}):
                asked = Windows("bound", "bound", where, ("host", "gpu"), *times, bound.value)
                for row in self._store.windows(asked):
                    key = (str(row["host"]), str(row["gpu"]), int(float(row["time_ms"])))
                    counts[key][bound.value] = float(row["count"])
        for (host, gpu, end_ms), found in counts.items():
            self._bounds[host, gpu][end_ms] = max(found, key=found.__getitem__)
        self._bounds_until = at_ms

    def _history(self, host: str, gpu: str, at_ms: int) -> Sequence[Span]:
        known = self._bounds[host, gpu]
        for old in [end_ms for end_ms in known if end_ms <= at_ms - HISTORY_MS]:
            del known[old]
        history = History()
        for end_ms, bound in sorted(known.items()):
            history.add(end_ms - STRIP_MS, min(end_ms, at_ms), bound)
        return history.until(at_ms)

    def _places(
        self, nodes: Sequence[Node], more: Mapping[str, Sequence[str]]
    ) -> Iterator[dict[str, Sequence[str]]]:
        for begin in range(0, len(nodes), HOSTS_AT_ONCE):
            hosts = [node.host for node in nodes[begin : begin + HOSTS_AT_ONCE]]
            yield {"cluster": [self._cluster], "host": hosts, **more}
