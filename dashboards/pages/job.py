"""The page of one job."""

from dashboards.dashboard import Annotation, Dashboard, Row, Variable
from dashboards.pages.devices import (
    Scope,
    gpu_panels,
    host_panels,
    network_panels,
    storage_panels,
)
from dashboards.pages.phases import counted_roofline, phase_roofline, phase_table
from dashboards.pages.scope import (
    CLUSTERS,
    HOSTS,
    NO_ACCOUNT,
    NO_GPU,
    NO_JOB,
    NO_POWER,
    NODE_LINK,
    STATE_COLORS,
)
from dashboards.panel import (
    BOUND_COLORS,
    FULL,
    THIRD,
    Column,
    Panel,
    bars,
    high_is_bad,
    low_is_bad,
    stat,
    table,
    timeseries,
)
from dashboards.query import CLUSTER, UNTIL, Query, over_time, rate, rows, tag_values, value
from dashboards.units import CORES, ELAPSED, KWH, SHARE
from probes.catalogue import BOUNDS

JOB = f"{CLUSTER} AND \"jobid\" = '$jobid'"
DEVICES = Scope(HOSTS, f'{HOSTS} AND "gpu" =~ /^$gpu$/', several=True)


def job() -> Dashboard:
    """Return the dashboard: what a job does, what holds it back, what it costs."""
    return Dashboard(
        "job",
        "One job: what it does, what holds it back, what it costs. A link to it, from the "
        "cluster's page or from jobinspect, brings the job's id and time along.",
        [
            Row("The job", [_facts(), *_numbers(), *_gpu_numbers()]),
            Row("What holds it back", _bounds()),
            Row("GPUs", [*gpu_panels(DEVICES), *_balance()]),
            Row("CPU and memory", [*_own(), *host_panels(DEVICES)]),
            Row("Network", network_panels(DEVICES)),
            Row("Files and temp disks", [*storage_panels(DEVICES), *_tempdisk()]),
            Row("Power", _power()),
        ],
        [
            CLUSTERS,
            Variable("jobid", "Job", "Id of the job: 123, 123_4 of an array, or of rooflight run."),
            Variable(
                "host",
                "Nodes",
                "Nodes of the job.",
                tag_values("job_footprint", "host", JOB),
                multi=True,
            ),
            Variable(
                "gpu",
                "GPUs",
                "Indices of the job's GPUs on its nodes.",
                tag_values("job_gpu_footprint", "gpu", JOB),
                multi=True,
            ),
        ],
        [
            Annotation(
                "Phases",
                "phase",
                rows(
                    "phase",
                    {"bound": "bound", "phase": "phase", "workload": "workload"},
                    where=JOB,
                ),
                "purple",
                text="phase",
                tags=("bound", "workload"),
            )
        ],
        since="now-24h",
    )


def _of_nodes(expression: str, outer: str, legend: str) -> Query:
    """Return a number of the job's newest run, folded over its nodes."""
    return value(
        "job_footprint",
        expression,
        per="host",
        outer=outer,
        where=JOB,
        time=UNTIL,
        legend=legend,
    )


def _of_gpus(expression: str, outer: str, legend: str) -> Query:
    """Return a number of the job's newest run, folded over its GPUs."""
    return value(
        "job_gpu_footprint",
        expression,
        per="host gpu",
        outer=outer,
        where=JOB,
        time=UNTIL,
        legend=legend,
    )


def _facts() -> Panel:
    facts = {
        "user": "user",
        "account": "account",
        "partition": "partition",
        "name": "name",
        "state": "state",
        "exit code": "exit_code_total",
        "nodes": "nodes_total",
        "CPUs": "cpus_total",
        "GPUs": "gpus_total",
        "started": "start_epoch_milliseconds",
        "ended": "end_epoch_milliseconds",
    }
    return table(
        "Job $jobid",
        "A line for each node, of the job's newest run before the end of the time shown. A "
        "node that failed, or began later than the others, shows here.",
        rows("job", facts, "host", where=JOB, time=UNTIL, newest=1),
        empty=NO_JOB,
        columns={
            "host": Column(link=NODE_LINK),
            "state": Column(colors=STATE_COLORS),
            "exit code": Column(steps=((None, "green"), (1, "red"))),
        },
        sort="host",
        descending=False,
    ).sized(FULL, 5)


def _numbers() -> list[Panel]:
    return [
        stat(
            "Running time",
            "How long the job ran, or has run so far.",
            _of_nodes("last(elapsed_seconds)", "max(value)", "elapsed"),
            empty=NO_JOB,
            unit=ELAPSED,
        ),
        stat(
            "CPUs used",
            "Processor time over the time of all CPUs that the job holds. Below a fifth: ask for "
            "fewer CPUs, or use them for loading data.",
            _of_nodes("last(cpu_utilization_mean_ratio)", "mean(value)", "mean"),
            empty=NO_JOB,
            steps=((None, "orange"), (0.2, "green")),
        ),
        stat(
            "Samples taken",
            "Samples of those that there should be, on the node with the fewest. Below 90 % an "
            "agent was away for a while, and the means above leave that time out.",
            _of_nodes("last(samples_total) / last(samples_expected_total)", "min(value)", "fewest"),
            empty=NO_JOB,
            unit=SHARE,
            steps=low_is_bad(0.5, 0.9),
        ),
    ]


def _gpu_numbers() -> list[Panel]:
    return [
        stat(
            "GPU utilization, mean",
            "Share of time in which any kernel ran, mean of all the job's GPUs from its start. "
            "Below a half: find out below what they wait for.",
            _of_gpus("last(utilization_mean_ratio)", "mean(value)", "mean"),
            empty=NO_GPU,
            steps=low_is_bad(0.2, 0.5),
        ),
        stat(
            "GPU memory, highest",
            "Most memory in use on any of the job's GPUs, of what there is. Far below: a smaller "
            "GPU, or a larger batch.",
            _of_gpus(
                "last(memory_used_peak_bytes) / last(memory_total_bytes)", "max(value)", "peak"
            ),
            empty=NO_GPU,
            unit=SHARE,
        ),
        stat(
            "Energy of its GPUs",
            "What the GPUs took while the job held them, by their own counters.",
            _of_gpus("last(energy_joules) / 3600000", "sum(value)", "GPUs"),
            empty=NO_GPU,
            unit=KWH,
        ),
    ]


def _bounds() -> list[Panel]:
    return [
        bars(
            "Time under each bound",
            "GPU time of the whole job under each roof, all GPUs added up. The longest bar says "
            "what to work on: jobinspect prints what helps.",
            *(_of_gpus(f"last({bound}_bound_seconds)", "sum(value)", bound) for bound in BOUNDS),
            empty=NO_GPU,
            colors=BOUND_COLORS,
        ).sized(THIRD, 12),
        counted_roofline(DEVICES.gpus).sized(THIRD, 12),
        phase_roofline(JOB).sized(THIRD, 12),
        phase_table(JOB).sized(FULL, 8),
    ]


def _balance() -> list[Panel]:
    each = {"by": "host gpu", "where": JOB, "time": UNTIL}
    utilization = "mean(utilization_ratio)"
    return [
        bars(
            "GPU utilization, each GPU",
            "Mean of each GPU over the whole job. Bars of different length: work is not shared out "
            "evenly, and every GPU waits for the slowest.",
            value("job_gpu_footprint", "last(utilization_mean_ratio)", **each),
            empty=NO_GPU,
            steps=low_is_bad(0.2, 0.5),
        ).sized(THIRD),
        bars(
            "Energy, each GPU",
            "Energy of each GPU over the whole job. One far below the others had less to do.",
            value("job_gpu_footprint", "last(energy_joules) / 3600000", **each),
            empty=NO_GPU,
            unit=KWH,
        ).sized(THIRD),
        timeseries(
            "Imbalance between GPUs",
            "Utilization of the busiest GPU less that of the idlest. Far above nothing for long: "
            "some wait for the others; look for the one that differs above.",
            over_time(
                "gpu",
                utilization,
                per="host gpu",
                outer="max(value) - min(value)",
                where=DEVICES.gpus,
                legend="busiest less idlest",
            ),
            empty=NO_GPU,
            steps=high_is_bad(0.2, 0.5),
        ).sized(THIRD),
    ]


def _own() -> list[Panel]:
    return [
        timeseries(
            "CPUs that the job uses",
            "Processors busy for this job, on each node. One, however many it holds: a single "
            "thread does all the work.",
            rate("job_cgroup", "cpu_seconds", "host", where=JOB),
            empty=NO_ACCOUNT,
            unit=CORES,
        ).sized(THIRD),
        timeseries(
            "Memory that the job uses",
            "Memory charged to the job on each node, and its limit where there is one. At the "
            "limit the kernel ends the job's programs.",
            over_time("job_cgroup", "mean(memory_bytes)", "host", where=JOB, legend="$tag_host"),
            over_time(
                "job_cgroup",
                "last(memory_limit_bytes)",
                "host",
                where=JOB,
                legend="$tag_host limit",
            ),
            empty=NO_ACCOUNT,
        ).sized(THIRD),
        timeseries(
            "Local disk input and output of the job",
            "What the job's own programs read and write on the node's disks. Much in short bursts "
            "are checkpoints; steady reading is a data set.",
            rate("job_cgroup", "read_bytes", "host", where=JOB, legend="$tag_host read"),
            rate("job_cgroup", "write_bytes", "host", where=JOB, legend="$tag_host written"),
            empty=NO_ACCOUNT,
        ).sized(THIRD),
    ]


def _tempdisk() -> list[Panel]:
    return [
        timeseries(
            "Temp disk space",
            "Space in use on the nodes' temp disks, everybody's, and what is known to belong to "
            "this job.",
            over_time(
                "tempdisk",
                "last(used_bytes)",
                "host path",
                where=HOSTS,
                legend="$tag_host $tag_path",
            ),
            over_time(
                "job_cgroup",
                "last(tempdisk_used_bytes)",
                "host",
                where=JOB,
                legend="$tag_host, of the job",
            ),
            empty=NO_JOB,
        ),
        timeseries(
            "Temp disk input and output",
            "Bytes read from and written to the devices of the temp disks.",
            rate(
                "tempdisk", "read_bytes", "host", per="path", where=HOSTS, legend="$tag_host read"
            ),
            rate(
                "tempdisk",
                "write_bytes",
                "host",
                per="path",
                where=HOSTS,
                legend="$tag_host written",
            ),
            empty="The temp disks are in memory or on the network: no device of their own.",
        ),
    ]


def _power() -> list[Panel]:
    watts = "mean(power_watts)"
    cpus = f'{HOSTS} AND "domain" =~ /^package/'
    node = f"{HOSTS} AND \"domain\" = 'node'"
    return [
        timeseries(
            "Power of the job's GPUs",
            "Mean power of the GPUs that the job holds, by node. In a job that is shared out well "
            "all nodes are alike.",
            over_time("gpu", watts, "host", where=DEVICES.gpus),
            empty=NO_GPU,
        ),
        timeseries(
            "Power of the job's nodes",
            "Power of the nodes' CPUs, and of the whole nodes where they have a sensor for it. "
            "Others' work on shared nodes is in it.",
            over_time("power", watts, "host", per="domain", where=cpus, legend="$tag_host CPUs"),
            over_time("power", watts, "host", where=node, legend="$tag_host whole node"),
            empty=NO_POWER,
        ),
    ]
