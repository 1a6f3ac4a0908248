"""The page of all GPUs: which of them are slow, hot or broken."""

from dashboards.dashboard import Dashboard, Row, Variable
from dashboards.expression import quotient, reduced
from dashboards.pages.scope import CLUSTERS, NO_CEILING, NO_GPU, NO_MEMORY_ERRORS, NODE_LINK
from dashboards.panel import (
    FULL,
    THIRD,
    Column,
    Panel,
    bars,
    heatmap,
    high_is_bad,
    low_is_bad,
    stat,
    table,
)
from dashboards.query import CLUSTER, over_time, rows, tag_values, value
from dashboards.units import COUNT, KWH, SHARE

MODEL = f'{CLUSTER} AND "model" =~ /^$model$/'
GROWN = "last({0}) - first({0})"
ONE_DEVICE, ITS_KIND = "host device", "kind dtype model"


def gpus() -> Dashboard:
    """Return the dashboard: slow, hot and broken GPUs stand out."""
    return Dashboard(
        "gpu-fleet",
        "All GPUs of a cluster, held against their kind: slow, hot and broken ones stand out.",
        [
            Row("Fleet", _fleet()),
            Row("Ceilings against their kind", _ceilings()),
            Row("Errors", _errors()),
            Row("Heat and throttling", _heat()),
        ],
        [
            CLUSTERS,
            Variable(
                "model",
                "GPU model",
                "NVIDIA's name of the product.",
                tag_values("gpu", "model", CLUSTER),
                multi=True,
            ),
        ],
        since="now-7d",
    )


def _fleet() -> list[Panel]:
    return [
        stat(
            "GPUs",
            "GPUs of each model that were seen in this time.",
            value(
                "gpu",
                "last(memory_total_bytes)",
                "model",
                per="host gpu",
                outer="count(value)",
                where=MODEL,
            ),
            empty=NO_GPU,
            unit=COUNT,
        ).sized(THIRD),
        stat(
            "Mean utilization",
            "Share of the time shown in which any kernel ran, mean of all GPUs of a model.",
            value("gpu", "mean(utilization_ratio)", "model", where=MODEL),
            empty=NO_GPU,
            steps=low_is_bad(0.2, 0.5),
        ).sized(THIRD),
        stat(
            "Energy",
            "What all GPUs of a model took in the time shown; too low if drivers were loaded anew.",
            value(
                "gpu",
                "(last(energy_joules) - first(energy_joules)) / 3600000",
                "model",
                per="host gpu",
                where=MODEL,
            ),
            empty=NO_GPU,
            unit=KWH,
        ).sized(THIRD),
    ]


def _against_its_kind(title: str, description: str, rate_field: str) -> Panel:
    newest = f"last({rate_field})"
    return bars(
        title,
        description,
        value("ceiling", newest, f"{ONE_DEVICE} {ITS_KIND}"),
        value("ceiling", newest, ITS_KIND, per=ONE_DEVICE, outer="median(value)"),
        reduced("A"),
        reduced("B"),
        quotient("C", "D"),
        empty=NO_CEILING,
        unit=SHARE,
        most=1.2,
        steps=low_is_bad(0.9, 0.95),
        name="${__field.labels.host} ${__field.labels.device} "
        "${__field.labels.kind} ${__field.labels.dtype}",
    ).sized(FULL // 2, 10)


def _ceilings() -> list[Panel]:
    return [
        _against_its_kind(
            "Compute against its kind",
            "Newest measured matrix-product speed of each device, over the median of all devices "
            "of the same model and number format. Below 90 %: a bad card, a power limit, or heat.",
            "flops_per_second",
        ),
        _against_its_kind(
            "Memory, link and disk against their kind",
            "The same for memory, host link, all-reduce and temp disk. A slow link is often a card "
            "that sits in the wrong slot or fell back to fewer lanes.",
            "bytes_per_second",
        ),
        table(
            "Ceilings, newest",
            "What each device reached when its roofs were last measured in the time shown. A wide "
            "spread means that something else ran meanwhile: measure again.",
            rows(
                "ceiling",
                {
                    "FLOP/s": "last(flops_per_second)",
                    "B/s": "last(bytes_per_second)",
                    "spread": "last(spread_ratio)",
                },
                f"{ONE_DEVICE} {ITS_KIND}",
            ),
            empty=NO_CEILING,
            columns={
                "host": Column(link=NODE_LINK),
                "spread": Column(steps=high_is_bad(0.1, 0.3)),
            },
            sort="host",
            descending=False,
        ),
    ]


def _errors() -> list[Panel]:
    red = Column(steps=((None, "green"), (1, "red")))
    return [
        table(
            "Memory errors and Xid events",
            "Since each GPU's driver was loaded, or in the time shown. Uncorrected errors, Xid "
            "events and row remaps that wait for a reset: drain the node. Corrected errors are "
            "harmless, thousands a day not.",
            rows(
                "gpu",
                {
                    "uncorrected": "last(ecc_uncorrected_total)",
                    "Xid": "last(xid_errors_total)",
                    "remap waits": "last(remap_pending_state)",
                    "remapped rows": "last(remapped_rows_total)",
                    "corrected": "last(ecc_corrected_total)",
                    "corrected in this time": GROWN.format("ecc_corrected_total"),
                    "PCIe repeats in this time": GROWN.format("pcie_replays_total"),
                },
                "host gpu model",
                where=MODEL,
            ),
            empty=NO_MEMORY_ERRORS,
            columns={
                "host": Column(link=NODE_LINK),
                **dict.fromkeys(("uncorrected", "Xid", "remap waits"), red),
            },
            sort="uncorrected",
        ),
    ]


def _heat() -> list[Panel]:
    return [
        heatmap(
            "Hottest GPU of each node",
            "Temperature of the hottest GPU, node by node. A row that is hotter than those "
            "around it: fans, filters, or the place in the rack.",
            over_time("gpu", "max(temperature_celsius)", "host", where=MODEL),
            empty=NO_GPU,
            scheme="Turbo",
            least=30,
            most=90,
        ),
        heatmap(
            "Slowed GPUs of each node",
            "Share of the node's GPUs that are slowed, for power or heat. Under full load a power "
            "limit is normal, and then all nodes of a kind look alike: those that differ are worth "
            "a look.",
            over_time("gpu", "mean(throttled_state)", "host", where=MODEL),
            empty=NO_GPU,
            fill="red",
            unit=SHARE,
        ),
    ]
