"""The page of the reference phases, and rooflines."""

from dashboards.dashboard import Dashboard, Row, Variable
from dashboards.pages.scope import (
    CLUSTERS,
    HOSTS,
    NO_CEILING,
    NO_COUNTERS,
    NO_PHASE,
    NODE_LINK,
)
from dashboards.panel import (
    BOUND_COLORS,
    HALF,
    Column,
    Panel,
    roofline,
    table,
    timeseries,
)
from dashboards.query import CLUSTER, over_time, points, rows, tag_values, union
from dashboards.units import FLOPS, INTENSITY, SHARE, TOKENS_PER_SECOND

REFERENCE = f'{HOSTS} AND "phase" =~ /^$phase$/ AND "workload" <> \'user\''
COUNTED = '"compute_ratio" > 0 AND "memory_ratio" > 0'

ROOFS = {
    "roof": "flops_per_second / compute_ratio",
    "slope": "moved_bytes_per_second / memory_ratio",
}
"""A phase's fraction of a roof tells how high the roof is: of compute, and of memory."""
RIDGE = "max(roof) / max(slope)"

ACROSS, RELATIVE = "intensity", "intensity over ridge"
MEMORY_ROOF, COMPUTE_ROOF = "memory roof", "compute roof"


def phases() -> Dashboard:
    """Return the dashboard: what this cluster's devices reach, phase by phase."""
    return Dashboard(
        "phases",
        "What training, fine-tuning, prefill and decode reach on each node, and which roof they "
        "are under: what to hold your own job against.",
        [
            Row("What was reached", [phase_table(REFERENCE), phase_roofline(REFERENCE), _speed()]),
            Row("Over time", _history()),
            Row("Ceilings", _ceilings()),
        ],
        [
            CLUSTERS,
            Variable(
                "host",
                "Nodes",
                "Nodes on which reference phases ran.",
                tag_values("phase", "host", CLUSTER),
                multi=True,
            ),
            Variable(
                "phase",
                "Phases",
                "prefill, decode, train.forward and so on.",
                tag_values("phase", "phase", CLUSTER),
                multi=True,
            ),
        ],
        since="now-30d",
    )


def phase_table(where: str) -> Panel:
    """Return the phases of a job, or of some nodes, with their labels."""
    return table(
        "Phases",
        "What each phase reached of this very device's own roofs, and the label that follows. A "
        "phase at 70 % or more of a roof is well written; what is far under all has room.",
        rows(
            "phase",
            {
                "host": "host",
                "workload": "workload",
                "phase": "phase",
                "bound": "bound",
                "of compute": "compute_ratio",
                "of memory": "memory_ratio",
                "time": "duration_seconds",
                "FLOP/s": "flops_per_second",
                "B/s": "moved_bytes_per_second",
                "FLOP/B": "intensity_flops_per_byte",
                "numbers": "dtype",
                "why": "explanation",
                "device": "device",
            },
            where=where,
        ),
        empty=NO_PHASE,
        columns={
            "host": Column(link=NODE_LINK),
            "bound": Column(colors=BOUND_COLORS),
            "of compute": Column(most=1, steps=((None, "blue"),)),
            "of memory": Column(most=1, steps=((None, "orange"),)),
        },
        sort="Time",
        descending=False,
        time=True,
    )


def phase_roofline(where: str) -> Panel:
    """Return the roofline of phases: intensity against speed, under the roofs of their devices."""
    roofed = f'{where} AND {COUNTED} AND "ridge_flops_per_byte" > 0'
    return roofline(
        "Roofline of the phases",
        "Speed of each phase over its arithmetic intensity, under the highest roofs that were "
        "measured on the devices shown. Left of the bend memory bandwidth is the limit, right of "
        "it arithmetic; the distance to the roof above is what can still be won.",
        rows(
            "phase",
            {
                ACROSS: "intensity_flops_per_byte",
                "reached": "flops_per_second",
                "phase": "phase",
                "host": "host",
            },
            where=roofed,
        ),
        union(
            "phase",
            [
                {ACROSS: f"{RIDGE} * 0.01", MEMORY_ROOF: "max(roof) * 0.01"},
                {ACROSS: RIDGE, MEMORY_ROOF: "max(roof)"},
            ],
            of=ROOFS,
            where=roofed,
        ),
        union(
            "phase",
            [
                {ACROSS: RIDGE, COMPUTE_ROOF: "max(roof)"},
                {ACROSS: f"{RIDGE} * 100", COMPUTE_ROOF: "max(roof)"},
            ],
            of=ROOFS,
            where=roofed,
        ),
        empty=NO_PHASE,
        across=INTENSITY,
        unit=FLOPS,
        lines=(MEMORY_ROOF, COMPUTE_ROOF),
    )


def counted_roofline(where: str) -> Panel:
    """Return the roofline of GPUs by their counters, relative to their own roofs."""
    one = "mean(compute_ratio) * 0 + 1"
    hundredth = "mean(compute_ratio) * 0 + 0.01"
    hundred = "mean(compute_ratio) * 0 + 100"
    return roofline(
        "Roofline of the GPUs",
        "Each point is a GPU in an interval: the fraction of its compute roof that it reached, "
        "over its arithmetic intensity, 1 where the two roofs meet. Works for every job on GPUs "
        "with counters, without any change to the program. Points far below both roofs wait.",
        points(
            "bound",
            {
                RELATIVE: "mean(compute_ratio) / mean(memory_ratio)",
                "reached": "mean(compute_ratio)",
            },
            "host gpu",
            where=where,
            only=f'"{RELATIVE}" > 0 AND "reached" > 0',
        ),
        union(
            "bound",
            [{RELATIVE: hundredth, MEMORY_ROOF: hundredth}, {RELATIVE: one, MEMORY_ROOF: one}],
            where=where,
        ),
        union(
            "bound",
            [{RELATIVE: one, COMPUTE_ROOF: one}, {RELATIVE: hundred, COMPUTE_ROOF: one}],
            where=where,
        ),
        empty=NO_COUNTERS,
        across="none",
        unit=SHARE,
        lines=(MEMORY_ROOF, COMPUTE_ROOF),
    )


def _speed() -> Panel:
    return timeseries(
        "Tokens per second",
        "Speed of each phase on each node. Compare nodes of the same kind: one that is slower has "
        "a reason.",
        over_time(
            "phase", "mean(tokens_total) / mean(duration_seconds)", "host phase", where=REFERENCE
        ),
        empty=NO_PHASE,
        unit=TOKENS_PER_SECOND,
        points=True,
    ).sized(HALF, 12)


def _history() -> list[Panel]:
    return [
        timeseries(
            "Of the compute roof",
            "Fraction of the measured compute roof, run after run. Prefill should be at 80 % or "
            "more and training at 70 %; a fall on one node is the node, on all a new version.",
            over_time("phase", "mean(compute_ratio)", "host phase", where=REFERENCE),
            empty=NO_PHASE,
            points=True,
        ),
        timeseries(
            "Of the memory roof",
            "Fraction of the measured memory roof, run after run. Decode should be at 80 % or "
            "more.",
            over_time("phase", "mean(memory_ratio)", "host phase", where=REFERENCE),
            empty=NO_PHASE,
            points=True,
        ),
    ]


def _ceilings() -> list[Panel]:
    by = "host device kind dtype"
    rates = {
        "Compute ceilings": ("flops_per_second", "Matrix products, by number format."),
        "Memory, link and disk ceilings": ("bytes_per_second", "Copies and reads, by kind."),
    }
    return [
        timeseries(
            title,
            f"What each device reached when its roofs were measured. {words} They change with "
            "drivers, clocks and temperature; one that sinks slowly is worth a look.",
            over_time("ceiling", f"mean({rate})", by, where=HOSTS),
            empty=NO_CEILING,
            points=True,
        )
        for title, (rate, words) in rates.items()
    ]
