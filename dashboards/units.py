"""What Grafana calls the catalogue's units.

Source: grafana/grafana, packages/grafana-data/src/valueFormats/categories.ts.
"""

import re

from probes.catalogue import Kind, Measurement

SHARE = "percentunit"
"""A ratio, shown in percent."""

COUNT = "short"
MOMENT = "dateTimeAsIso"
AGO = "dateTimeFromNow"
SECONDS = "s"
ELAPSED = "dtdhms"
KWH = "kwatth"
FLOPS = "flops"
TOKENS_PER_SECOND = "suffix:tokens/s"
CORES = "suffix:cores"
INTENSITY = "suffix:FLOP/B"

UNITS = {
    "ratio": SHARE,
    "B": "bytes",
    "W": "watt",
    "J": "joule",
    "degC": "celsius",
    "Hz": "hertz",
    "s": SECONDS,
    "B/s": "Bps",
    "bit/s": "bps",
    "FLOP/s": "flops",
    "FLOP/B": INTENSITY,
    "count": COUNT,
    "processes": COUNT,
    "0 or 1": COUNT,
    "ms since 1970": MOMENT,
}
PER_SECOND = {"B": "Bps", "J": "watt", "s": SHARE, "count": "cps"}

_KEEPS_UNIT = {
    *("mean", "last", "first", "max", "min", "median", "sum", "spread"),
    *("non_negative_difference",),
}
_ONE_FIELD = re.compile(r"(?P<calls>(?:\w+\()*)(?P<field>\w+)\)*(?:, 1s\))?")


def unit_of(measurement: Measurement, expression: str) -> str:
    """Return Grafana's unit of an expression over one field, "" if it is a text or not so simple.

    `mean(used_bytes)` is in bytes, `non_negative_derivative(first(used_bytes), 1s)` in bytes per
    second, `count(used_bytes)` a number; of `last(used_bytes) / last(total_bytes)` nothing is said.
    """
    match = _ONE_FIELD.fullmatch(expression)
    field = measurement.fields.get(match["field"]) if match else None
    if match is None or field is None or field.kind is Kind.TEXT:
        return COUNT if expression.startswith("count(") else ""
    calls = set(match["calls"].split("(")) - {""}
    if "count" in calls:
        return COUNT
    if calls - _KEEPS_UNIT == {"non_negative_derivative"}:
        return PER_SECOND[field.unit]
    return "" if calls - _KEEPS_UNIT else UNITS[field.unit]
