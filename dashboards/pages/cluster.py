"""The page of the whole cluster."""

from dashboards.dashboard import Dashboard, Row, Variable
from dashboards.pages.scope import (
    CLUSTERS,
    ENDED_JOB_LINK,
    NO_AGENT,
    NO_COUNTERS,
    NO_GPU,
    NO_INFINIBAND,
    NO_POWER,
    NODE_LINK,
    NOW,
    RUNNING_JOB_LINK,
    STATE_COLORS,
)
from dashboards.panel import (
    BOUND_COLORS,
    HALF,
    Column,
    Panel,
    heatmap,
    high_is_bad,
    stat,
    table,
    timeseries,
)
from dashboards.query import CLUSTER, over_time, rows, value, values
from dashboards.units import AGO, COUNT, ELAPSED, KWH, SHARE
from probes.catalogue import BOUNDS

LONG_AGO = "time >= ${__to}ms - $longest_job AND time <= ${__to}ms"
RUNNING = f'{CLUSTER} AND "jobid" =~ /^$running$/'
GOING_ON = f'{RUNNING} AND "final_state" = 0'
ENDED = f"{CLUSTER} AND \"state\" <> 'RUNNING'"
MOST_ENDED = 2000
LAST_WEEK = "time > ${__to}ms - 7d AND time <= ${__to}ms"

WHO = {
    "user": "last(user)",
    "account": "last(account)",
    "partition": "last(partition)",
    "name": "last(name)",
    "nodes": "max(nodes_total)",
    "CPUs": "sum(cpus_total)",
    "GPUs": "sum(gpus_total)",
}


FOLD = {
    "CPUs": "sum",
    "GPUs": "sum",
    "state": "last",
    "exit code": "max",
    "started": "min",
    "ended": "max",
}
"""How the rows of a job's nodes become one."""


def cluster() -> Dashboard:
    """Return the dashboard: who runs, what is wasted, what is about to break."""
    return Dashboard(
        "cluster",
        "All nodes and jobs of a cluster: who runs, what is wasted, what is about to break.",
        [
            Row("Now", [*_nodes_now(), *_gpus_now()]),
            Row("Jobs", [_running(), _ended()]),
            Row("GPUs", [*_maps(), _bounds(), _held_idle()]),
            Row("Power", _power()),
            Row("Temp disks, network, silent nodes", [*_nodes(), *_infiniband()]),
        ],
        [
            CLUSTERS,
            Variable(
                "running",
                "Running jobs",
                "Jobs of which something was seen in the last 3 minutes.",
                values("job_cgroup", "cpu_seconds", "jobid", time="time > now() - 3m"),
                multi=True,
                hidden=True,
            ),
            Variable(
                "longest_job",
                "Longest job",
                "How far back running jobs are looked for: your longest time limit.",
                choices=("7d", "1d", "3d", "14d", "30d"),
            ),
        ],
    )


def _nodes_now() -> list[Panel]:
    alive = "last(ticks_total)"
    return [
        stat(
            "Nodes",
            "Nodes whose agent was heard of in the last 3 minutes, and those heard of in the time "
            "shown. Where the two differ, 'Nodes, longest silent first' names the missing ones.",
            value("agent", alive, per="host", outer="count(value)", time=NOW, legend="now"),
            value("agent", alive, per="host", outer="count(value)", legend="in this time"),
            empty=NO_AGENT,
            unit=COUNT,
        ),
        stat(
            "Running jobs",
            "Jobs of which something was seen in the last 3 minutes, and that have not ended.",
            value(
                "job_footprint",
                "max(elapsed_seconds)",
                per="jobid",
                outer="count(value)",
                where=GOING_ON,
                time=LONG_AGO,
                legend="jobs",
            ),
            empty="0: no job runs now",
            unit=COUNT,
        ),
    ]


def _gpus_now() -> list[Panel]:
    return [
        stat(
            "GPUs held by jobs",
            "GPUs that a job holds now, and all GPUs. Free GPUs beside a queue of waiting jobs "
            "mean that something else is short: memory, CPUs, or whole nodes.",
            value("bound", "last(held_state)", per="host gpu", time=NOW, legend="held"),
            value(
                "bound",
                "last(held_state)",
                per="host gpu",
                outer="count(value)",
                time=NOW,
                legend="all",
            ),
            empty=NO_GPU,
            unit=COUNT,
        ),
        stat(
            "GPUs held idle",
            "GPUs that a job holds and does not use at this moment. A few are normal while jobs "
            "load data; many, or the same for long, are waste: see the table below.",
            value("bound", "last(held_idle_state)", per="host gpu", time=NOW, legend="idle"),
            empty=NO_GPU,
            unit=COUNT,
            steps=high_is_bad(1, 8),
        ),
        stat(
            "GPU utilization",
            "Share of time in which any kernel ran, all GPUs, last 3 minutes. It says nothing of "
            "how much of a GPU was used: for that see the bounds below.",
            value("gpu", "mean(utilization_ratio)", time=NOW, legend="mean"),
            empty=NO_GPU,
            steps=((None, "orange"), (0.5, "green")),
        ),
        stat(
            "Energy of all GPUs",
            "Energy that the GPUs took in the time shown, by their own counters. It is too low if "
            "a driver was loaded anew in between, which sets its counter to zero.",
            value(
                "gpu",
                "(last(energy_joules) - first(energy_joules)) / 3600000",
                per="host gpu",
                legend="GPUs",
            ),
            empty=NO_GPU,
            unit=KWH,
        ),
    ]


def _running() -> Panel:
    return table(
        "Jobs running",
        "Every job of which something was seen in the last 3 minutes; the id leads to its page. "
        "Worry about long jobs that use little of their CPUs.",
        rows(
            "job",
            {**WHO, "started": "min(start_epoch_milliseconds)"},
            "jobid",
            where=RUNNING,
            time=LONG_AGO,
        ),
        rows(
            "job_footprint",
            {
                "running for": "max(elapsed_seconds)",
                "CPUs used": "mean(cpu_utilization_mean_ratio)",
                "memory peak of a node": "max(memory_peak_bytes)",
            },
            "jobid",
            where=GOING_ON,
            time=LONG_AGO,
        ),
        empty="No job runs now.",
        columns={
            "jobid": Column(link=RUNNING_JOB_LINK),
            "running for": Column(ELAPSED),
            "CPUs used": Column(most=1, steps=((None, "orange"), (0.2, "green"))),
        },
        sort="running for",
        key="running for",
    )


def _ended() -> Panel:
    return table(
        "Jobs that began in this time and ended",
        "The job id leads to the job's page at the job's time. Many failures of one user are "
        "theirs to mend; many on one node are yours.",
        rows(
            "job",
            {
                "jobid": "jobid",
                "user": "user",
                "account": "account",
                "partition": "partition",
                "name": "name",
                "nodes": "nodes_total",
                "CPUs": "cpus_total",
                "GPUs": "gpus_total",
                "state": "state",
                "exit code": "exit_code_total",
                "started": "start_epoch_milliseconds",
                "ended": "end_epoch_milliseconds",
            },
            where=ENDED,
            newest=MOST_ENDED,
        ),
        empty="No job began and ended in this time.",
        columns={
            "jobid": Column(link=ENDED_JOB_LINK),
            "state": Column(colors=STATE_COLORS),
            "exit code": Column(steps=((None, "green"), (1, "red"))),
        },
        sort="started",
        # each node of a job has a row
        fold=FOLD,
    )


def _maps() -> list[Panel]:
    return [
        heatmap(
            "GPU utilization by node",
            "Mean over the node's GPUs of the share of time in which any kernel ran. A band that "
            "stays without colour is a node whose GPUs nobody uses, or whose job hangs.",
            over_time("gpu", "mean(utilization_ratio)", "host"),
            empty=NO_GPU,
            fill="green",
        ),
        heatmap(
            "Compute bound by node",
            "Mean fraction of the compute roof that the node's GPUs reach. Strong colour here: "
            "faster chips or lower precision would help, more memory bandwidth would not.",
            over_time("bound", "mean(compute_ratio)", "host"),
            empty=NO_COUNTERS,
            fill="blue",
        ),
        heatmap(
            "Memory bound by node",
            "Mean fraction of the memory roof that the node's GPUs reach. Strong colour here: "
            "larger batches or fewer bytes would help. Only in the first of the three maps: held "
            "back by something else.",
            over_time("bound", "mean(memory_ratio)", "host"),
            empty=NO_COUNTERS,
            fill="orange",
        ),
    ]


def _bounds() -> Panel:
    return timeseries(
        "Bounds of all GPUs",
        "Share of the GPUs' time under each bound: what the fleet's work is held back by. "
        "Much latency means small kernels or waiting for the host; much idle is capacity.",
        *(over_time("bound", f"sum({bound}_seconds)", legend=bound) for bound in BOUNDS),
        empty=NO_GPU,
        stacking="percent",
        colors=BOUND_COLORS,
    )


def _held_idle() -> Panel:
    return table(
        "GPUs held idle longest",
        "Of the time shown, the share in which a job held the GPU, and in which it held the "
        "GPU and did not use it. Ask the owners of those at the top.",
        rows(
            "bound",
            {"held idle": "mean(held_idle_state)", "held": "mean(held_state)"},
            "host gpu",
        ),
        empty=NO_GPU,
        columns={
            "host": Column(link=NODE_LINK),
            "held idle": Column(SHARE, most=1, steps=high_is_bad(0.1, 0.5)),
            "held": Column(SHARE, most=1),
        },
        sort="held idle",
    ).sized(HALF)


def _power() -> list[Panel]:
    parts = {
        "CPUs": "/^package/",
        "memory": "/^dram/",
        "whole nodes, by their own sensor": "/^node$/",
    }
    return [
        timeseries(
            "Power",
            "Electrical power of all GPUs, CPU packages and memory, and of whole nodes where they "
            "have a sensor for it. A step up or down is a large job that begins or ends.",
            over_time("gpu", "mean(power_watts)", per="host gpu", legend="GPUs"),
            *(
                over_time(
                    "power",
                    "mean(power_watts)",
                    per="host domain",
                    where=f'{CLUSTER} AND "domain" =~ {domain}',
                    legend=legend,
                )
                for legend, domain in parts.items()
            ),
            empty=NO_POWER,
        ),
        timeseries(
            "GPU power by node",
            "Mean power of each node's GPUs. A node at its lowest for long beside others at their "
            "highest is where work is missing.",
            over_time("gpu", "mean(power_watts)", "host"),
            empty=NO_GPU,
        ),
    ]


def _nodes() -> list[Panel]:
    host = {"host": Column(link=NODE_LINK)}
    return [
        table(
            "Temp disks, fullest first",
            "Node-local temporary storage. A full one breaks the jobs on its node, and what jobs "
            "left behind stays until somebody removes it.",
            rows(
                "tempdisk",
                {
                    "full": "last(used_bytes) / last(total_bytes)",
                    "used": "last(used_bytes)",
                    "size": "last(total_bytes)",
                },
                "host path type",
            ),
            empty=NO_AGENT,
            columns={**host, "full": Column(SHARE, most=1, steps=high_is_bad(0.8, 0.9))},
            sort="full",
        ).sized(HALF),
        table(
            "Nodes, longest silent first",
            "When each node's agent was last heard of, up to a week ago. Silent for more than "
            "some minutes: the node is down, its agent is, or the network between is.",
            rows("agent", {"version": "last(version)"}, "host", time=LAST_WEEK),
            empty=NO_AGENT,
            columns={**host, "Time": Column(AGO)},
            sort="Time",
            descending=False,
            time=True,
        ).sized(HALF),
    ]


def _infiniband() -> list[Panel]:
    host = {"host": Column(link=NODE_LINK)}
    grown = "last({0}) - first({0})"
    link = ("link_error_recovery_total", "link_downed_total", "receive_errors_total")
    return [
        table(
            "InfiniBand ports, busiest first",
            "What each port received and sent in the time shown. A port far above its peers "
            "belongs to a job that could move less, or to a storage server.",
            rows(
                "infiniband",
                {
                    "received": grown.format("receive_bytes"),
                    "sent": grown.format("transmit_bytes"),
                    "rate": "last(rate_bits_per_second)",
                },
                "host device port",
            ),
            empty=NO_INFINIBAND,
            columns={**host, "received": Column("bytes"), "sent": Column("bytes")},
            sort="received",
        ).sized(HALF),
        table(
            "InfiniBand ports, most errors first",
            "Errors in the time shown; below zero after a reboot. Bit errors are a cable or a "
            "connector; link errors and a port that went down are worse.",
            rows(
                "infiniband",
                {
                    "link errors": " + ".join(grown.format(name) for name in link),
                    "bit errors": grown.format("symbol_errors_total"),
                    "discards": grown.format("transmit_discards_total"),
                    "up": "last(link_up_state)",
                },
                "host device port",
            ),
            empty=NO_INFINIBAND,
            columns={
                **host,
                "link errors": Column(COUNT, steps=high_is_bad(1, 10)),
                "bit errors": Column(COUNT, steps=high_is_bad(1, 100)),
                "discards": Column(COUNT),
                "up": Column(steps=((None, "red"), (1, "green"))),
            },
            sort="link errors",
        ).sized(HALF),
    ]
