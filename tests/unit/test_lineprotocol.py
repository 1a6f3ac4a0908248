import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lineprotocol import (
    LONGEST_TAG,
    LONGEST_TEXT,
    Point,
    encode,
    encode_fields,
    parse,
    parse_line,
    series_key,
    stored_tag,
    stored_text,
)

ODD = "a,= \"\\\n\r\t\0\x0b\x85\u2028é💡\udcff#'"
HOSTILE = st.text(alphabet=st.sampled_from(ODD), max_size=12)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TAGS = st.dictionaries(NAMES, HOSTILE | st.text(), max_size=4).map(
    lambda tags: tuple(sorted(tags.items()))
)
FIELDS = st.dictionaries(NAMES, NUMBERS | HOSTILE | st.text(), min_size=1, max_size=4)
POINTS = st.builds(Point, NAMES, TAGS, FIELDS, st.integers(0, 1 << 43))


def as_stored(point: Point) -> Point:
    tags = tuple((name, stored_tag(value)) for name, value in point.tags if stored_tag(value))
    fields = {
        name: stored_text(value) if isinstance(value, str) else value
        for name, value in point.fields.items()
    }
    return point._replace(tags=tags, fields=fields)


@given(st.lists(POINTS, max_size=4))
def test_parse_gives_back_what_encode_wrote(points: list[Point]) -> None:
    text = "".join(encode(point) + "\n" for point in points)
    assert list(parse(text)) == [as_stored(point) for point in points]
    assert text.encode().count(b"\n") == len(points)


@given(HOSTILE)
def test_a_stored_tag_is_stored_as_it_is(value: str) -> None:
    assert stored_tag(stored_tag(value)) == stored_tag(value)


@given(st.text(alphabet='a=, "\\1.', max_size=40))
def test_anything_else_is_a_value_error_or_a_point(line: str) -> None:
    try:
        point = parse_line(line)
    except ValueError:
        return
    assert point.fields


def test_encode_writes_the_documented_line() -> None:
    point = Point("gpu", (("cluster", "a b"), ("host", "n=1,x")), {"w": 1.5, "t": 'say "hi" \\'}, 7)
    assert encode(point) == r'gpu,cluster=a\ b,host=n\=1\,x w=1.5,t="say \"hi\" \\" 7'


def test_tags_lose_what_would_break_the_line() -> None:
    tags = (("a", ""), ("b", "\0"), ("c", "x\ny"), ("d", "DOMAIN\\user\\"))
    assert series_key("m", tags) == r"m,c=x\ y,d=DOMAIN/user/"


def test_long_values_are_cut() -> None:
    assert len(stored_tag("x" * 5000)) == LONGEST_TAG
    assert len(stored_text("x" * 50_000)) == LONGEST_TEXT


def test_numbers_are_exact() -> None:
    assert encode_fields([("a", 0.1), ("b", 1e300), ("c", -0.0)]) == "a=0.1,b=1e+300,c=-0.0"


@pytest.mark.parametrize(
    "line",
    ["", "m", "m 1", "m  1", "m a= 1", "m a=x 1", "m a=1 x", "m,t a=1 1", 'm a="x 1', 'm a="x"y 1'],
)
def test_a_broken_line_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are Python's own
        parse_line(line)
