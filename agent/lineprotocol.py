"""InfluxDB line protocol: what lies in the spool and goes to every store.

Numbers are always written as floats, because InfluxDB refuses a field whose type changes.
Source: InfluxData, "Line protocol reference" (1.x and 2.x agree on what is used here).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from probes.sample import Tags, Value


class Point(NamedTuple):
    """A sample with its time.

    Attributes:
        measurement: name in the catalogue.
        tags: all tags, `cluster` and `host` included, sorted by name.
        fields: at least one.
        time_ms: milliseconds since 1970.

    """

    measurement: str
    tags: Tags
    fields: dict[str, Value]
    time_ms: int


LONGEST_TAG = 1024
"""Characters of a tag value that are kept: InfluxDB refuses series keys over 64 kB."""

LONGEST_TEXT = 16_000
"""Characters of a text that are kept: InfluxDB refuses text fields over 64 kB."""

_TAG_CLEANUP = str.maketrans({"\n": " ", "\r": " ", "\t": " ", "\0": "", "\\": "/"})
_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT_CLEANUP = str.maketrans({"\n": " ", "\r": " ", "\0": ""})
_TEXT_ESCAPES = str.maketrans({"\\": "\\\\", '"': r"\""})

_UNESCAPED_SPACE = re.compile(r"(?<!\\) ")
_UNESCAPED_COMMA = re.compile(r"(?<!\\),")
_UNESCAPED_EQUALS = re.compile(r"(?<!\\)=")
_TAG_ESCAPE = re.compile(r"\\([,= ])")
_TEXT_ESCAPE = re.compile(r'\\(["\\])')
_FIELD = re.compile(r'([^=,"]+)=(?:"((?:[^"\\]|\\.)*)"|([^",]+))(?:,|$)')


def stored_tag(value: str) -> str:
    """Return a tag value as every store keeps it; ask for this one when reading.

    Line ends and tabs become spaces. A backslash becomes a slash: before a comma or another
    backslash InfluxDB 1.x, 2.x and its kin read it differently, and some would cut the tag there.
    """
    kept = value[:LONGEST_TAG].translate(_TAG_CLEANUP)
    return kept if kept.isascii() else _without_surrogates(kept)


def stored_text(value: str) -> str:
    """Return a text field as every store keeps it: one line, not too long."""
    kept = value[:LONGEST_TEXT].translate(_TEXT_CLEANUP)
    return kept if kept.isascii() else _without_surrogates(kept)


def _without_surrogates(text: str) -> str:
    # a file name that is not UTF-8 holds surrogates, which cannot be sent
    return text.encode(errors="replace").decode()


def series_key(measurement: str, tags: Tags) -> str:
    """Return `measurement,tag=value,...`, escaped; tags with an empty value are left out."""
    kept = ((name, stored_tag(value)) for name, value in tags)
    parts = [f",{name}={value.translate(_TAG_ESCAPES)}" for name, value in kept if value]
    return measurement + "".join(parts)


def encode_fields(fields: Iterable[tuple[str, Value]]) -> str:
    """Return `name=value,...`: floats as Python prints them, texts quoted."""
    return ",".join(
        f'{name}="{stored_text(value).translate(_TEXT_ESCAPES)}"'
        if isinstance(value, str)
        else f"{name}={value!r}"
        for name, value in fields
    )


def encode(point: Point) -> str:
    """Return the point as one line, without a line end."""
    return (
        f"{series_key(point.measurement, point.tags)} "
        f"{encode_fields(point.fields.items())} {point.time_ms}"
    )


def parse(text: str) -> Iterator[Point]:
    """Yield the points of lines that `encode` wrote.

    Raises:
        ValueError: a line is not line protocol as `encode` writes it.

    """
    for line in text.split("\n"):
        if line:
            yield parse_line(line)


def parse_line(line: str) -> Point:
    """Return the point of one line that `encode` wrote.

    Raises:
        ValueError: the line is not line protocol as `encode` writes it.

    """
    key, rest = _UNESCAPED_SPACE.split(line, maxsplit=1)
    fields, _, time_ms = rest.rpartition(" ")
    measurement, *tag_parts = _UNESCAPED_COMMA.split(key)
    tags = tuple(_tag(part) for part in tag_parts)
    return Point(measurement, tags, dict(_fields(fields)), int(time_ms))


def _tag(part: str) -> tuple[str, str]:
    name, value = _UNESCAPED_EQUALS.split(part)
    return name, _TAG_ESCAPE.sub(r"\1", value)


def _fields(text: str) -> Iterator[tuple[str, Value]]:
    position = 0
    while position < len(text) or position == 0:
        match = _FIELD.match(text, position)
        if match is None:
            raise ValueError(f"not a field: {text[position : position + 80]!r}")
        name, words, number = match.groups()
        yield name, float(number) if words is None else _TEXT_ESCAPE.sub(r"\1", words)
        position = match.end()
