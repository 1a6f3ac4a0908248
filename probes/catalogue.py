"""Every measurement that rooflight writes: tags, fields, units, plausible ranges, meanings.

The one source for the agent's range check, the columns of the local store, Grafana's units and
`probes/METRICS.md` (made by `python -m probes.metrics_page`). A field's name ends in its unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PEBI = 2.0**50
"""Ranges below are generous: they catch broken counters, not unusual machines."""


class Kind(StrEnum):
    """How a field behaves over time."""

    GAUGE = "gauge"
    COUNTER = "counter"  # grows until its source restarts; rates are computed where it is read
    TEXT = "text"


class Database(StrEnum):
    """Which of the two databases a measurement lives in."""

    METRICS = "metrics"
    JOBS = "jobs"  # few rows, kept for years


UNITS: Mapping[str, tuple[str, float]] = {
    # suffix -> (unit, highest plausible value unless the field says otherwise)
    "_flops_per_byte": ("FLOP/B", 1e9),
    "_flops_per_second": ("FLOP/s", 1e18),
    "_bytes_per_second": ("B/s", 1e14),
    "_bits_per_second": ("bit/s", 1e14),
    "_epoch_milliseconds": ("ms since 1970", 1e14),
    "_ratio": ("ratio", 1.0),
    "_bytes": ("B", 2.0**63),
    "_watts": ("W", 1e5),
    "_joules": ("J", 1e16),
    "_celsius": ("degC", 150.0),
    "_hertz": ("Hz", 1e11),
    "_seconds": ("s", 1e12),
    "_total": ("count", 2.0**64),
    "_state": ("0 or 1", 1.0),
    "_load": ("processes", 1e6),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a measurement.

    `low` and `high` bound what is plausible, both included; of a text, `words` if there are any.
    """

    name: str
    kind: Kind
    meaning: str
    low: float
    high: float
    unit: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kind of thing measured; `tags` are its own, beside `cluster` and `host`."""

    name: str
    tags: tuple[str, ...]
    meaning: str
    fields: Mapping[str, Field]
    database: Database


def gauge(name: str, meaning: str, high: float | None = None, low: float = 0.0) -> Field:
    """Describe a value that goes up and down."""
    return _number(name, Kind.GAUGE, meaning, low, high)


def counter(name: str, meaning: str, high: float | None = None) -> Field:
    """Describe a total that only grows until its source restarts."""
    return _number(name, Kind.COUNTER, meaning, 0.0, high)


def text(name: str, meaning: str, words: tuple[str, ...] = ()) -> Field:
    """Describe a word or a sentence; `words` are all that there can be, if they are few."""
    return Field(name, Kind.TEXT, meaning, 0.0, 0.0, "", words)


def _number(name: str, kind: Kind, meaning: str, low: float, high: float | None) -> Field:
    for suffix, (unit, most) in UNITS.items():
        if f"_{name}".endswith(suffix):
            return Field(name, kind, meaning, low, most if high is None else high, unit)
    raise ValueError(f"field {name!r} does not end in a unit: one of {', '.join(UNITS)}")


def _measurement(
    name: str,
    tags: tuple[str, ...],
    meaning: str,
    *fields: Field,
    database: Database = Database.METRICS,
) -> Measurement:
    return Measurement(name, tags, meaning, {field.name: field for field in fields}, database)


CPU = _measurement(
    "cpu",
    (),
    "Processor time of the whole node (/proc/stat, loadavg, cpufreq).",
    gauge("utilization_ratio", "share of all CPUs' time not idle since the last sample"),
    gauge(
        "busiest_core_ratio", "utilization of the busiest CPU: 1.0 with a low mean is one thread"
    ),
    gauge("iowait_ratio", "share of all CPUs' time idle while a disk was waited for"),
    counter("user_seconds", "time in programs, guests included"),
    counter("nice_seconds", "time in programs of lowered priority"),
    counter("system_seconds", "time in the kernel"),
    counter("idle_seconds", "time with nothing to do"),
    counter("iowait_seconds", "time idle while a disk was waited for"),
    counter("irq_seconds", "time serving hardware interrupts"),
    counter("softirq_seconds", "time serving deferred interrupts (network, timers)"),
    counter("steal_seconds", "time that a hypervisor gave to others"),
    gauge("load_1m_load", "processes running or waiting for a disk, mean of one minute"),
    gauge("load_5m_load", "the same over five minutes"),
    gauge("load_15m_load", "the same over fifteen minutes"),
    gauge("frequency_hertz", "mean clock of all CPUs now", 2e10),
    gauge("cpus_total", "CPUs online", 65536),
    gauge("running_total", "processes running or ready to run", 1e7),
    gauge("blocked_total", "processes blocked on input or output", 1e7),
    counter("context_switches_total", "switches between processes"),
    counter("forks_total", "processes and threads started"),
)

MEMORY = _measurement(
    "memory",
    (),
    "Main memory of the node (/proc/meminfo, /proc/vmstat).",
    gauge("total_bytes", "memory that the kernel manages", PEBI),
    gauge("available_bytes", "memory that programs can have without swapping", PEBI),
    gauge("used_bytes", "total less available", PEBI),
    gauge("free_bytes", "memory used for nothing", PEBI),
    gauge("buffers_bytes", "cache of block devices", PEBI),
    gauge("cached_bytes", "cache of files, tmpfs included", PEBI),
    gauge("shared_bytes", "tmpfs and shared memory, /dev/shm included", PEBI),
    gauge("anonymous_bytes", "memory of programs with no file behind it", PEBI),
    gauge("slab_bytes", "the kernel's own objects", PEBI),
    gauge("dirty_bytes", "written, and not yet on disk", PEBI),
    gauge("writeback_bytes", "on its way to disk", PEBI),
    gauge("locked_bytes", "pinned in memory (RDMA, CUDA host buffers)", PEBI),
    gauge("hugepages_bytes", "reserved for huge pages", PEBI),
    gauge("swap_total_bytes", "swap space", PEBI),
    gauge("swap_used_bytes", "swap space in use", PEBI),
    counter("swap_in_bytes", "read back from swap"),
    counter("swap_out_bytes", "written to swap"),
    counter("major_faults_total", "page faults that read a disk"),
    counter("oom_kills_total", "processes killed for want of memory"),
)

PRESSURE = _measurement(
    "pressure",
    (),
    "Pressure stall information: time in which work waited for a resource (/proc/pressure).",
    *(
        field
        for resource in ("cpu", "memory", "io", "irq")
        for amount, who in (("some", "at least one task"), ("full", "every task"))
        for field in (
            counter(f"{resource}_{amount}_seconds", f"time in which {who} waited for {resource}"),
            gauge(f"{resource}_{amount}_ratio", f"share of the last 10 s so spent ({resource})"),
        )
        if (resource, amount) != ("irq", "some")
    ),
)

MEMORY_TRAFFIC = _measurement(
    "memory_traffic",
    ("cache",),
    "Traffic between one L3 cache and memory, where the CPU counts it (resctrl).",
    counter("moved_bytes", "bytes read from and written to memory"),
    counter("local_bytes", "of them, from and to the memory of the same NUMA node"),
    gauge("cache_bytes", "cache in use", PEBI),
)

GPM_RATIOS = {
    "graphics_active_ratio": "time with any graphics or compute engine busy",
    "sm_active_ratio": "cycles in which an SM held at least one warp: residency, not compute",
    "sm_occupancy_ratio": "resident warps of the most possible",
    "tensor_active_ratio": "cycles with any tensor pipe busy",
    "hmma_active_ratio": "cycles with the fp16/bf16 tensor pipe busy",
    "imma_active_ratio": "cycles with the integer tensor pipe busy",
    "dfma_active_ratio": "cycles with the fp64 tensor pipe busy",
    "dram_active_ratio": "cycles with the memory interface moving data",
    "fp64_active_ratio": "cycles with the fp64 pipe busy",
    "fp32_active_ratio": "cycles with the fp32 pipe busy",
    "fp16_active_ratio": "cycles with the fp16 pipe (not tensor) busy",
    "integer_active_ratio": "cycles with the integer pipe busy",
}

GPU = _measurement(
    "gpu",
    ("gpu", "uuid", "model"),
    "One GPU, or one MIG instance (NVML; with GPM on Hopper and later). Memory errors, PCIe "
    "replays and seconds of throttling are in a sample every 9 s, and when a job begins or ends.",
    gauge("utilization_ratio", "time in which any kernel ran; says nothing of how much of the GPU"),
    gauge("memory_utilization_ratio", "time in which memory was read or written; not bandwidth"),
    gauge("memory_used_bytes", "device memory in use", PEBI),
    gauge("memory_total_bytes", "device memory", PEBI),
    gauge("power_watts", "power now (mean of a second on most chips)", 5000),
    gauge("power_limit_watts", "enforced power limit", 5000),
    counter("energy_joules", "energy since the driver was loaded"),
    gauge("temperature_celsius", "temperature of the chip"),
    gauge("memory_temperature_celsius", "temperature of the memory"),
    gauge("sm_clock_hertz", "clock of the multiprocessors now", 1e10),
    gauge("sm_clock_limit_hertz", "highest clock of the multiprocessors", 1e10),
    gauge("memory_clock_hertz", "clock of the memory now", 1e11),
    counter("throttle_power_cap_seconds", "time slowed to keep the power limit"),
    counter("throttle_sync_boost_seconds", "time slowed to keep in step with other GPUs"),
    counter("throttle_software_thermal_seconds", "time slowed by the driver for heat"),
    counter("throttle_hardware_thermal_seconds", "time slowed by the chip for heat"),
    counter("throttle_power_brake_seconds", "time slowed by the chassis (power brake)"),
    gauge("throttled_state", "1 while anything but idleness or a chosen clock slows the GPU"),
    gauge("processes_total", "processes with a compute context", 1e6),
    counter("ecc_corrected_total", "memory errors corrected since the driver was loaded"),
    counter("ecc_uncorrected_total", "memory errors not corrected since the driver was loaded"),
    gauge("remapped_rows_total", "memory rows replaced by spare ones", 1e6),
    gauge("remap_pending_state", "1 if a replaced row waits for a reset of the GPU"),
    counter("xid_errors_total", "critical Xid events seen by this agent"),
    counter("pcie_receive_bytes", "bytes from the host"),
    counter("pcie_transmit_bytes", "bytes to the host"),
    counter("pcie_replays_total", "PCIe transfers repeated for errors"),
    counter("nvlink_receive_bytes", "bytes from other GPUs"),
    counter("nvlink_transmit_bytes", "bytes to other GPUs"),
    gauge("pcie_receive_bytes_per_second", "the same as a rate (GPM)"),
    gauge("pcie_transmit_bytes_per_second", "the same as a rate (GPM)"),
    gauge("nvlink_receive_bytes_per_second", "the same as a rate (GPM)"),
    gauge("nvlink_transmit_bytes_per_second", "the same as a rate (GPM)"),
    *(gauge(name, f"{meaning} (GPM)") for name, meaning in GPM_RATIOS.items()),
    text("source", "where the activity comes from: gpm, dcgm, or nvml (no pipe activity)"),
)

POWER = _measurement(
    "power",
    ("domain",),
    "Energy and power of the node's parts (RAPL, hwmon).",
    counter("energy_joules", "energy since the agent first saw the domain, wraps undone"),
    gauge("power_watts", "power: the sensor's own, or energy over the last interval"),
)

INFINIBAND_COUNTERS = {
    # kernel's file under ports/N/counters -> (our field, what it tells)
    "port_rcv_packets": ("receive_packets_total", "packets received"),
    "port_xmit_packets": ("transmit_packets_total", "packets sent"),
    "unicast_rcv_packets": ("unicast_receive_packets_total", "unicast packets received"),
    "unicast_xmit_packets": ("unicast_transmit_packets_total", "unicast packets sent"),
    "multicast_rcv_packets": ("multicast_receive_packets_total", "multicast packets received"),
    "multicast_xmit_packets": ("multicast_transmit_packets_total", "multicast packets sent"),
    "port_xmit_wait": ("transmit_wait_total", "ticks with data to send and no credit: congestion"),
    "symbol_error": ("symbol_errors_total", "bit errors on the wire: cable or connector"),
    "link_error_recovery": ("link_error_recovery_total", "links retrained after errors"),
    "link_downed": ("link_downed_total", "links that went down"),
    "port_rcv_errors": ("receive_errors_total", "packets with errors received"),
    "port_rcv_remote_physical_errors": (
        "receive_remote_physical_errors_total",
        "packets marked bad by a switch",
    ),
    "port_rcv_switch_relay_errors": ("receive_switch_relay_errors_total", "packets not relayed"),
    "port_rcv_constraint_errors": ("receive_constraint_errors_total", "packets refused on receipt"),
    "port_xmit_constraint_errors": ("transmit_constraint_errors_total", "packets refused to send"),
    "port_xmit_discards": ("transmit_discards_total", "packets dropped: port down or congested"),
    "local_link_integrity_errors": ("local_link_integrity_errors_total", "local errors over limit"),
    "excessive_buffer_overrun_errors": ("buffer_overrun_errors_total", "buffers overrun"),
    "VL15_dropped": ("vl15_dropped_total", "management packets dropped"),
}

INFINIBAND_HARDWARE_COUNTERS = {
    # kernel's file under ports/N/hw_counters -> (our field, what it tells)
    "np_cnp_sent": ("np_cnp_sent_total", "congestion notifications sent"),
    "np_ecn_marked_roce_packets": ("np_ecn_marked_total", "packets marked by ECN received"),
    "rp_cnp_handled": ("rp_cnp_handled_total", "congestion notifications obeyed"),
    "rp_cnp_ignored": ("rp_cnp_ignored_total", "congestion notifications ignored"),
    "out_of_sequence": ("out_of_sequence_total", "packets out of order"),
    "out_of_buffer": ("out_of_buffer_total", "packets dropped for want of a buffer"),
    "packet_seq_err": ("packet_sequence_errors_total", "sequence errors reported back"),
    "local_ack_timeout_err": ("ack_timeouts_total", "acknowledgements that did not come"),
    "rnr_nak_retry_err": ("rnr_retries_total", "receiver-not-ready retries"),
    "duplicate_request": ("duplicate_requests_total", "requests received twice"),
    "implied_nak_seq_err": ("implied_nak_errors_total", "acknowledgements skipped"),
    "roce_adp_retrans": ("roce_retransmits_total", "adaptive retransmissions"),
    "rx_write_requests": ("receive_write_requests_total", "RDMA writes received"),
    "rx_read_requests": ("receive_read_requests_total", "RDMA reads received"),
    # Soft-RoCE (rdma_rxe) has these and no `counters` folder
    "sent_pkts": ("transmit_packets_total", "packets sent"),
    "rcvd_pkts": ("receive_packets_total", "packets received"),
    "duplicate_req": ("duplicate_requests_total", "requests received twice"),
    "out_of_seq_req": ("out_of_sequence_total", "packets out of order"),
    "rcvd_rnr_err": ("rnr_retries_total", "receiver-not-ready retries"),
    "retry_exceeded_err": ("retries_exceeded_total", "sends given up after all retries"),
    "send_err": ("send_errors_total", "packets that could not be sent"),
    "link_downed": ("link_downed_total", "links that went down"),
    "rdma_sends": ("rdma_sends_total", "RDMA sends"),
    "rdma_recvs": ("rdma_receives_total", "RDMA receives"),
}

_INFINIBAND_FIELDS = dict((*INFINIBAND_COUNTERS.values(), *INFINIBAND_HARDWARE_COUNTERS.values()))

INFINIBAND = _measurement(
    "infiniband",
    ("device", "port"),
    "One port of an InfiniBand, Omni-Path or RoCE device (/sys/class/infiniband). Traffic and "
    "congestion are in every sample; errors and the link in one every 9 s, and when a job begins "
    "or ends.",
    counter("receive_bytes", "data received (the kernel's 4-byte words times four)"),
    counter("transmit_bytes", "data sent (the kernel's 4-byte words times four)"),
    gauge("rate_bits_per_second", "signalling rate of the link now"),
    gauge("link_up_state", "1 while the port is ACTIVE"),
    *(counter(name, meaning) for name, meaning in sorted(_INFINIBAND_FIELDS.items())),
    text("link_layer", "InfiniBand or Ethernet (RoCE)"),
)

NETWORK = _measurement(
    "network",
    ("interface",),
    "One network interface, loopback included (/proc/net/dev, /sys/class/net).",
    counter("receive_bytes", "bytes received"),
    counter("transmit_bytes", "bytes sent"),
    counter("receive_packets_total", "packets received"),
    counter("transmit_packets_total", "packets sent"),
    counter("receive_errors_total", "packets received with errors"),
    counter("transmit_errors_total", "packets that could not be sent"),
    counter("receive_drops_total", "packets received and dropped"),
    counter("transmit_drops_total", "packets dropped before sending"),
    gauge("speed_bits_per_second", "speed of the link now"),
)

BLOCKDISK = _measurement(
    "blockdisk",
    ("device",),
    "One whole block device, no partitions (/proc/diskstats).",
    counter("read_bytes", "bytes read"),
    counter("write_bytes", "bytes written"),
    counter("discard_bytes", "bytes given back (TRIM)"),
    counter("reads_total", "reads finished"),
    counter("writes_total", "writes finished"),
    counter("read_seconds", "time spent on reads, summed over all of them"),
    counter("write_seconds", "time spent on writes, summed over all of them"),
    counter("busy_seconds", "time with at least one request under way"),
    gauge("in_flight_total", "requests under way now", 1e6),
)

TEMPDISK = _measurement(
    "tempdisk",
    ("path", "type"),
    "Node-local temporary storage: $TMPDIR, /tmp and configured paths (statvfs, diskstats).",
    gauge("total_bytes", "size", PEBI * 1024),
    gauge("used_bytes", "in use", PEBI * 1024),
    gauge("available_bytes", "free for ordinary users", PEBI * 1024),
    gauge("inodes_total", "files that fit"),
    gauge("inodes_used_total", "files there are"),
    counter("read_bytes", "bytes read from its block device"),
    counter("write_bytes", "bytes written to its block device"),
)

FILESYSTEM = _measurement(
    "filesystem",
    ("mount", "type"),
    "This node's client of a shared file system (NFS, Lustre, WEKA, GPFS, BeeGFS).",
    counter("read_bytes", "bytes read from the servers"),
    counter("write_bytes", "bytes written to the servers"),
    counter("reads_total", "read operations"),
    counter("writes_total", "write operations"),
    counter("opens_total", "files opened"),
    counter("closes_total", "files closed"),
    counter("metadata_operations_total", "stat, lookup, create, unlink, rename and their kind"),
    counter("retransmits_total", "requests sent again"),
    gauge("total_bytes", "size", PEBI * 1024),
    gauge("used_bytes", "in use", PEBI * 1024),
    gauge("available_bytes", "free for ordinary users", PEBI * 1024),
)

AGENT = _measurement(
    "agent",
    (),
    "The agent itself: what it costs and whether it keeps up.",
    gauge("tick_seconds", "time that the last tick took"),
    gauge("lateness_seconds", "how late the last tick began"),
    counter("ticks_total", "ticks finished"),
    counter("ticks_skipped_total", "ticks that a late agent had to leave out"),
    counter("ticks_replaced_total", "ticks at a time that may have had one: clock set back"),
    counter("cpu_seconds", "processor time used, user and system"),
    gauge("rss_bytes", "resident memory", PEBI),
    gauge("spool_bytes", "waiting for the store", PEBI),
    gauge("spool_segments_total", "segments waiting for the store", 1e9),
    counter("shipped_points_total", "points that the store took"),
    counter("dropped_points_total", "points lost, for any of the reasons below"),
    counter("dropped_spool_full_total", "points lost: store away, the spool was full"),
    counter("dropped_memory_full_total", "points lost: store away, disk full or read-only"),
    counter("dropped_not_saved_total", "points lost: agent ended with its disk full or read-only"),
    counter("dropped_refused_total", "points lost: never taken by the store, in quarantine"),
    counter("dropped_unreadable_total", "points lost: their file was deleted or unreadable"),
    counter("implausible_total", "values outside the catalogue's range, not written"),
    counter("store_errors_total", "attempts to ship that failed"),
    text("version", "version of rooflight"),
)

AGENT_PROBE = _measurement(
    "agent_probe",
    ("probe",),
    "One probe of the agent.",
    gauge("duration_seconds", "time that the last sample took"),
    counter("errors_total", "samples that failed"),
    counter("stalled_total", "samples not begun because the one before still hung"),
)

JOB_CGROUP = _measurement(
    "job_cgroup",
    ("jobid",),
    "What one job uses on this host, exact for the job (its cgroup, or its process tree).",
    counter("cpu_seconds", "processor time, user and system"),
    counter("cpu_user_seconds", "processor time in programs"),
    counter("cpu_system_seconds", "processor time in the kernel"),
    gauge("memory_bytes", "memory charged to the job now", PEBI),
    gauge("memory_peak_bytes", "most memory charged to the job so far", PEBI),
    gauge("memory_limit_bytes", "memory limit of the job", PEBI),
    counter("oom_kills_total", "processes of the job killed for want of memory"),
    counter("read_bytes", "bytes read from block devices"),
    counter("write_bytes", "bytes written to block devices"),
    gauge("processes_total", "processes of the job", 1e7),
    gauge("tempdisk_used_bytes", "temporary disk space held by the job's own folders", PEBI),
    text("tempdisk_source", "mount, quota or walk; `at least` where not all could be seen"),
    gauge("shared_memory_bytes", "shared memory and files in tmpfs, such as /dev/shm", PEBI),
    counter("cpu_pressure_seconds", "time in which a task of the job waited for a CPU"),
    counter("memory_pressure_seconds", "time in which a task of the job waited for memory"),
    counter("io_pressure_seconds", "time in which a task of the job waited for a disk"),
    text("source", "cgroup2, cgroup1, or processes (the process tree)"),
)

BOUNDS = ("compute", "memory", "link", "io", "latency", "balanced", "idle", "unknown")
CPU_BOUNDS = ("memory", "idle", "unknown")
BOUND_SECONDS = tuple(f"{bound}_bound_seconds" for bound in BOUNDS)

BOUND = _measurement(
    "bound",
    ("gpu",),
    "Which roof a GPU is under, tick by tick.",
    gauge("compute_ratio", "fraction of the compute ceiling"),
    gauge("memory_ratio", "fraction of the memory ceiling"),
    gauge("link_ratio", "fraction of the link ceiling"),
    *(gauge(f"{bound}_seconds", f"time {bound} of the interval that ends") for bound in BOUNDS),
    gauge("held_state", "1 while a job holds the GPU"),
    gauge("held_idle_state", "1 while a job holds the GPU and it is idle"),
    text("bound", "the longest in the interval: " + ", ".join(BOUNDS), BOUNDS),
    text("evidence", "what the label rests on: gpm, dcgm, nvml"),
)

CPU_BOUND = _measurement(
    "cpu_bound",
    (),
    "Which roof the node's CPUs are under, tick by tick; compute cannot be told.",
    gauge("memory_ratio", "memory traffic over the memory ceiling measured on this node"),
    *(gauge(f"{bound}_seconds", f"time {bound} of the interval that ends") for bound in CPU_BOUNDS),
    text("bound", ", ".join(CPU_BOUNDS), CPU_BOUNDS),
    text("evidence", "what the label rests on: resctrl; absent where traffic cannot be read"),
)

PHASE = _measurement(
    "phase",
    ("jobid", "workload", "phase", "device"),
    "One phase of a reference workload, or one that a user marked; its time is the phase's start.",
    gauge("flops_total", "floating-point operations, counted", 1e24),
    gauge("moved_bytes", "bytes moved by the stated model", 1e24),
    gauge("link_bytes", "bytes sent to the device or between devices", 1e24),
    gauge("io_bytes", "bytes read from storage", 1e24),
    gauge("duration_seconds", "time spent in the phase, all calls"),
    gauge("calls_total", "how often the phase ran"),
    gauge("tokens_total", "tokens processed"),
    gauge("flops_per_second", "FLOP per second reached"),
    gauge("moved_bytes_per_second", "bytes per second reached"),
    gauge("intensity_flops_per_byte", "arithmetic intensity"),
    gauge("ridge_flops_per_byte", "intensity at which the two ceilings meet on this device"),
    gauge("compute_ratio", "fraction of the measured compute ceiling", 4.0),
    gauge("memory_ratio", "fraction of the measured memory ceiling", 4.0),
    gauge("link_ratio", "fraction of the measured link ceiling", 4.0),
    gauge("io_ratio", "fraction of the measured disk ceiling", 4.0),
    gauge("confidence_ratio", "how far from a tie: 0 undecided, 1 clear"),
    text("bound", "compute, memory, link, io, latency, balanced, idle or unknown", BOUNDS),
    text("dtype", "number format of the phase's arithmetic"),
    text("explanation", "the sentence that explains the label"),
)

CEILING = _measurement(
    "ceiling",
    ("device", "kind", "dtype", "model"),
    "A roof measured on this very device: matmul, memory (copy, triad, read), link, disk.",
    gauge("flops_per_second", "for compute: FLOP per second"),
    gauge("bytes_per_second", "for memory, link and disk: bytes per second"),
    gauge("spread_ratio", "(highest - lowest) / median of the repeats", 100.0),
    gauge("threads_total", "CPU threads used", 65536),
    text("method", "kernel, shape, repeats"),
)

JOB = _measurement(
    "job",
    ("jobid",),
    "One run of a job; its time is the start, so a requeued job has a row per run.",
    text("user", "who ran it"),
    text("account", "who is charged"),
    text("partition", "Slurm partition"),
    text("name", "job name, or the command's"),
    text("command", "command line of a local job"),
    text("state", "RUNNING, COMPLETED, FAILED, CANCELLED, LOST, or Slurm's own word"),
    text("hosts", "the host that tells this: each host of the job has a row"),
    text("node", "that host's name in Slurm"),
    text("nodes", "all nodes of the job, as Slurm writes them: n[1-4]"),
    text("het_jobid", "of a component of a heterogeneous job: the id of the whole"),
    text("source", "slurm or local"),
    gauge("nodes_total", "nodes of the job, all of them", 1e6),
    gauge("cpus_total", "CPUs allocated on this host", 1e8),
    gauge("gpus_total", "GPUs allocated on this host", 1e7),
    gauge("restart_total", "times the job was requeued before this run", 1e6),
    gauge("exit_code_total", "exit code; 128 + N for signal N", 65536),
    gauge("start_epoch_milliseconds", "start"),
    gauge("end_epoch_milliseconds", "end; absent while it runs"),
    database=Database.JOBS,
)

FOOTPRINT_SOURCES = (
    *("job_cgroup", "cpu", "memory", "pressure", "power", "infiniband", "network"),
    *("blockdisk", "tempdisk", "filesystem"),
)
"""Measurements that a footprint on a host rests on."""

JOB_FOOTPRINT = _measurement(
    "job_footprint",
    ("jobid",),
    "Running totals of one job on one host; one row, at the job's start time, kept up to date.",
    gauge("elapsed_seconds", "time the job has run"),
    gauge("samples_total", "samples taken of the job"),
    gauge("samples_expected_total", "samples there should be"),
    *(
        gauge(f"{measurement}_samples_total", f"samples among them with `{measurement}`")
        for measurement in FOOTPRINT_SOURCES
    ),
    gauge("updated_epoch_milliseconds", "when the row was last brought up to date"),
    gauge("final_state", "1 once the job has ended here"),
    text("source", "what job-exact figures rest on: cgroup2, cgroup1 or processes"),
    gauge("cpus_total", "CPUs the job may use on this host", 65536),
    text("gpus_not_given", "GPUs on which its processes ran, and which it was not given"),
    text("gpus_not_found", "GPUs that it was given, and NVML does not show"),
    # exact for the job
    counter("cpu_seconds", "processor time"),
    gauge("cpu_utilization_mean_ratio", "processor time over CPUs and elapsed time"),
    gauge("cpu_utilization_peak_ratio", "the same in the busiest interval between two samples"),
    gauge("memory_mean_bytes", "memory charged to the job", PEBI),
    gauge("memory_peak_bytes", "most memory charged to the job", PEBI),
    gauge("memory_limit_bytes", "memory limit of the job", PEBI),
    counter("read_bytes", "bytes the job read from block devices"),
    counter("write_bytes", "bytes the job wrote to block devices"),
    gauge("processes_peak_total", "most processes at one time", 1e7),
    gauge("tempdisk_job_peak_bytes", "most temporary disk space held by the job", PEBI),
    gauge("tempdisk_job_last_bytes", "temporary disk space held by the job when last seen", PEBI),
    text("tempdisk_job_source", "mount, quota or walk; `at least` where not all could be seen"),
    gauge("shared_memory_peak_bytes", "most shared memory and files in tmpfs (/dev/shm)", PEBI),
    counter("oom_kills_total", "processes of the job killed for want of memory"),
    counter("cpu_pressure_seconds", "time in which a task of the job waited for a CPU"),
    counter("memory_pressure_seconds", "time in which a task of the job waited for memory"),
    counter("io_pressure_seconds", "time in which a task of the job waited for a disk"),
    # of the whole node while the job ran
    gauge("node_cpus_total", "CPUs of the node", 65536),
    gauge("node_cpu_utilization_mean_ratio", "CPU utilization of the node"),
    gauge("node_cpu_utilization_peak_ratio", "CPU utilization of the node, highest"),
    gauge("node_cpu_iowait_mean_ratio", "CPUs' time idle while a disk was waited for"),
    *(
        counter(f"node_cpu_{bound}_seconds", f"time in which the CPUs' bound was {bound}")
        for bound in CPU_BOUNDS
    ),
    gauge("node_memory_used_mean_bytes", "memory used on the node", PEBI),
    gauge("node_memory_used_peak_bytes", "memory used on the node, highest", PEBI),
    gauge("node_memory_total_bytes", "memory of the node", PEBI),
    counter("node_cpu_energy_joules", "energy of the CPU packages (RAPL)"),
    gauge("node_power_mean_watts", "power of the node by its own sensor"),
    gauge("node_power_peak_watts", "power of the node by its own sensor, highest"),
    counter("node_network_receive_bytes", "received on all interfaces but loopback"),
    counter("node_network_transmit_bytes", "sent on all interfaces but loopback"),
    gauge("node_network_receive_peak_bytes_per_second", "the same in the busiest interval"),
    gauge("node_network_transmit_peak_bytes_per_second", "the same in the busiest interval"),
    gauge("node_network_speed_bits_per_second", "speeds of all its links, summed", 1e15),
    counter("node_loopback_bytes", "sent over loopback"),
    counter("node_infiniband_receive_bytes", "received on all InfiniBand ports"),
    counter("node_infiniband_transmit_bytes", "sent on all InfiniBand ports"),
    counter("node_infiniband_receive_packets_total", "packets received on all InfiniBand ports"),
    counter("node_infiniband_transmit_packets_total", "packets sent on all InfiniBand ports"),
    gauge("node_infiniband_receive_peak_bytes_per_second", "the same in the busiest interval"),
    gauge("node_infiniband_transmit_peak_bytes_per_second", "the same in the busiest interval"),
    gauge("node_infiniband_rate_bits_per_second", "rates of all its ports, summed", 1e15),
    gauge("node_infiniband_ports_total", "InfiniBand ports that were up", 1e4),
    counter("node_infiniband_errors_total", "errors on all InfiniBand ports: bits, links, drops"),
    counter("node_blockdisk_read_bytes", "read from all block devices"),
    counter("node_blockdisk_write_bytes", "written to all block devices"),
    counter("node_filesystem_read_bytes", "read from shared file systems"),
    counter("node_filesystem_write_bytes", "written to shared file systems"),
    gauge("node_filesystem_read_peak_bytes_per_second", "read in the busiest interval"),
    gauge("node_filesystem_write_peak_bytes_per_second", "written in the busiest interval"),
    counter("node_filesystem_operations_total", "reads, writes, opens and operations on metadata"),
    gauge("node_tempdisk_used_peak_bytes", "temporary disk in use, highest", PEBI * 1024),
    gauge("node_tempdisk_total_bytes", "temporary disk", PEBI * 1024),
    counter("node_cpu_pressure_seconds", "time in which a task waited for a CPU"),
    counter("node_memory_pressure_seconds", "time in which a task waited for memory"),
    counter("node_io_pressure_seconds", "time in which a task waited for a disk"),
    database=Database.JOBS,
)

JOB_GPU_FOOTPRINT = _measurement(
    "job_gpu_footprint",
    ("jobid", "gpu"),
    "Running totals of one job on one GPU; one row, at the job's start time.",
    text("uuid", "the GPU's UUID"),
    text("model", "the GPU's name"),
    text("source", "gpm, dcgm or nvml"),
    gauge("samples_total", "samples taken of the GPU"),
    gauge("job_processes_peak_total", "most processes of the job with a context on it", 1e6),
    gauge("other_processes_peak_total", "most processes of others with a context on it", 1e6),
    gauge("activity_samples_total", "samples among them that tell of its pipes and memory"),
    gauge("utilization_mean_ratio", "time in which any kernel ran"),
    gauge("utilization_peak_ratio", "the same, highest sample"),
    gauge("memory_used_mean_bytes", "device memory in use", PEBI),
    gauge("memory_used_peak_bytes", "device memory in use, highest", PEBI),
    gauge("memory_total_bytes", "device memory", PEBI),
    gauge("power_mean_watts", "power", 5000),
    gauge("power_peak_watts", "power, highest sample", 5000),
    gauge("power_limit_watts", "enforced power limit", 5000),
    counter("energy_joules", "energy, from the GPU's own counter"),
    gauge("temperature_peak_celsius", "temperature, highest sample"),
    gauge("sm_clock_mean_hertz", "clock of the multiprocessors", 1e10),
    gauge("sm_active_mean_ratio", "cycles with a warp resident (GPM)"),
    gauge("tensor_active_mean_ratio", "cycles with a tensor pipe busy (GPM)"),
    gauge("dram_active_mean_ratio", "cycles with memory moving data (GPM)"),
    gauge("fp32_active_mean_ratio", "cycles with the fp32 pipe busy (GPM)"),
    gauge("fp64_active_mean_ratio", "cycles with the fp64 pipe busy (GPM)"),
    counter("throttled_seconds", "time slowed for power or heat"),
    counter("throttled_power_seconds", "time slowed to keep a limit of power"),
    counter("throttled_thermal_seconds", "time slowed for heat"),
    counter("ecc_uncorrected_total", "memory errors not corrected while the job ran"),
    counter("xid_errors_total", "critical Xid events while the job ran"),
    counter("pcie_receive_bytes", "bytes from the host"),
    counter("pcie_transmit_bytes", "bytes to the host"),
    counter("nvlink_receive_bytes", "bytes from other GPUs"),
    counter("nvlink_transmit_bytes", "bytes to other GPUs"),
    *(counter(name, f"time {name.split('_')[0]}") for name in BOUND_SECONDS),
    database=Database.JOBS,
)

CATALOGUE: Mapping[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        CPU,
        MEMORY,
        PRESSURE,
        MEMORY_TRAFFIC,
        GPU,
        POWER,
        INFINIBAND,
        NETWORK,
        BLOCKDISK,
        TEMPDISK,
        FILESYSTEM,
        AGENT,
        AGENT_PROBE,
        JOB_CGROUP,
        BOUND,
        CPU_BOUND,
        PHASE,
        CEILING,
        JOB,
        JOB_FOOTPRINT,
        JOB_GPU_FOOTPRINT,
    )
}

COMMON_TAGS = ("cluster", "host")
"""Tags that the agent adds to every point."""
