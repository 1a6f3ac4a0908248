"""Each kind of panel, and a whole page, drawn from answers that a test lays out."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from PIL import Image

from dashboards.dashboard import Annotation, Dashboard, Row, Variable
from dashboards.draw.colors import DARK, faded
from dashboards.draw.page import DRAWERS, Picture, draw
from dashboards.expand import View
from dashboards.frames import Series
from dashboards.pages import all_dashboards
from dashboards.panel import (
    BOUND_COLORS,
    FULL,
    Column,
    Panel,
    bars,
    heatmap,
    high_is_bad,
    roofline,
    stat,
    table,
    timeline,
    timeseries,
)
from dashboards.query import over_time, rows, tag_values, value
from probes.catalogue import Database

BEGIN_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
MINUTE_MS = 60_000
VIEW = View(BEGIN_MS, BEGIN_MS + 10 * MINUTE_MS, {"cluster": "c"})
WORDS = "What it is, and when to worry about it, in sentences."
EMPTY = "No such hardware: a card of that kind would be needed in the node."
ALL_PANELS = [panel for dashboard in all_dashboards() for _, panel in dashboard.panels()]


def at(minute: float) -> float:
    return BEGIN_MS + minute * MINUTE_MS


def series(*values: float | str | None, **tags: str) -> Series:
    """Return a series with a value each minute."""
    return Series(tags, ["time", "v"], [[at(i), each] for i, each in enumerate(values)])


def drawn(*panels: Panel, answer: Sequence[Series]) -> Picture:
    """Return a page of panels that all get the same answer."""

    def ask(database: Database, query: str) -> Sequence[Series]:
        return answer

    return draw(Dashboard("job", WORDS, [Row("Row", panels)], []), VIEW, ask)


def texts(picture: Picture, title: str) -> list[str]:
    """Return what stands on a panel, beside its axes."""
    found = cast(list[Text], picture.figure.findobj(Text))
    return [text.get_text() for text in found if text.get_gid() == title]


def rights(line: Line2D) -> list[float]:
    """Return the horizontal places of a line's points."""
    return [float(each) for each in numpy.asarray(line.get_xdata(), float)]


def ups(line: Line2D) -> list[float]:
    """Return the vertical places of a line's points."""
    return [float(each) for each in numpy.asarray(line.get_ydata(), float)]


def axes_of(picture: Picture, title: str) -> list[Axes]:
    return [axes for axes in picture.figure.axes if axes.get_gid() == title]


def test_every_kind_of_panel_that_is_used_has_a_drawer() -> None:
    kinds = {panel.kind for panel in ALL_PANELS}
    assert len(kinds) == 7
    assert kinds <= DRAWERS.keys()


@pytest.mark.parametrize("dashboard", all_dashboards(), ids=lambda each: each.page)
def test_a_panel_without_answers_says_what_would_fill_it(dashboard: Dashboard) -> None:
    picture = draw(dashboard, VIEW, lambda database, query: [])
    panels = [panel for _, panel in dashboard.panels()]
    assert [shown.panel for shown in picture.drawn] == panels
    for panel in panels:
        title = panel.title.replace("$jobid", "")
        assert panel.empty in " ".join(texts(picture, title)), panel.title


def test_lines_have_the_answers_values_and_the_legends_names() -> None:
    query = over_time("gpu", "mean(power_watts)", "host")
    panel = timeseries("Power", WORDS, query, empty=EMPTY)
    answer = [series(100.0, 200.0, None, 300.0, host="a"), series(50.0, 50.0, host="b")]
    picture = drawn(panel, answer=answer)
    (axes,) = axes_of(picture, "Power")
    one, other = axes.get_lines()
    assert ups(one) == [100.0, 200.0, 300.0]  # drawn over a short gap
    assert rights(one) == [at(0), at(1), at(3)]
    assert ups(other) == [50.0, 50.0]
    assert one.get_color() == DARK.color("green")
    assert texts(picture, "Power") == ["Power", "a", "b"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["0 W", "100 W", "200 W", "300 W"]


def test_a_long_silence_is_a_gap_in_the_line() -> None:
    panel = timeseries("Power", WORDS, over_time("gpu", "mean(power_watts)"), empty=EMPTY)
    silent = series(1.0, 2.0, *[None] * 6, 3.0)
    (axes,) = axes_of(drawn(panel, answer=[silent]), "Power")
    assert [ups(line) for line in axes.get_lines()] == [[1.0, 2.0], [3.0]]


def test_a_long_legend_says_how_many_series_it_does_not_name() -> None:
    query = over_time("gpu", "mean(power_watts)", "host")
    panel = timeseries("Power", WORDS, query, empty=EMPTY)
    answer = [series(1.0, 2.0, host=f"node{number:03}") for number in range(100)]
    picture = drawn(panel, answer=answer)
    shown = texts(picture, "Power")
    named = [text for text in shown if text.startswith("node")]
    assert 3 < len(named) < 60
    assert named == [f"node{number:03}" for number in range(len(named))]
    assert f"and {100 - len(named)} more" in shown
    (axes,) = axes_of(picture, "Power")
    assert len(axes.get_lines()) == 100


def test_stacked_shares_reach_the_top() -> None:
    queries = [over_time("bound", f"sum({name}_seconds)", legend=name) for name in ("link", "idle")]
    panel = timeseries(
        "Bounds", WORDS, *queries, empty=EMPTY, stacking="percent", colors=BOUND_COLORS
    )
    # both queries get the same answer: each has a half
    picture = drawn(panel, answer=[series(3.0, 6.0, 0.0)])
    (axes,) = axes_of(picture, "Bounds")
    link, idle = axes.get_lines()
    assert ups(link) == [0.5, 0.5]  # and nothing where all is nothing
    assert ups(idle) == [1.0, 1.0]
    assert (link.get_color(), idle.get_color()) == (DARK.color("purple"), "#8e8e8e")
    assert axes.get_ylim() == (0, 1)


def test_thresholds_are_dashed_lines_where_the_axis_reaches_them() -> None:
    query = over_time("gpu", "max(temperature_celsius)")
    panel = timeseries("Heat", WORDS, query, empty=EMPTY, steps=high_is_bad(80, 88))
    (axes,) = axes_of(drawn(panel, answer=[series(70.0, 81.0)]), "Heat")
    limits = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [ups(line) for line in limits] == [[80, 80]]


def test_one_number_is_large_and_coloured_by_its_threshold() -> None:
    panel = stat(
        "Used",
        WORDS,
        value("gpu", "mean(utilization_ratio)"),
        empty=EMPTY,
        steps=high_is_bad(0.5, 0.9),
    )
    picture = drawn(panel, answer=[series(0.612)])
    assert texts(picture, "Used") == ["Used", "61.2%"]
    (number,) = picture.figure.findobj(
        lambda each: isinstance(each, Text) and "%" in each.get_text()
    )
    assert cast(Text, number).get_color() == DARK.color("orange")
    assert cast(Text, number).get_fontproperties().get_size_in_points() > 20


def test_several_numbers_have_their_names_below() -> None:
    query = value("gpu", "mean(power_watts)", "host")
    picture = drawn(stat("P", WORDS, query, empty=EMPTY), answer=[series(5.0, host="a")] * 2)
    assert texts(picture, "P") == ["P", "5 W", "a", "5 W", "a"]


def table_of(count: int) -> tuple[Panel, list[Series]]:
    """Return a table of disks and as many rows, the fullest last."""
    query = rows("tempdisk", {"used": "last(used_bytes)"}, "host")
    columns = {"host": Column(link="/d/node")}
    panel = table("Disks", WORDS, query, empty=EMPTY, columns=columns, sort="used")
    answers = [
        Series({"host": f"n{number}"}, ["time", "used"], [[at(0), 2.0**20 * number]])
        for number in range(count)
    ]
    return panel, answers


def test_a_table_is_sorted_and_its_cells_have_units() -> None:
    panel, answers = table_of(3)
    shown = texts(drawn(panel, answer=answers), "Disks")
    assert shown == ["Disks", "host", "n2", "n1", "n0", "used", "2 MiB", "1 MiB", "0 B"]


def test_a_long_table_says_how_many_rows_it_does_not_show() -> None:
    panel, answers = table_of(20)
    shown = texts(drawn(panel, answer=answers), "Disks")
    hosts = [text for text in shown if text.startswith("n")]
    assert hosts == [f"n{number}" for number in range(19, 19 - len(hosts), -1)]
    assert shown[-1] == f"{20 - len(hosts)} more rows: scroll"


def test_a_table_that_is_too_wide_says_how_many_columns_it_does_not_show() -> None:
    columns = {f"number {index}": "last(used_bytes)" for index in range(30)}
    panel = table("Disks", WORDS, rows("tempdisk", columns), empty=EMPTY)
    row = [at(0), *[1.5 * 2**30] * 30]
    shown = texts(drawn(panel, answer=[Series({}, ["time", *columns], [row])]), "Disks")
    kept = shown.count("1.50 GiB")
    assert 5 < kept < 30
    assert shown[-1] == f"{30 - kept} more columns: scroll"


def test_bars_are_as_long_as_their_values() -> None:
    query = value("gpu", "mean(power_watts)", "host gpu")
    panel = bars("Each", WORDS, query, empty=EMPTY)
    answer = [series(40.0, host="a", gpu="0"), series(20.0, host="b", gpu="1")]
    picture = drawn(panel, answer=answer)
    assert texts(picture, "Each") == ["Each", "a GPU 0", "40 W", "b GPU 1", "20 W"]
    color = faded(DARK.color("blue"), 0.35, DARK.panel)
    patches = cast(list[FancyBboxPatch], picture.figure.findobj(FancyBboxPatch))
    wide = [each.get_width() for each in patches if to_hex(each.get_facecolor()) == color]
    assert wide == pytest.approx([wide[0], wide[0] / 2])


def test_words_are_bands_from_change_to_change() -> None:
    panel = timeline("Bound", WORDS, over_time("bound", "last(bound)", "host"), empty=EMPTY)
    picture = drawn(panel, answer=[series("memory", "memory", "idle", "memory", host="n1")])
    (axes,) = axes_of(picture, "Bound")
    (bands,) = axes.collections
    corners = [numpy.asarray(path.vertices, float)[:, 0] - BEGIN_MS for path in bands.get_paths()]
    minutes = [(each.min() / MINUTE_MS, each.max() / MINUTE_MS) for each in corners]
    # the last word holds until somebody is silent for long: nothing came in seven minutes
    assert minutes == [(0, 2), (2, 3), (3, 3)]
    colors = [to_hex(tuple(color)) for color in numpy.asarray(bands.get_facecolor(), float)]
    assert colors == [DARK.color("orange").lower(), "#8e8e8e", DARK.color("orange").lower()]
    assert texts(picture, "Bound") == ["Bound", "memory", "idle"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["n1"]


def test_a_heatmap_has_a_row_for_each_series_and_no_cell_where_nothing_is_known() -> None:
    query = over_time("gpu", "mean(utilization_ratio)", "host")
    panel = heatmap("Map", WORDS, query, empty=EMPTY, scheme="Greens")
    answer = [series(0.5, None, host="b"), series(0.0, 1.0, host="a")]
    picture = drawn(panel, answer=answer)
    axes, _ = axes_of(picture, "Map")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    (mesh,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    values = mesh.get_array()
    assert values is not None
    assert values.tolist() == [[0.0, 1.0], [0.5, None]]
    assert mesh.get_clim() == (0.0, 1.0)
    assert texts(picture, "Map") == ["Map", "0%", "100%"]


def test_points_lie_under_a_roof_and_are_named() -> None:
    columns = {"intensity": "intensity_flops_per_byte", "reached": "flops_per_second"}
    panel = roofline(
        "Roof",
        WORDS,
        rows("phase", {**columns, "phase": "phase"}),
        empty=EMPTY,
        across="none",
        unit="flops",
        lines=("roof",),
    )
    names = ["time", "intensity", "reached", "roof", "phase"]
    answer = [Series({}, names, [[at(0), 0.5, 2e9, 4e9, "decode"], [at(1), 50.0, 9e10, 1e11, "p"]])]
    picture = drawn(panel, answer=answer)
    (axes,) = axes_of(picture, "Roof")
    assert (axes.get_xscale(), axes.get_xlim(), axes.get_ylim()) == ("log", (0.1, 100), (1e9, 1e11))
    points, roof = axes.get_lines()
    assert ups(points) == [2e9, 9e10]
    assert ups(roof) == [4e9, 1e11]
    assert (points.get_marker(), roof.get_marker()) == ("o", "None")
    assert texts(picture, "Roof")[-2:] == ["p", "decode"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "1 GFLOPS",
        "10 GFLOPS",
        "100 GFLOPS",
    ]


def test_names_of_points_that_lie_close_are_below_each_other() -> None:
    columns = {"intensity": "intensity_flops_per_byte", "reached": "flops_per_second"}
    query = rows("phase", {**columns, "phase": "phase"})
    panel = roofline("Roof", WORDS, query, empty=EMPTY, across="none", unit="flops", lines=())
    names = ["time", *columns, "phase"]
    reached = {"train.forward": 1.00e9, "train.backward": 1.02e9, "prefill": 1.04e9}
    answer = [Series({}, names, [[at(0), 10.0, up, name] for name, up in reached.items()])]
    picture = drawn(panel, answer=answer)
    found = cast(list[Text], picture.figure.findobj(Text))
    places = {text.get_text(): text.get_window_extent() for text in found}
    forward, backward, prefill = (places[name] for name in reached)
    assert prefill.y0 >= backward.y1
    assert backward.y0 >= forward.y1


def test_annotations_are_marked_on_panels_over_time_and_named_on_top() -> None:
    def ask(database: Database, query: str) -> Sequence[Series]:
        if 'FROM "phase"' in query:
            return [Series({}, ["time", "phase", "until"], [[at(2), "prefill", at(4)]])]
        return [series(1.0, 2.0)]

    marks = Annotation("Phases", "phase", rows("phase", {"phase": "phase"}), "purple", "phase", ())
    panel = timeseries("Power", WORDS, over_time("gpu", "mean(power_watts)"), empty=EMPTY)
    page = Dashboard("job", WORDS, [Row("Row", [panel])], [], [marks])
    picture = draw(page, VIEW, ask)
    (axes,) = axes_of(picture, "Power")
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [rights(line) for line in dashed] == [[at(2), at(2)]]
    assert "Phases: prefill" in texts(picture, "")


def test_only_filled_panels_are_wider_where_others_are_left_out() -> None:
    def ask(database: Database, query: str) -> Sequence[Series]:
        return [] if 'FROM "gpu"' in query else [series(1.0, 2.0)]

    there = timeseries("There", WORDS, over_time("cpu", "mean(utilization_ratio)"), empty=EMPTY)
    gone = timeseries("Gone", WORDS, over_time("gpu", "mean(power_watts)"), empty=EMPTY)
    rows_ = [
        Row("Both", [there.sized(8), gone.sized(8), there.sized(8)]),
        Row("None", [gone]),
        Row("Other", [there.sized(24)]),
    ]
    page = Dashboard("job", WORDS, rows_, [])
    picture = draw(page, VIEW, ask, only_filled=True)
    assert [shown.panel.width for shown in picture.drawn] == [FULL // 2, FULL // 2, FULL]
    assert texts(picture, "")[-2:] == ["Both", "Other"]
    chosen = draw(page, VIEW, ask, rows=["None", "Other"])
    assert [shown.panel.title for shown in chosen.drawn] == ["Gone", "There"]


def test_variables_are_on_top_and_in_titles() -> None:
    def ask(database: Database, query: str) -> Sequence[Series]:
        return [Series({}, ["key", "value"], [["host", "n1"], ["host", "n2"]])]

    variables = [
        Variable("jobid", "Job", WORDS),
        Variable("host", "Nodes", WORDS, tag_values("agent", "host"), multi=True),
        Variable("secret", "Secret", WORDS, hidden=True),
    ]
    panel = stat("Job $jobid", WORDS, value("gpu", "mean(power_watts)"), empty=EMPTY)
    page = Dashboard("job", WORDS, [Row("Row", [panel])], variables)
    view = View(VIEW.since_ms, VIEW.until_ms, {"jobid": "17"})
    picture = draw(page, view, ask)
    assert texts(picture, "Job 17")[0] == "Job 17"
    assert texts(picture, "") == [
        "Job",
        "2023-11-14 22:13:20 to 2023-11-14 22:23:20 UTC",
        *("Job", "17", "Nodes", "n1 + n2"),
        "Row",
    ]


def test_a_picture_is_written_as_it_was_drawn(tmp_path: Path) -> None:
    panel = stat("Used", WORDS, value("gpu", "mean(utilization_ratio)"), empty=EMPTY)
    picture = drawn(panel, answer=[series(0.5)])
    picture.save(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert image.width == 1600
        corner = image.convert("RGB").getpixel((2, 2))
    assert corner == (0x11, 0x12, 0x17)
