"""The HTML page: what others choose stays text, nothing is asked for, what is missing is said."""

import re
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.inspect.ask import Asked
from agent.inspect.model import JobHeader, JobReport
from agent.inspect.report.markup import element, join
from agent.inspect.report.page import page
from agent.inspect.report.writing import write_page
from agent.inspect.series import Timelines
from agent.printable import printable
from agent.stores.local import LocalStore
from tests.unit import reports

HOSTILE = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "</style><img src=x onerror=alert(1)>",
        "\"'><svg onload=alert(1)>",
        "javascript:alert(1)",
        "]]>--><!-- ",
        "&lt;b&gt; &amp;amp;",
        "\x1b[31m\u202eevil\0\ud800",
        "{{7*7}} ${7*7}",
    ]
)
COMES_IN = ("title", "h1", "dd", "th", "td", "p", "b", "li", "text", "span", "caption", "summary")


class Seen(HTMLParser):
    """What a browser's parser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.names: Counter[tuple[str, str]] = Counter()
        self.values: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.names[tag, name] += 1
            self.values.append((tag, name, value or ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def drawn(report: JobReport, timelines: Timelines = Timelines(), store_words: str = "") -> str:  # noqa: B008
    return page(report, timelines, reports.END_MS, store_words)


@given(HOSTILE, HOSTILE)
def test_any_text_is_the_same_text_again(words: str, attribute: str) -> None:
    seen = Seen(element("p", words, element("b", words), title=attribute))
    assert seen.tags == {"p": 1, "b": 1}
    assert "".join(seen.words) == printable(words) * 2
    assert seen.values == [("p", "title", printable(attribute))]


def test_markup_is_not_written_out_twice() -> None:
    assert join("a<b", element("i", "&")) == "a&lt;b<i>&amp;</i>"


@settings(max_examples=60)
@given(HOSTILE)
def test_hostile_names_change_no_element_of_the_page(words: str) -> None:
    """The same elements with the same attributes as for a harmless name, wherever it stands."""
    for report in (reports.report, reports.with_tasks):
        seen = Seen(drawn(report(words), reports.timelines(words)))
        harmless = Seen(drawn(report("name"), reports.timelines("name")))
        assert seen.tags == harmless.tags
        assert seen.names == harmless.names
        assert seen.comments == []
        assert printable(words) in "".join(seen.words)


def test_nothing_runs_and_nobody_is_asked() -> None:
    text = drawn(reports.report(), reports.timelines())
    seen = Seen(text)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & seen.tags.keys()
    assert not [name for _, name in seen.names if name.startswith("on") or name == "style"]
    addresses = [value for _, name, value in seen.values if name in ("href", "src", "xlink:href")]
    assert addresses == ["data:,", "https://grafana.example/name"]
    policy = [value for _, name, value in seen.values if "default-src" in value]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    style = "".join(files("agent.inspect.report").joinpath("style.css").read_text())
    assert "url(" not in style
    assert "@import" not in style


def test_a_link_that_is_no_web_address_is_left_out() -> None:
    report = msgspec.structs.replace(reports.report(), grafana="javascript:alert(1)")
    assert "javascript:" not in drawn(report)


def test_figures_have_their_numbers_as_text() -> None:
    seen = Seen(drawn(reports.report(), reports.timelines()))
    summaries = [value for tag, name, value in seen.values if (tag, name) == ("svg", "aria-label")]
    assert any(each.startswith("Roofline with") and "100 FLOP/byte" in each for each in summaries)
    assert any(each.startswith("CPU over time. gpu 0: up to 75%") for each in summaries)


def words_of(report: JobReport, timelines: Timelines = Timelines(), store_words: str = "") -> str:  # noqa: B008
    return " ".join(" ".join(Seen(drawn(report, timelines, store_words)).words).split())


def empty(**header: object) -> JobReport:
    job = JobHeader("7", "test", "COMPLETED", start_ms=reports.BEGIN_MS, end_ms=reports.END_MS)
    return JobReport(msgspec.structs.replace(job, **header), (), (), (), ())


@pytest.mark.parametrize(
    "words",
    [
        "Nothing stands out.",
        "This job held no GPU, and no phase was marked: nothing says what held it back.",
        "No phase was marked. In Python: import rooflight",
        "This job held no GPU.",
        "No agent sampled this job, as far as the store knows.",
    ],
)
def test_what_is_missing_is_said(words: str) -> None:
    assert words in words_of(empty())


def test_gpus_of_which_nobody_told() -> None:
    assert "held 4 GPUs, and no agent told of them" in words_of(empty(gpus=4))


def test_phases_that_count_nothing_and_ceilings_that_were_not_measured() -> None:
    report = reports.report()
    marked = msgspec.structs.replace(report.phases[0], flops_per_second=None, bound="unknown")
    only_marked = msgspec.structs.replace(report, phases=[marked])
    assert "and not how much they computed" in words_of(only_marked)
    without = msgspec.structs.replace(report, ceilings=[])
    assert "No ceilings were measured in this job" in words_of(without)


def test_a_store_that_does_not_answer_is_named_with_its_words() -> None:
    text = words_of(empty(), store_words="http://influx:8086: connection refused")
    assert "The store does not answer" in text
    assert "http://influx:8086: connection refused" in text


def test_why_nothing_is_drawn_over_time_is_a_sentence() -> None:
    text = words_of(reports.report(), Timelines(words="the job was too short to be drawn"))
    assert "The job was too short to be drawn." in text


def test_what_stood_still_and_what_was_not_sampled_has_no_figure() -> None:
    text = words_of(reports.report(), reports.timelines())
    assert "All the time at zero: Network." in text
    assert "No samples of: InfiniBand." in text


def test_a_pending_job_says_what_it_waits_for() -> None:
    assert "not begun: Priority" in words_of(empty(start_ms=0, end_ms=None, reason="Priority"))


def test_outliers_are_marked_with_the_median_and_the_rule() -> None:
    report = msgspec.structs.replace(reports.report(), nodes=reports.report().nodes[:1])
    text = drawn(report)
    assert re.search(r'14\.0 W <b class="outlier" title="the median is 679 W">▼ low</b>', text)
    assert "name gpu 1 *" in words_of(report)
    assert "* unlike the others: further from their median" in words_of(report)


def test_many_gpus_are_folded_and_those_that_stand_out_are_not() -> None:
    report = reports.report()
    node = report.nodes[0]
    nodes = [msgspec.structs.replace(node, host=f"n{number}") for number in range(20)]
    outlier = msgspec.structs.replace(report.outliers[0], host="n7")
    many = msgspec.structs.replace(report, nodes=nodes, outliers=[outlier])
    text = drawn(many)
    assert "<summary>All 40 GPUs</summary>" in text
    shown = text.split("GPUs that are unlike the others</caption>")[1].split("</table>")[0]
    assert shown.count("<tr>") == 2  # the head and one GPU


BOUNDS = ("compute", "memory", "link", "io", "latency", "balanced")
SIGHT = {
    # linear RGB as seen: Machado, Oliveira, Fernandes (2009), severity 1.0
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
TOLD_APART = 10.0
"""Distance in CIE L*a*b*; 2.3 is just noticeable side by side."""


def palettes() -> dict[str, dict[str, str]]:
    style = files("agent.inspect.report").joinpath("style.css").read_text()
    light, _, dark = style.partition("prefers-color-scheme: dark")
    found = {}
    for name, text in (("light", light), ("dark", light + dark.partition("* {")[0])):
        found[name] = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{3,6})\b", text))
    return found


def linear(colour: str) -> list[float]:
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    parts = [int(digits[number : number + 2], 16) / 255 for number in (0, 2, 4)]
    return [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]


def seen_as(colour: str, sight: str) -> tuple[float, float, float]:
    """Return a colour in CIE L*a*b* as somebody sees it."""
    rgb = linear(colour)
    seen = [sum(a * b for a, b in zip(row, rgb, strict=True)) for row in SIGHT[sight]]
    red, green, blue = (min(1.0, max(0.0, each)) for each in seen)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (
        each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z)
    )
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def lightness(part: float) -> float:
    return part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116


def distance(one: str, other: str, sight: str) -> float:
    pairs = zip(seen_as(one, sight), seen_as(other, sight), strict=True)
    return float(sum((a - b) ** 2 for a, b in pairs) ** 0.5)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_bounds_are_told_apart_by_everyone(mode: str, sight: str) -> None:
    palette = palettes()[mode]
    shown = [*BOUNDS, "idle"]
    for number, one in enumerate(shown):
        for other in shown[:number]:
            assert distance(palette[one], palette[other], sight) > TOLD_APART, (one, other)


def contrast(one: str, other: str) -> float:
    """Return the contrast as WCAG 2 defines it."""
    weights = (0.2126, 0.7152, 0.0722)
    parts = [zip(weights, linear(each), strict=True) for each in (one, other)]
    lights = sorted(sum(weight * part for weight, part in each) for each in parts)
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_can_be_read(mode: str) -> None:
    palette = palettes()[mode]
    for ink in ("ink", "faint", "warning"):
        for ground in ("paper", "card"):
            assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)


def test_a_page_is_written_whole_and_a_store_that_is_away_is_not_asked(tmp_path: Path) -> None:
    file = tmp_path / "job.html"
    file.write_text("older")
    away = LocalStore.read_only(tmp_path / "nowhere.db")
    asked = Asked(reports.report(), "connection refused")
    size = write_page(file, away, asked, reports.END_MS)
    text = file.read_text(encoding="utf-8")
    assert len(text.encode()) == size
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert "there are no samples here: connection refused" in text
    assert [each.name for each in tmp_path.iterdir()] == ["job.html"]
