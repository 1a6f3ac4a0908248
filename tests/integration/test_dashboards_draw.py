"""Pictures of the dashboards from a filled InfluxDB: all that is answered is on them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from agent.config import load
from agent.dashboards.cli import asking, view_of_job
from dashboards.draw.fields import look_of
from dashboards.draw.page import Picture, box_of, draw
from dashboards.draw.sheet import SCALE
from dashboards.expand import View, expand
from dashboards.frames import Ask, Frame, frames_of, opened
from dashboards.pages import all_dashboards
from dashboards.panel import Panel
from tests.integration import services
from tests.integration.dashboard_site import CLUSTER, fill

pytestmark = [pytest.mark.influxd, pytest.mark.cc]

PAGES = {dashboard.page: dashboard for dashboard in all_dashboards()}


class Cluster(NamedTuple):
    """A filled store, and the view that each page opens with."""

    ask: Ask
    views: dict[str, View]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of `dashboard_site` in an InfluxDB of its own: its names are fixed."""
    folder = tmp_path_factory.mktemp("draw")
    with contextlib.ExitStack() as stack:
        try:
            service = stack.enter_context(services.influxd(folder))
        except services.Missing as missing:
            pytest.skip(str(missing))
        filled = fill(folder / "sites", service)
        ask = stack.enter_context(asking(load(filled.site.file, environment={}).config))
        now_ms = int(time.time() * 1000)
        view = View(filled.begin_ms, now_ms, {"cluster": CLUSTER})
        of_job = view_of_job(ask, view, "1001")
        assert of_job is not None
        views = {page: of_job if page == "job" else view for page in PAGES}
        yield Cluster(ask, {page: opened(PAGES[page], views[page], ask) for page in PAGES})


def drawn(cluster: Cluster, page: str) -> Picture:
    return draw(PAGES[page], cluster.views[page], cluster.ask)


def texts(picture: Picture, title: str) -> list[str]:
    found = cast(list[Text], picture.figure.findobj(Text))
    return [text.get_text() for text in found if text.get_gid() == title]


def axes_of(picture: Picture, title: str) -> Axes:
    (axes,) = [axes for axes in picture.figure.axes if axes.get_gid() == title]
    return axes


def heights(picture: Picture, title: str) -> list[list[float]]:
    """Return the values of each line of a graph, but for marks and thresholds."""
    lines = [line for line in axes_of(picture, title).get_lines() if line.get_linestyle() == "-"]
    values = [numpy.asarray(line.get_ydata(), float) for line in lines]
    return [[float(each) for each in line] for line in values if len(line) > 1]


def numbers(frame: Frame) -> list[float]:
    return [value for value in frame.values() if isinstance(value, float)]


def answered(cluster: Cluster, page: str, title: str) -> tuple[Panel, list[Frame]]:
    panel = next(each for _, each in PAGES[page].panels() if each.title == title)
    return panel, frames_of(panel, cluster.views[page], cluster.ask)


def test_a_job_s_lines_are_what_its_gpus_did(cluster: Cluster) -> None:
    picture = drawn(cluster, "job")
    _, frames = answered(cluster, "job", "GPU power")
    assert heights(picture, "GPU power") == [numbers(frame) for frame in frames]
    assert {watts for line in heights(picture, "GPU power") for watts in line} == {690.0, 410.0}
    assert {"gpu1 GPU 0", "gpu2 GPU 0"} < set(texts(picture, "GPU power"))


def test_a_job_s_numbers_and_rows_are_there(cluster: Cluster) -> None:
    picture = drawn(cluster, "job")
    _, (used,) = answered(cluster, "job", "GPU utilization, mean")
    assert texts(picture, "GPU utilization, mean")[1] == f"{numbers(used)[0] * 100:.1f}%"
    facts = texts(picture, "Job 1001")
    assert {"gpu1", "gpu2", "ann", "physics", "RUNNING"} < set(facts)
    bounds = set(texts(picture, "Time under each bound"))
    _, frames = answered(cluster, "job", "Time under each bound")
    minutes = {frame.name: numbers(frame)[0] / 60 for frame in frames}
    assert {"compute", "memory"} == {name for name, each in minutes.items() if each}
    assert all({name, f"{minutes[name]:.3g} min"} < bounds for name in ("compute", "memory"))


@pytest.mark.parametrize("page", PAGES)
def test_every_panel_is_drawn(cluster: Cluster, page: str) -> None:
    picture, view = drawn(cluster, page), cluster.views[page]
    panels = [panel for _, panel in PAGES[page].panels()]
    assert [shown.panel for shown in picture.drawn] == panels
    for panel in panels:
        title = expand(panel.title, view)
        words = texts(picture, title)
        frames = [frame for frame in frames_of(panel, view, cluster.ask) if frame.values()]
        assert (panel.empty in " ".join(words)) == (not frames), title
        if panel.kind in ("stat", "bargauge"):
            # a panel has room for five bars, and not always for more
            assert {said(panel, frame, view) for frame in frames[:5]} <= set(words), title
        elif panel.kind == "timeseries" and frames:
            assert axes_of(picture, title).lines, title


def said(panel: Panel, frame: Frame, view: View) -> str:
    """Return the last value of a series in the panel's words."""
    name = str(panel.defaults.get("displayName", frame.name))
    return look_of(panel, name).text(frame.values()[-1], float(view.until_ms))


@pytest.mark.parametrize("page", PAGES)
def test_no_words_stand_out_of_their_panel(cluster: Cluster, page: str) -> None:
    picture = drawn(cluster, page)
    picture.figure.canvas.draw()
    boxes = {
        expand(placed.item.title, cluster.views[page]): box_of(placed.place)
        for placed in PAGES[page].placed()
        if isinstance(placed.item, Panel)
    }
    height = picture.figure.bbox.height
    out = []
    for title, text in owned(picture):
        if title in boxes and text.get_text():
            extent, box = text.get_window_extent(), boxes[title]
            across = box.left * SCALE <= extent.x0 + 1 and extent.x1 - 1 <= box.right * SCALE
            down = box.top * SCALE <= height - extent.y1 + 1
            if not (across and down and height - extent.y0 - 1 <= box.bottom * SCALE):
                out.append((title, text.get_text()))
    assert out == []


def owned(picture: Picture) -> Iterator[tuple[str, Text]]:
    """Yield all texts with the title of their panel, those of its axes too."""
    for text in cast(list[Text], picture.figure.findobj(Text)):
        if text.get_gid():
            yield str(text.get_gid()), text
    for axes in (each for each in picture.figure.axes if each.axison):
        for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
            yield str(axes.get_gid()), label


def test_the_picture_of_a_job_is_a_small_png_with_something_on_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "job.png"
    rows = ("The job", "What holds it back")
    view = cluster.views["job"]
    draw(PAGES["job"], view, cluster.ask, rows=rows, only_filled=True).save(file)
    assert 20_000 < file.stat().st_size < 200_000
    with Image.open(file) as image:
        assert image.width == 1600
        assert image.height > 1500
        pixels = numpy.asarray(image)
    shares = numpy.bincount(pixels.ravel(), minlength=256) / pixels.size
    assert shares.max() < 0.9
    assert (shares > 0).sum() > 100
