"""Write the catalogue as a page for people: `python -m probes.metrics_page > probes/METRICS.md`."""

import math
import sys
from collections.abc import Iterator

from probes.catalogue import CATALOGUE, COMMON_TAGS, Database, Field, Kind, Measurement

INTRODUCTION = f"""\
# What rooflight measures

Made from `probes/catalogue.py` by `make format`: change that, not this.

Every point carries the tags {" and ".join(f"`{tag}`" for tag in COMMON_TAGS)}, and its own below.
A field's name ends in its unit, and every number is a float. A gauge goes up and down; a counter
only grows until its source restarts, so its rate is computed where it is read. A value outside
its range is not written but counted, in `implausible_total` of `agent`. A field that this node
cannot tell is absent.
"""

LIVES_IN = {
    Database.METRICS: "the database of metrics",
    Database.JOBS: "the database of jobs, kept for years",
}


def page() -> str:
    """Return the whole page, Markdown."""
    sections = [_section(measurement) for measurement in CATALOGUE.values()]
    return "\n".join([INTRODUCTION, _contents(), *sections])


def _contents() -> str:
    lines = [f"- [{each.name}](#{each.name}): {each.meaning}" for each in CATALOGUE.values()]
    return "\n".join(lines) + "\n"


def _section(measurement: Measurement) -> str:
    return "\n".join(
        [
            f"## {measurement.name}\n",
            f"{measurement.meaning}\n",
            f"Tags: {_names(measurement.tags)}. In {LIVES_IN[measurement.database]}.\n",
            *_table(measurement),
            "",
        ]
    )


def _names(tags: tuple[str, ...]) -> str:
    return ", ".join(f"`{tag}`" for tag in tags) or "none of its own"


def _table(measurement: Measurement) -> Iterator[str]:
    yield "| field | unit | kind | range | meaning |"
    yield "|---|---|---|---|---|"
    for field in measurement.fields.values():
        cells = (f"`{field.name}`", field.unit, field.kind, range_of(field), field.meaning)
        yield f"| {' | '.join(cells)} |"


def range_of(field: Field) -> str:
    """Return the plausible range; powers of two as such, because nobody knows them by heart."""
    if field.kind is Kind.TEXT:
        return ""
    return f"{field.low:g} to {_number(field.high)}"


def _number(value: float) -> str:
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 and value >= 2**16 else f"{value:g}"


if __name__ == "__main__":
    sys.stdout.write(page())
