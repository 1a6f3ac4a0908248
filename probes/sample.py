"""A sample: what a probe saw, without the time. The tick gives the time."""

from collections.abc import Mapping
from typing import NamedTuple

Value = float | str
"""A number (always a float: an int would be a field type conflict in InfluxDB) or a text."""

Tags = tuple[tuple[str, str], ...]
"""Tag names and values, sorted by name. A tuple, so that it can be a key."""


class Sample(NamedTuple):
    """One measurement of one thing.

    Attributes:
        measurement: a name in `probes.catalogue.CATALOGUE`.
        tags: the measurement's own tags; `cluster` and `host` are added by the agent.
        fields: values by field name, units as the catalogue says. What could not be read is absent.

    """

    measurement: str
    tags: Tags
    fields: Mapping[str, Value]


def tags(**values: str) -> Tags:
    """Return tags sorted by name, as `Sample` wants them."""
    return tuple(sorted(values.items()))
