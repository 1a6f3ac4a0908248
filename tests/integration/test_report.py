"""The HTML report of real jobs in a real browser."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.inspect.units import show
from tests.integration.browser import Browser
from tests.integration.commands import BIN, Site, usage
from tests.nvml.build import TRACES, environment

pytestmark = [pytest.mark.chromium, pytest.mark.cc]

HOSTILE = "<img src=x onerror=alert(1)></title></style><script>alert(2)</script>\"'&amp;\u202e"

# what a program of a user's, with reference phases of its own, tells the agent
PROGRAM = """
import os, time
from agent.client import jobid_of, send_points
from rooflight import phase
from probes.sample import Sample, tags

with phase("load <b>bold</b>"):
    time.sleep(2.0)
loaded = int(time.time() * 1000)
jobid = jobid_of(os.environ)
def reached(name, flops, intensity, compute, memory, bound):
    where = tags(jobid=jobid, workload="w", phase=name, device="cpu")
    return Sample("phase", where, {
        "duration_seconds": 0.5, "calls_total": 2.0, "flops_per_second": flops,
        "moved_bytes_per_second": flops / intensity, "intensity_flops_per_byte": intensity,
        "compute_ratio": compute, "memory_ratio": memory, "bound": bound, "dtype": "fp32",
    })
def roof(kind, dtype, **rate):
    return Sample("ceiling", tags(device="cpu", kind=kind, dtype=dtype), rate)
sent = send_points([
    (reached("prefill", 150e9, 80.0, 0.75, 0.04, "compute"), loaded + 100),
    (reached("decode", 12e9, 0.5, 0.06, 0.6, "memory"), loaded + 700),
    (roof("matmul", "fp32", flops_per_second=200e9), loaded),
    (roof("triad", "byte", bytes_per_second=40e9), loaded),
    (roof("read", "byte", bytes_per_second=32e9), loaded),
], os.environ)
assert sent
time.sleep(1.5)
"""

WHITE = "rgb(255, 255, 255)"


class Made(NamedTuple):
    """A page that `jobinspect` wrote, and what it says as JSON."""

    file: Path
    report: dict[str, Any]
    words: str


@pytest.fixture(scope="module")
def gpu_job(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A job with a hostile name on a replayed node, GPU 1 of two being idle."""
    folder = tmp_path_factory.mktemp("gpu_job")
    site = Site(folder, environment=environment(TRACES / "two_h100.csv"))
    run = ["--interval", "0.25", "--name", HOSTILE, "--", sys.executable, "-c", PROGRAM, HOSTILE]
    site.call("rooflight", "run", "--quiet", *run)
    return made(site, folder)


def made(site: Site, folder: Path) -> Made:
    file = folder / "job.html"
    done = site.complete("jobinspect", "last", "--json", "--html", str(file))
    assert done.returncode == 0, done.stderr
    return Made(file, json.loads(done.stdout), done.stderr)


@pytest.fixture
def opened(gpu_job: Made, chromium: Browser) -> Iterator[Browser]:
    """The page as it was loaded on a wide and bright screen."""
    chromium.look(width=1200)
    chromium.open(gpu_job.file)
    yield chromium
    assert chromium.complaints() == []


def test_the_page_loads_without_a_word_and_asks_for_nothing(opened: Browser, gpu_job: Made) -> None:
    assert opened.requests() == [gpu_job.file.as_uri()]
    assert opened.complaints() == []
    size = gpu_job.file.stat().st_size
    assert f"wrote {gpu_job.file} ({size / 1000:.0f} kB)" in gpu_job.words
    assert size < 250_000


def test_hostile_names_stay_text(opened: Browser, gpu_job: Made) -> None:
    assert gpu_job.report["job"]["name"] == HOSTILE
    assert opened.evaluate("document.querySelectorAll('img, script, b.evil').length") == 0
    shown = opened.evaluate("document.querySelector('header').innerText")
    assert HOSTILE.replace("\u202e", "\\u202e") in shown
    assert "load <b>bold</b>" in opened.evaluate("document.body.textContent")
    assert opened.evaluate("document.title").startswith(f"Job {gpu_job.report['job']['jobid']}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_telephones_and_screens_by_day_and_night(
    width: int, dark: bool, gpu_job: Made, chromium: Browser
) -> None:
    chromium.look(width=width, dark=dark)
    chromium.open(gpu_job.file)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("innerWidth") == width
    ground = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else WHITE)
    beyond = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.frame')
        && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML)"""
    assert chromium.evaluate(beyond) == []
    small = """[...document.querySelectorAll('svg text')].filter(each => each.textContent
        && each.getBoundingClientRect().height < 10).length"""
    assert chromium.evaluate(small) == 0


def test_in_print_everything_is_unfolded_and_on_white(gpu_job: Made, chromium: Browser) -> None:
    chromium.look(width=720, dark=True, media="print")  # a sheet of A4
    chromium.open(gpu_job.file)
    assert chromium.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == WHITE
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 720
    assert chromium.pdf().startswith(b"%PDF")


# where the marks, lines and numbers of the axes of a figure are, in pixels
FIGURE = """title => {
  const titled = each => each.querySelector('figcaption b')?.textContent === title;
  const figure = [...document.querySelectorAll('figure')].find(titled);
  const box = figure.querySelector('svg').getBoundingClientRect();
  const middle = each => {
    const own = each.getBoundingClientRect();
    return [own.x + own.width / 2, own.y + own.height / 2];
  };
  const labels = [...figure.querySelectorAll('.labels text')];
  const below = each => each.getAttribute('x') !== '-6';
  return {
    marks: [...figure.querySelectorAll('.at > .mark:not(.dot)')].map(
      each => [each.parentNode.querySelector('title').textContent, middle(each)]),
    across: labels.filter(below).map(each => [each.textContent, middle(each)[0]]),
    up: labels.filter(each => !below(each)).map(each => [each.textContent, middle(each)[1]]),
    left: box.x,
    width: box.width,
    paths: [...figure.querySelectorAll('.lines path')].map(each => each.getAttribute('d')),
  };
}"""


def figure(browser: Browser, title: str) -> dict[str, Any]:
    found: dict[str, Any] = browser.evaluate(f"({FIGURE})({json.dumps(title)})")
    return found


def value(words: str) -> float:
    """Return the number on an axis: "100 G" is 1e11."""
    number, _, prefix = words.partition(" ")
    return float(number) * {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]


def on_axis(place: float, marks: list[tuple[str, float]]) -> float:
    """Return the value at a pixel of a logarithmic axis, from its outermost numbers."""
    (low, low_at), (high, high_at) = marks[0], marks[-1]
    share = (place - low_at) / (high_at - low_at)
    found: float = value(low) * (value(high) / value(low)) ** share
    return found


@pytest.mark.parametrize("width", [390, 1200])
def test_the_roofline_shows_the_phases_where_their_numbers_are(
    width: int, gpu_job: Made, chromium: Browser
) -> None:
    chromium.look(width=width)
    chromium.open(gpu_job.file)
    found = figure(chromium, "Phases")
    phases = {
        each["phase"]: each for each in gpu_job.report["phases"] if "flops_per_second" in each
    }
    assert len(found["marks"]) == len(phases) == 2
    for words, (x, y) in found["marks"]:
        phase = phases[words.partition(":")[0]]
        assert on_axis(x, found["across"]) == pytest.approx(
            phase["intensity_flops_per_byte"], rel=0.1
        )
        assert on_axis(y, found["up"]) == pytest.approx(phase["flops_per_second"], rel=0.1)
        assert phase["bound"] in words


# for each bar in which time is shared out: its name, and the length of each part
BARS = """[...document.querySelectorAll('.bound-row')].map(row => {
  const whole = row.querySelector('svg').getBoundingClientRect().width;
  const parts = [...row.querySelectorAll('rect')].map(
    each => [each.getAttribute('class'), each.getBoundingClientRect().width / whole]);
  return [row.querySelector('b').textContent, parts];
})"""


def test_tables_and_bars_show_the_numbers_of_the_report(opened: Browser, gpu_job: Made) -> None:
    node = gpu_job.report["nodes"][0]
    text = " ".join(opened.evaluate("document.body.innerText").split())
    for line in node["usage"]:
        if line["scope"] != "gpu" and line.get("mean"):
            assert f"{line['what']} {show(line['mean'], line['unit'])}" in text
    shown = {name: dict(parts) for name, parts in opened.evaluate(BARS)}
    for gpu in node["bounds"]:
        whole = sum(gpu["seconds"].values())
        shares = {bound: seconds / whole for bound, seconds in gpu["seconds"].items()}
        assert shown[f"{node['host']} gpu {gpu['gpu']}"] == pytest.approx(shares, abs=0.01)


def test_lines_over_time_are_where_their_numbers_are(opened: Browser, gpu_job: Made) -> None:
    """GPU 0 draws 690 W at most and GPU 1 72 W; the axis ends at 800 W."""
    found = figure(opened, "GPU power")
    assert [words for words, _ in found["up"]] == ["0", "200 W", "400 W", "600 W", "800 W"]
    peaks = [usage(gpu_job.report, f"gpu {gpu} power")["peak"] for gpu in (0, 1)]
    assert peaks == [690.0, 72.0]
    highest = [
        min(float(point.split(",")[1]) for point in path[1:].split("L")) for path in found["paths"]
    ]
    # in a square of 1000, from above
    assert sorted(highest) == pytest.approx([1000 * (1 - peak / 800) for peak in peaks], abs=0.1)
    job = gpu_job.report["job"]
    seconds = (job["end_ms"] - job["start_ms"]) / 1000  # the last sample is a moment later
    (first, _), (last, last_at) = found["across"][0], found["across"][-1]
    moment = float(last.removesuffix(" s"))
    assert first == "0"
    assert 0 < moment <= seconds
    assert last_at == pytest.approx(found["left"] + found["width"] * moment / seconds, abs=3)


SHADES = """[...document.querySelectorAll('.panel')].map(panel =>
  [...panel.querySelectorAll('.shade title')].map(each => each.textContent))"""


def test_phases_and_bounds_are_behind_the_lines(opened: Browser) -> None:
    shades = opened.evaluate(SHADES)
    assert len(shades) >= 4
    # the marked phase says nothing of its bound: the counters of the busy GPU do
    assert shades[0] == [
        "load <b>bold</b>: compute by the GPUs' counters",
        "prefill: compute",
        "decode: memory",
    ]
    assert all(each == shades[0] for each in shades)


def test_a_job_without_gpus_and_phases_says_so_in_words(tmp_path: Path, chromium: Browser) -> None:
    site = Site(tmp_path)
    site.call("rooflight", "run", "--quiet", "--", "true")
    page = made(site, tmp_path)
    chromium.look(width=390)
    chromium.open(page.file)
    assert chromium.complaints() == []
    text = " ".join(chromium.evaluate("document.body.innerText").split())
    for words in (
        "This job held no GPU, and no phase was marked: nothing says what held it back.",
        "No phase was marked. In Python: import rooflight",
        "This job held no GPU.",
    ):
        assert words in text
    assert page.report["job"]["jobid"] in text


def test_a_page_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.call("rooflight", "run", "--quiet", "--", str(BIN / "python"), "-c", "")
    done = site.complete("jobinspect", "last", "--html", str(tmp_path / "none" / "job.html"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rooflight: ")
    assert "No such file or directory: name another file with --html" in done.stderr
    assert not list(tmp_path.glob("**/*.html*"))
