"""The range check: nothing that the catalogue calls impossible gets any further."""

from probes.catalogue import CATALOGUE, Kind
from probes.sample import Sample, Value

_RANGES: dict[str, dict[str, tuple[float, float] | None]] = {
    measurement.name: {
        field.name: None if field.kind is Kind.TEXT else (field.low, field.high)
        for field in measurement.fields.values()
    }
    for measurement in CATALOGUE.values()
}


def plausible(sample: Sample) -> tuple[Sample, int]:
    """Return the sample without its impossible values, and how many those were.

    Impossible are fields that the catalogue does not have, numbers outside their range (NaN
    included), texts where a number belongs, and the other way round.
    """
    ranges = _RANGES.get(sample.measurement, {})
    good = {name: value for name, value in sample.fields.items() if _fits(ranges, name, value)}
    dropped = len(sample.fields) - len(good)
    return (sample._replace(fields=good), dropped) if dropped else (sample, 0)


def _fits(ranges: dict[str, tuple[float, float] | None], name: str, value: Value) -> bool:
    if name not in ranges:
        return False
    bounds = ranges[name]
    if bounds is None or isinstance(value, str):
        return bounds is None and isinstance(value, str)
    return bounds[0] <= value <= bounds[1]
