"""What pictures of dashboards are made of: numbers, places, colours and letters."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from dashboards.dashboard import Dashboard
from dashboards.draw import axis
from dashboards.draw.colors import DARK, LIGHT, Theme, faded, stepped
from dashboards.draw.fields import Look, look_of
from dashboards.draw.formats import FORMATS, formatted
from dashboards.draw.page import box_of
from dashboards.draw.sheet import WIDTH, fitted, width_of, wrapped
from dashboards.draw.small import EXACT, small
from dashboards.expand import View
from dashboards.pages import all_dashboards
from dashboards.panel import (
    BOUND_COLORS,
    Column,
    Panel,
    high_is_bad,
    table,
)
from dashboards.query import rows
from dashboards.units import AGO, ELAPSED, KWH, MOMENT

BEGIN_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
MINUTE_MS = 60_000
VIEW = View(BEGIN_MS, BEGIN_MS + 10 * MINUTE_MS, {"cluster": "c"})
WORDS = "What it is, and when to worry about it, in sentences."
EMPTY = "No such hardware: a card of that kind would be needed in the node."
ALL_PANELS = [panel for dashboard in all_dashboards() for _, panel in dashboard.panels()]


def at(minute: float) -> float:
    return BEGIN_MS + minute * MINUTE_MS


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        (0.801, "percentunit", "80.1%"),
        (0.5, "percentunit", "50%"),
        (8 * 2**30, "bytes", "8 GiB"),
        (1.68 * 2**30, "bytes", "1.68 GiB"),
        (1023, "bytes", "1023 B"),
        (1.5e6, "Bps", "1.50 MB/s"),
        (0, "Bps", "0 B/s"),
        (400e9, "bps", "400 Gb/s"),
        (690, "watt", "690 W"),
        (1.2e6, "joule", "1.20 MJ"),
        (1_980_000_000, "hertz", "1.98 GHz"),
        (66.5, "celsius", "66.5 °C"),
        (187.3e9, "flops", "187 GFLOPS"),
        (0.0004, "s", "400 µs"),
        (0.25, "s", "250 ms"),
        (95, "s", "1.58 min"),
        (7200, "s", "2 hour"),
        (0, "s", "0 s"),
        (3671, ELAPSED, "01:01:11"),
        (90_061, ELAPSED, "1 d 01:01:01"),
        (0.205, KWH, "205 Wh"),
        (12.3, KWH, "12.3 kWh"),
        (21_300, "short", "21.3 K"),
        (1_500_000, "short", "1.50 Mil"),
        (30, "cps", "30 c/s"),
        (2, "suffix: cores", "2 cores"),
        (BEGIN_MS, MOMENT, "2023-11-14 22:13:20"),
        (at(0), AGO, "10 minutes ago"),
        (at(9.5), AGO, "a few seconds ago"),
        (at(-60), AGO, "an hour ago"),
        (0.333, "", "0.333"),
        (-2, "none", "-2"),
    ],
)
def test_numbers_are_written_as_grafana_writes_them(
    number: float, unit: str, expected: str
) -> None:
    assert formatted(number, unit, now_ms=VIEW.until_ms) == expected


def test_every_unit_of_the_dashboards_is_known() -> None:
    names = {name for panel in ALL_PANELS for name in names_of(panel)}
    used = {look_of(panel, name).unit for panel in ALL_PANELS for name in [*names_of(panel), ""]}
    assert len(names) > 50
    plain = {"", "none", AGO, MOMENT}
    assert {unit for unit in used - plain if not unit.startswith("suffix:")} <= FORMATS.keys()


def names_of(panel: Panel) -> list[str]:
    return [name for query in panel.queries for name in getattr(query, "units", {})]


@pytest.mark.parametrize(
    ("most", "unit", "expected"),
    [
        (1.0, "percentunit", ["0%", "25%", "50%", "75%", "100%"]),
        (24 * 2**30, "bytes", ["0 B", "8 GiB", "16 GiB", "24 GiB"]),
        (1.6e9, "Bps", ["0 B/s", "500 MB/s", "1 GB/s", "1.5 GB/s"]),
        (3.2, "suffix: cores", ["0 cores", "1 cores", "2 cores", "3 cores"]),
    ],
)
def test_an_axis_has_round_numbers_and_no_needless_digits(
    most: float, unit: str, expected: list[str]
) -> None:
    assert [axis.label(step, unit) for step in axis.steps(most, unit, 4)] == expected


def test_the_labels_of_time_are_round_and_do_not_stand_out_at_the_end() -> None:
    moments, labels = axis.moments(at(0), at(10), 300)
    # 60 pixels for each: a label each two minutes would have 60, and takes 38 and a gap
    assert labels == ["22:14", "22:16", "22:18", "22:20", "22:22"]
    assert [moment - BEGIN_MS for moment in moments] == [
        40_000 + 2 * MINUTE_MS * number for number in range(5)
    ]
    # an end a second after a label would cut it in half
    assert axis.moments(at(0), moments[-1] + 1000, 300)[1][-1] == "22:20"
    # of a minute, 100 pixels for each quarter
    seconds = axis.moments(at(0), at(1), 400)[1]
    assert seconds == ["22:13:30", "22:13:45", "22:14:00", "22:14:15"]


def test_powers_of_ten_surround_what_is_drawn() -> None:
    assert axis.decades([0.2, 30.0]) == [0.1, 1.0, 10.0, 100.0]
    assert axis.decades([1.0, 100.0]) == [1.0, 10.0, 100.0]
    assert axis.decades([5.0]) == [1.0, 10.0]


@pytest.mark.parametrize("dashboard", all_dashboards(), ids=lambda each: each.page)
def test_panels_lie_on_the_page_and_not_on_each_other(dashboard: Dashboard) -> None:
    boxes = [box_of(placed.place) for placed in dashboard.placed()]
    assert all(box.left >= 0 and box.right <= WIDTH for box in boxes)
    for one, other in combinations(boxes, 2):
        beside = one.right < other.left or other.right < one.left
        assert beside or one.bottom < other.top or other.bottom < one.top


def test_half_a_page_is_half_as_wide_as_the_page_but_for_the_gap() -> None:
    whole, half = (box_of({"x": 0, "y": 0, "w": w, "h": 8}) for w in (24, 12))
    right = box_of({"x": 12, "y": 0, "w": 12, "h": 8})
    assert half.left == whole.left
    assert right.right == pytest.approx(whole.right)
    assert right.left - half.right == pytest.approx(8)
    assert half.height == 8 * 30 + 7 * 8  # as Grafana's grid has it


@pytest.mark.parametrize(
    ("number", "color"),
    [(0.0, "green"), (0.79, "green"), (0.8, "orange"), (0.95, "red")],
)
def test_thresholds_give_a_value_its_colour(number: float, color: str) -> None:
    assert stepped(number, high_is_bad(0.8, 0.9)) == color


@pytest.mark.parametrize(("theme", "blue"), [(DARK, "#5794F2"), (LIGHT, "#3274D9")])
def test_every_bound_has_a_colour_of_its_own_on_both_pages(theme: Theme, blue: str) -> None:
    colors = {bound: to_hex(theme.color(name)) for bound, name in BOUND_COLORS.items()}
    assert len(set(colors.values())) == len(BOUND_COLORS)
    assert colors["compute"] == blue.lower()


def test_a_faded_colour_lies_between_it_and_what_is_behind() -> None:
    assert faded("#ff0000", 0.5, "#000000") == "#800000"
    assert faded("#ff8800", 1.0, "#123456") == "#ff8800"


def test_schemes_of_heatmaps_stand_out_from_the_page_where_values_are_high() -> None:
    def light(theme_color: tuple[float, ...]) -> float:
        return sum(theme_color[:3])

    assert light(DARK.scheme("Blues")(1.0)) > light(DARK.scheme("Blues")(0.0))
    assert light(LIGHT.scheme("Blues")(1.0)) < light(LIGHT.scheme("Blues")(0.0))
    assert to_hex(DARK.shades("green")(0.0)) == DARK.panel.lower()
    assert to_hex(DARK.shades("green")(1.0)) == DARK.color("green").lower()


def test_overrides_fit_by_name_and_by_pattern() -> None:
    columns = {
        "used": Column(most=1, steps=high_is_bad(0.8, 0.9)),
        "state": Column(colors={"FAILED": "red"}, link="/d/x"),
    }
    panel = table("t", WORDS, rows("job", {"state": "state"}), empty=EMPTY, columns=columns)
    used, state, other = (look_of(panel, name) for name in ("used", "state", "other"))
    assert (used.cell, used.most, used.missing) == ("gauge", 1.0, "-")
    assert used.color(0.85, DARK) == DARK.color("orange")
    assert (state.linked, state.color("FAILED", DARK)) == (True, DARK.color("red"))
    assert other == Look(missing="-")
    assert look_of(panel, "Time").hidden


@pytest.mark.parametrize("width", [20.0, 60.0, 200.0])
def test_words_are_cut_to_fit(width: float) -> None:
    words = "a legend that is rather long"
    shown = fitted(words, 12, width)
    assert width_of(shown, 12) <= width
    assert shown == words or (shown.endswith("…") and words.startswith(shown[:-1]))
    assert width_of(words, 12) <= 200 < width_of(words * 2, 12)


def test_words_are_wrapped_and_none_is_lost() -> None:
    lines = wrapped(EMPTY, 12, 150)
    assert len(lines) > 2
    assert " ".join(lines) == EMPTY
    assert all(width_of(line, 12) <= 150 for line in lines)


def gradient() -> Iterator[tuple[int, int, int]]:
    """Yield 10,000 pixels: two flat areas, and 500 colours."""
    yield from [(17, 18, 23)] * 5000
    yield from [(24, 27, 31)] * 4500
    yield from ((number // 2, 255 - number // 2, number % 256) for number in range(500))


def test_a_small_picture_keeps_the_colours_of_its_areas(tmp_path: Path) -> None:
    image = Image.fromarray(numpy.array(list(gradient()), numpy.uint8).reshape(100, 100, 3))
    flat = small(image)
    flat.save(tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as read:
        assert read.mode == "P"
        again = read.convert("RGB")
    colors = again.getcolors()
    assert colors is not None
    assert EXACT < len(colors) <= 256
    assert {(5000, (17, 18, 23)), (4500, (24, 27, 31))} <= set(colors)
    assert numpy.abs(numpy.asarray(image).astype(int) - numpy.asarray(again)).max() < 40
