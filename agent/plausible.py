"""The range check: nothing that the catalogue calls impossible gets any further."""

from collections.abc import Mapping

from probes.catalogue import CATALOGUE, Kind
from probes.sample import Sample, Value

Ranges = Mapping[str, tuple[float, float] | frozenset[str] | None]
"""Lowest and highest value by field, the words of a text that has few; None for other texts."""

_RANGES: dict[str, Ranges] = {
    measurement.name: {
        field.name: frozenset(field.words) or None
        if field.kind is Kind.TEXT
        else (field.low, field.high)
        for field in measurement.fields.values()
    }
    for measurement in CATALOGUE.values()
}


def plausible(sample: Sample) -> tuple[Sample, int]:
    """Return the sample without its impossible values, and how many those were.

    Impossible are fields that the catalogue does not have, numbers outside their range (NaN
    included), texts where a number belongs and the other way round, words that are not listed.
    """
    ranges = _RANGES.get(sample.measurement, {})
    if _all_fit(ranges, sample.fields):
        return sample, 0
    good = {name: value for name, value in sample.fields.items() if _fits(ranges, name, value)}
    dropped = len(sample.fields) - len(good)
    return sample._replace(fields=good), dropped


def _all_fit(ranges: Ranges, fields: Mapping[str, Value]) -> bool:
    """Tell in one go what is nearly always true: half of the time of a call for each value."""
    for name, value in fields.items():
        bounds = ranges.get(name)
        if not isinstance(bounds, tuple) or isinstance(value, str):
            if not _fits(ranges, name, value):
                return False
        elif not bounds[0] <= value <= bounds[1]:
            return False
    return True


def _fits(ranges: Ranges, name: str, value: Value) -> bool:
    if name not in ranges:
        return False
    bounds = ranges[name]
    if isinstance(value, str):
        return bounds is None or (isinstance(bounds, frozenset) and value in bounds)
    return isinstance(bounds, tuple) and bounds[0] <= value <= bounds[1]
