"""The catalogue keeps its own rules, and those of the stores that its names go to."""

import re

import pytest

from probes import metrics_page
from probes.catalogue import CATALOGUE, COMMON_TAGS, UNITS, Field, Kind, Measurement

FIELDS = [
    pytest.param(field, id=f"{measurement.name}.{field.name}")
    for measurement in CATALOGUE.values()
    for field in measurement.fields.values()
]
MEASUREMENTS = [pytest.param(each, id=each.name) for each in CATALOGUE.values()]
PLAIN_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # needs no quotes in InfluxQL and SQL

# written out by hand, so that a slip in UNITS shows
UNIT_BY_LAST_WORDS = {
    "per_byte": "FLOP/B",
    "flops_per_second": "FLOP/s",
    "bytes_per_second": "B/s",
    "bits_per_second": "bit/s",
    "milliseconds": "ms since 1970",
    "ratio": "ratio",
    "bytes": "B",
    "watts": "W",
    "joules": "J",
    "celsius": "degC",
    "hertz": "Hz",
    "seconds": "s",
    "total": "count",
    "state": "0 or 1",
    "load": "processes",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_number_is_named_by_its_unit(field: Field) -> None:
    named = {unit for words, unit in UNIT_BY_LAST_WORDS.items() if ends_in(field.name, words)}
    assert named == (set() if field.kind is Kind.TEXT else {field.unit})


def ends_in(name: str, words: str) -> bool:
    return name.endswith(f"_{words}") or (name == words and name != "state")  # a job's, a text


@pytest.mark.parametrize("field", FIELDS)
def test_a_range_is_sane(field: Field) -> None:
    if field.kind is Kind.TEXT:
        return
    assert field.low < field.high < float("inf")
    if field.kind is Kind.COUNTER:
        assert field.low == 0
    if field.unit == "ratio":
        assert field.low == 0
        assert field.high >= 1
    if field.unit == "0 or 1":
        assert (field.low, field.high) == (0, 1)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_says_what_it_means(field: Field) -> None:
    assert field.meaning.strip() == field.meaning != ""
    assert "|" not in field.meaning  # it stands in a Markdown table


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_a_measurement_says_what_it_means(measurement: Measurement) -> None:
    assert measurement.meaning.endswith(".")
    assert measurement.fields
    assert CATALOGUE[measurement.name] is measurement


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_names_are_plain(measurement: Measurement) -> None:
    for name in (measurement.name, *measurement.tags, *measurement.fields):
        assert PLAIN_NAME.fullmatch(name), name


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_tags_and_fields_share_no_name(measurement: Measurement) -> None:
    # InfluxDB 3 refuses a table in which they do, and "time" is the column of every point's time
    tags = [*COMMON_TAGS, *measurement.tags]
    assert len(set(tags)) == len(tags)
    assert not set(tags) & set(measurement.fields)
    assert not {"time", "time_ms"} & {*tags, *measurement.fields}


def test_a_longer_unit_is_looked_for_first() -> None:
    suffixes = list(UNITS)
    hidden = [
        (short, long)
        for position, short in enumerate(suffixes)
        for long in suffixes[position + 1 :]
        if long.endswith(short)
    ]
    assert hidden == []


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.0, "1"), (2.0**64, "2^64"), (65536, "2^16"), (1e18, "1e+18"), (150.0, "150")],
)
def test_the_page_writes_ranges_for_people(value: float, written: str) -> None:
    field = Field("x_total", Kind.GAUGE, "a thing", 0.0, value, "count")
    assert metrics_page.range_of(field) == f"0 to {written}"


def test_the_page_names_every_field() -> None:
    page = metrics_page.page()
    for measurement in CATALOGUE.values():
        section = page.partition(f"\n## {measurement.name}\n")[2].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(measurement.fields)
