"""The page of one node."""

from dashboards.dashboard import Annotation, Dashboard, Row, Variable
from dashboards.pages.devices import (
    Scope,
    gpu_panels,
    host_panels,
    network_panels,
    storage_panels,
)
from dashboards.pages.scope import (
    CLUSTERS,
    HEARD_JOB_LINK,
    HOST,
    NO_ACCOUNT,
    NO_AGENT,
    NO_DISK,
    NO_GPU,
    NO_INFINIBAND,
    NO_POWER,
)
from dashboards.panel import (
    FULL,
    HALF,
    THIRD,
    Column,
    Panel,
    high_is_bad,
    table,
    timeseries,
)
from dashboards.query import CLUSTER, over_time, rate, rows, tag_values
from dashboards.units import CORES, ELAPSED, SHARE

NODE = Scope(HOST, HOST, several=False)
STILL_THERE = f'{HOST} AND "updated_epoch_milliseconds" >= ${{__from}}'
"""Jobs that were heard of after the begin of the time shown: they may have begun long before."""

BEGAN = "time >= ${__from}ms - 14d AND time <= ${__to}ms"


def node() -> Dashboard:
    """Return the dashboard: everything of one host, with the jobs on it as regions."""
    return Dashboard(
        "node",
        "Everything that is known of one node; the jobs on it are shaded.",
        [
            Row("Jobs on this node", _jobs()),
            Row("GPUs", [*gpu_panels(NODE), _gpu_errors()]),
            Row("CPU and memory", [*host_panels(NODE), *_kernel()]),
            Row("Network", [*network_panels(NODE), *_ports()]),
            Row("Files and temp disks", [*storage_panels(NODE), *_disks()]),
            Row("Power", [_power()]),
        ],
        [
            CLUSTERS,
            Variable(
                "host", "Node", "Host name of the node.", tag_values("agent", "host", CLUSTER)
            ),
        ],
        [
            Annotation(
                "Jobs",
                "job_footprint",
                rows(
                    "job_footprint",
                    {
                        "updated_epoch_milliseconds": "updated_epoch_milliseconds",
                        "jobid": "jobid",
                        "host": "host",
                    },
                    where=STILL_THERE,
                    time=BEGAN,
                ),
                "blue",
                text="jobid",
                tags=("host",),
                until="updated_epoch_milliseconds",
            )
        ],
    )


def _jobs() -> list[Panel]:
    return [
        table(
            "Jobs",
            "Jobs that were on this node in the time shown, with what they used here. The job id "
            "leads to the job's page.",
            rows(
                "job_footprint",
                {
                    "jobid": "jobid",
                    "running for": "elapsed_seconds",
                    "CPUs": "cpus_total",
                    "CPUs used": "cpu_utilization_mean_ratio",
                    "memory peak": "memory_peak_bytes",
                    "heard": "updated_epoch_milliseconds",
                },
                where=STILL_THERE,
                time=BEGAN,
            ),
            rows(
                "job",
                {
                    "jobid": "jobid",
                    "user": "user",
                    "name": "name",
                    "started": "start_epoch_milliseconds",
                },
                where=HOST,
                time=BEGAN,
            ),
            empty="No job was on this node in the time shown.",
            columns={
                "jobid": Column(link=HEARD_JOB_LINK),
                "running for": Column(ELAPSED),
                "CPUs used": Column(most=1, steps=((None, "orange"), (0.2, "green"))),
            },
            sort="started",
            key="running for",
        ).sized(THIRD * 2),
        timeseries(
            "CPUs used by each job",
            "Processors busy for each job. What is left of the node's CPU use below is the system, "
            "or somebody who came in without a job.",
            rate("job_cgroup", "cpu_seconds", "jobid", where=HOST),
            empty=NO_ACCOUNT,
            unit=CORES,
            stacking="normal",
        ).sized(THIRD),
    ]


def _gpu_errors() -> Panel:
    return table(
        "Errors of the GPUs",
        "Memory errors and critical Xid events since the driver was loaded. An uncorrected error "
        "or a waiting row remap: drain the node and reset the GPU. Corrected ones are harmless.",
        rows(
            "gpu",
            {
                "uncorrected": "last(ecc_uncorrected_total)",
                "corrected": "last(ecc_corrected_total)",
                "remapped rows": "last(remapped_rows_total)",
                "remap waits": "last(remap_pending_state)",
                "Xid": "last(xid_errors_total)",
                "PCIe replays": "last(pcie_replays_total)",
            },
            "gpu model",
            where=HOST,
        ),
        empty=NO_GPU,
        columns={
            name: Column(steps=((None, "green"), (1, "red")))
            for name in ("uncorrected", "remap waits", "Xid")
        },
        sort="gpu",
        descending=False,
    ).sized(FULL, 6)


def _kernel() -> list[Panel]:
    load = {"load_1m_load": "1 minute", "load_15m_load": "15 minutes", "cpus_total": "CPUs"}
    return [
        timeseries(
            "Load",
            "Processes that run or wait for a disk, and the CPUs there are. Above the CPUs: more "
            "is started than there is room for, or many wait for a file system that hangs.",
            *(
                over_time("cpu", f"mean({field})", where=HOST, legend=words)
                for field, words in load.items()
            ),
            empty=NO_AGENT,
        ).sized(THIRD),
        timeseries(
            "CPU clock",
            "Mean clock of all CPUs. It sinks when they idle, and under vector code; one node "
            "slower than its kind has a power or cooling limit.",
            over_time("cpu", "mean(frequency_hertz)", where=HOST, legend="mean"),
            empty="This machine does not tell its CPUs' clocks (cpufreq); virtual ones seldom do.",
        ).sized(THIRD),
        timeseries(
            "Swapping and page faults",
            "Bytes read back from and written to swap. Anything but nothing is a node that is "
            "short of memory.",
            rate("memory", "swap_in_bytes", where=HOST, legend="in"),
            rate("memory", "swap_out_bytes", where=HOST, legend="out"),
            empty=NO_AGENT,
        ).sized(THIRD),
    ]


def _ports() -> list[Panel]:
    return [
        table(
            "InfiniBand ports",
            "State and counters of errors since the node was started. Compare with a node of the "
            "same age; what matters is whether they grow.",
            rows(
                "infiniband",
                {
                    "up": "last(link_up_state)",
                    "rate": "last(rate_bits_per_second)",
                    "bit errors": "last(symbol_errors_total)",
                    "recoveries": "last(link_error_recovery_total)",
                    "downs": "last(link_downed_total)",
                    "errors": "last(receive_errors_total)",
                    "discards": "last(transmit_discards_total)",
                    "out of buffer": "last(out_of_buffer_total)",
                },
                "device port",
                where=HOST,
            ),
            empty=NO_INFINIBAND,
            columns={"up": Column(steps=((None, "red"), (1, "green")))},
            sort="device",
            descending=False,
        ).sized(THIRD * 2),
        timeseries(
            "Ethernet errors and drops",
            "Packets with errors or dropped. Some drops under load are normal; errors are a cable, "
            "a port or a driver.",
            *(
                rate(
                    "network",
                    f"{way}_{kind}_total",
                    "interface",
                    where=HOST,
                    legend=f"$tag_interface {way} {kind}",
                )
                for way in ("receive", "transmit")
                for kind in ("errors", "drops")
            ),
            empty="This node has no network interface.",
        ).sized(THIRD),
    ]


def _disks() -> list[Panel]:
    return [
        timeseries(
            "Local disks, busy",
            "Share of time in which a disk had at least one request. At 100 % a spinning disk is "
            "at its limit; an SSD may still have room.",
            rate("blockdisk", "busy_seconds", "device", where=HOST),
            empty=NO_DISK,
            most=1,
        ),
        table(
            "Temp disks",
            "Size, use and files of node-local temporary storage. Running out of files (inodes) "
            "looks to programs like a full disk.",
            rows(
                "tempdisk",
                {
                    "full": "last(used_bytes) / last(total_bytes)",
                    "used": "last(used_bytes)",
                    "size": "last(total_bytes)",
                    "files": "last(inodes_used_total)",
                    "files that fit": "last(inodes_total)",
                },
                "path type",
                where=HOST,
            ),
            empty=NO_AGENT,
            columns={"full": Column(SHARE, most=1, steps=high_is_bad(0.8, 0.9))},
            sort="full",
        ).sized(HALF),
    ]


def _power() -> Panel:
    return timeseries(
        "Power by part",
        "Power of the CPU packages and memory (RAPL), of the whole node by its own sensor, and of "
        "all its GPUs.",
        over_time("power", "mean(power_watts)", "domain", where=HOST),
        over_time("gpu", "mean(power_watts)", per="gpu", where=HOST, legend="GPUs"),
        empty=NO_POWER,
    ).sized(FULL)
