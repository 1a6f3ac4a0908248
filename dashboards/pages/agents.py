"""The page of the agents: whether they keep up, and what they cost."""

from dashboards.dashboard import Dashboard, Row
from dashboards.pages.scope import CLUSTERS, NO_AGENT, NODE_LINK
from dashboards.panel import (
    FULL,
    HALF,
    THIRD,
    Column,
    Panel,
    high_is_bad,
    stat,
    table,
    timeseries,
)
from dashboards.query import Query, over_time, rate, rows, value
from dashboards.units import COUNT, SHARE

BUDGET_SHARE = 0.01
"""An agent should cost less than a hundredth of one CPU."""

GROWN = "last({0}) - first({0})"


def agents() -> Dashboard:
    """Return the dashboard: whether the agents keep up, and what they cost."""
    return Dashboard(
        "agents",
        "The agents themselves: versions, whether they keep up, what they lose, what they cost.",
        [
            Row("All agents", [*_summary(), *_standing(), _table()]),
            Row("Keeping up", _keeping_up()),
            Row("On the way to the store", _shipping()),
            Row("Cost", _cost()),
        ],
        [CLUSTERS],
    )


def _summary() -> list[Panel]:
    return [
        stat(
            "Agents heard of",
            "Nodes whose agent was heard of in the time shown.",
            value("agent", "last(ticks_total)", per="host", outer="count(value)", legend="agents"),
            empty=NO_AGENT,
            unit=COUNT,
        ),
        stat(
            "Points stored",
            "Points that the store took in the time shown, from all agents.",
            value("agent", GROWN.format("shipped_points_total"), per="host", legend="points"),
            empty=NO_AGENT,
            unit=COUNT,
        ),
        stat(
            "Points lost",
            "Points that were dropped because the spool was full, or that the store refused. Any "
            "is too many: the table below says where, and the agent's log says why.",
            value("agent", GROWN.format("dropped_points_total"), per="host", legend="points"),
            empty=NO_AGENT,
            unit=COUNT,
            steps=high_is_bad(1, 1),
        ),
    ]


def _standing() -> list[Panel]:
    return [
        stat(
            "Ticks left out",
            "Ticks for which an agent came too late, in the time shown.",
            value("agent", GROWN.format("ticks_skipped_total"), per="host", legend="ticks"),
            empty=NO_AGENT,
            unit=COUNT,
            steps=high_is_bad(1, 100),
        ),
        stat(
            "Waiting in spools",
            "Data that waits for the store on all nodes. It is never quite nothing; when it grows, "
            "the store is slow or away.",
            value("agent", "last(spool_bytes)", per="host", legend="bytes"),
            empty=NO_AGENT,
            steps=high_is_bad(100e6, 1e9),
        ),
        stat(
            "CPU of the dearest agent",
            "Share of one CPU that the most expensive agent uses, in the worst interval.",
            over_time(
                "agent",
                "non_negative_derivative(first(cpu_seconds), 1s)",
                per="host",
                outer="max(value)",
                legend="of one CPU",
            ),
            empty=NO_AGENT,
            unit=SHARE,
            steps=high_is_bad(BUDGET_SHARE, 5 * BUDGET_SHARE),
        ),
    ]


def _table() -> Panel:
    return table(
        "Agents",
        "One line for each node. After an upgrade all versions are the same; what was lost, left "
        "out or implausible should be nothing.",
        rows(
            "agent",
            {
                "version": "last(version)",
                "longest tick": "max(tick_seconds)",
                "latest": "max(lateness_seconds)",
                "memory": "max(rss_bytes)",
                "in spool": "last(spool_bytes)",
                "lost": GROWN.format("dropped_points_total"),
                "left out": GROWN.format("ticks_skipped_total"),
                "implausible": GROWN.format("implausible_total"),
                "store errors": GROWN.format("store_errors_total"),
            },
            "host",
        ),
        empty=NO_AGENT,
        columns={
            "host": Column(link=NODE_LINK),
            "longest tick": Column(steps=high_is_bad(0.1, 1)),
            "latest": Column(steps=high_is_bad(0.1, 1)),
            "lost": Column(steps=high_is_bad(1, 1)),
        },
        sort="lost",
    )


def _worst_and_mean(field: str) -> list[Query]:
    """Return the highest and the mean of a field over all agents."""
    return [
        over_time("agent", f"{function}({field})", legend=legend)
        for function, legend in (("max", "worst"), ("mean", "mean"))
    ]


def _keeping_up() -> list[Panel]:
    return [
        timeseries(
            "Time of a tick",
            "How long an agent takes to read everything. Some milliseconds; more than a second is "
            "a probe that hangs, see beside.",
            *_worst_and_mean("tick_seconds"),
            empty=NO_AGENT,
            steps=high_is_bad(0.1, 1),
        ).sized(THIRD),
        timeseries(
            "Lateness",
            "How late ticks begin. On a node whose CPUs are all busy some 20 ms are normal.",
            *_worst_and_mean("lateness_seconds"),
            empty=NO_AGENT,
            steps=high_is_bad(0.02, 1),
        ).sized(THIRD),
        timeseries(
            "Time of each probe",
            "Longest sample of each probe on any node. One that grows reads something that hangs: "
            "a file system that is away, a GPU that died.",
            over_time("agent_probe", "max(duration_seconds)", "probe"),
            empty=NO_AGENT,
        ).sized(THIRD),
        table(
            "Probes that fail or hang",
            "Samples that failed, and that were left out because the one before still hung, since "
            "the agent began. rooflight check on that node says more.",
            rows(
                "agent_probe",
                {
                    "failed": "last(errors_total)",
                    "hung": "last(stalled_total)",
                    "longest": "max(duration_seconds)",
                },
                "host probe",
            ),
            empty=NO_AGENT,
            columns={
                "host": Column(link=NODE_LINK),
                "failed": Column(steps=high_is_bad(1, 100)),
                "hung": Column(steps=high_is_bad(1, 100)),
            },
            sort="failed",
        ).sized(FULL),
    ]


def _shipping() -> list[Panel]:
    counters = {
        "dropped_points_total": "lost",
        "implausible_total": "implausible",
        "store_errors_total": "attempts that failed",
        "ticks_skipped_total": "ticks left out",
    }
    return [
        timeseries(
            "Spools",
            "Data that waits for the store: on the node with the most, and on the mean node.",
            *_worst_and_mean("spool_bytes"),
            empty=NO_AGENT,
        ).sized(THIRD),
        timeseries(
            "Points stored per second",
            "What the store takes from all agents together. A fall to nothing with growing spools "
            "is a store that is away; nothing is lost until a spool is full.",
            rate("agent", "shipped_points_total", per="host", legend="points"),
            empty=NO_AGENT,
        ).sized(THIRD),
        timeseries(
            "Losses and errors",
            "Points lost, values that were impossible, attempts to ship that failed, ticks left "
            "out: per second, all agents together. All of it should be nothing.",
            *(
                rate("agent", counter, per="host", legend=words)
                for counter, words in counters.items()
            ),
            empty=NO_AGENT,
        ).sized(THIRD),
    ]


def _cost() -> list[Panel]:
    cpu = "non_negative_derivative(first(cpu_seconds), 1s)"
    return [
        timeseries(
            "CPU",
            "Share of one CPU that an agent uses: the dearest and the mean. The budget is a "
            "hundredth; more GPUs, ports and jobs on a node cost more.",
            over_time("agent", cpu, per="host", outer="max(value)", legend="worst"),
            over_time("agent", cpu, per="host", outer="mean(value)", legend="mean"),
            empty=NO_AGENT,
            unit=SHARE,
            steps=high_is_bad(BUDGET_SHARE, 5 * BUDGET_SHARE),
            most=0.0,
        ).sized(HALF),
        timeseries(
            "Memory",
            "Resident memory of an agent: the largest and the mean. The budget is 45 MiB.",
            *_worst_and_mean("rss_bytes"),
            empty=NO_AGENT,
            steps=high_is_bad(47_185_920, 134_217_728),
        ).sized(HALF),
    ]
