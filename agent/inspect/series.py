"""What a job's hosts and GPUs did over time: asked of the store, and thinned out there.

Series of devices carry no job id; they are found by the job's hosts, GPUs and time. What one host
has several of (interfaces, ports, disks) is added up. Hosts become one line, their mean with the
lowest and the highest, and so do GPUs where there are too many to tell apart.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median_low
from typing import NamedTuple

from agent.inspect.model import JobReport, Node, place
from agent.inspect.panels import FIGURES, TAGS, Figure, Source
from agent.stores.store import Row, Select, Store, StoreRefused, StoreUnreachable, Windows
from workloads.roofline import Bound

MOST_WINDOWS = 180
"""A point for every six pixels of a wide screen, and for every two of a telephone."""

MOST_LINES = 8
"""So many GPUs have a line each; more are one line, with the range that they cover."""

MOST_HOSTS, FEW_HOSTS = 64, 8
MOST_SAMPLES = 140_000
"""Of all hosts together: 64 for six hours at an interval of 10 s, 16 for a day. An InfluxDB on two
cores gives an answer within some seconds."""

HOSTS_AT_ONCE = 16
"""A query that names more hosts grows beyond what a proxy lets through."""

FEW_SAMPLES = 9


class Point(NamedTuple):
    """A window: its end in milliseconds since 1970, its mean, its lowest and its highest value."""

    end_ms: int
    mean: float
    low: float
    high: float


class Line(NamedTuple):
    """One line of a figure, oldest point first."""

    name: str
    points: Sequence[Point]

    def pieces(self) -> list[list[Point]]:
        """Return the points in pieces that hang together: no line is drawn where samples miss."""
        steps = [after.end_ms - before.end_ms for before, after in pairwise(self.points)]
        longest = 2.5 * median_low(steps) if steps else 0.0
        pieces: list[list[Point]] = [[]]
        for point in self.points:
            if pieces[-1] and point.end_ms - pieces[-1][-1].end_ms > longest:
                pieces.append([])
            pieces[-1].append(point)
        return pieces


class Panel(NamedTuple):
    """Lines over the job's time, in one unit; `several` says of what their ranges are."""

    title: str
    unit: str
    lines: Sequence[Line]
    several: str = ""


class Fraction(NamedTuple):
    """Which shares of its compute and memory roof a GPU reached in a window."""

    end_ms: int
    compute: float
    memory: float


Shares = Mapping[int, Mapping[Bound, float]]
"""By the end of a window: the share of its samples under each bound."""


class Timelines(NamedTuple):
    """All of a job over time.

    Attributes:
        since_ms: begin; until_ms: end; every_ms: length of a window.
        panels: those of which anything is known.
        absent: titles of the others.
        bounds: by GPU, what it was under when.
        roofs: by GPU, where it was under its roofs.
        words: why something is missing; empty if nothing is.

    """

    since_ms: int = 0
    until_ms: int = 0
    every_ms: int = 0
    panels: Sequence[Panel] = ()
    absent: Sequence[str] = ()
    bounds: Mapping[str, Shares] = {}
    roofs: Mapping[str, Sequence[Fraction]] = {}
    words: str = ""


def timelines(store: Store, report: JobReport, now_ms: int) -> Timelines:
    """Return the job over time; where the store does not help, its words."""
    if report.tasks or not report.nodes:
        return Timelines(words="no host of this job was sampled, so there is nothing to draw")
    try:
        return _timelines(store, report, now_ms)
    except (StoreUnreachable, StoreRefused) as error:
        return Timelines(words=f"the store could not be asked what happened when: {error}")


def _timelines(store: Store, report: JobReport, now_ms: int) -> Timelines:
    since_ms = report.job.start_ms
    until_ms = report.job.end_ms or max([node.updated_ms for node in report.nodes]) or now_ms
    interval_ms = _interval_ms(store, report, since_ms, until_ms)
    if not interval_ms:
        return Timelines(since_ms, until_ms, words=_too_little(report, since_ms, now_ms))
    every_ms = window_ms(interval_ms, until_ms - since_ms)
    nodes = _drawn(report, MOST_SAMPLES * interval_ms // max(1, until_ms - since_ms))
    asking = _Asking(store, report, nodes, (since_ms, until_ms, every_ms))
    panels = [asking.panel(figure) for figure in FIGURES if asking.may_have(figure)]
    return Timelines(
        since_ms,
        until_ms,
        every_ms,
        [panel for panel in panels if panel.lines],
        [panel.title for panel in panels if not panel.lines],
        asking.bounds(),
        asking.roofs(),
        _left_out(len(nodes), len(report.nodes)),
    )


def _drawn(report: JobReport, most: int) -> list[Node]:
    """Return the hosts to draw: of very many, those unlike the others and some of all the rest."""
    most = min(MOST_HOSTS, max(FEW_HOSTS, most))
    if len(report.nodes) <= most:
        return list(report.nodes)
    unlike = list(dict.fromkeys(outlier.host for outlier in report.outliers))[: most // 2]
    others = [node.host for node in report.nodes if node.host not in unlike]
    chosen = {*unlike, *others[:: -(-len(others) // (most - len(unlike)))]}
    return [node for node in report.nodes if node.host in chosen]


def _left_out(drawn: int, known: int) -> str:
    if drawn == known:
        return ""
    return f"{drawn} of {known} hosts are drawn, those unlike the others among them"


def window_ms(interval_ms: int, span_ms: int) -> int:
    """Return the length of a window: a whole number of intervals, and not too many windows."""
    return interval_ms * max(1, -(-span_ms // (interval_ms * MOST_WINDOWS)))


def _interval_ms(store: Store, report: JobReport, since_ms: int, until_ms: int) -> int:
    """Return the usual time between two samples; 0 if there are not two of them."""
    job, host = report.job, report.nodes[0].host
    common = {"cluster": job.cluster, "host": host}
    for measurement, more in (("job_cgroup", {"jobid": _stored_id(report)}), ("cpu", {})):
        asked = Select(measurement, {**common, **more}, since_ms, until_ms, FEW_SAMPLES)
        times = [int(float(row["time_ms"])) for row in store.rows(asked)]
        if len(times) > 1:
            return max(1, median_low([after - before for before, after in pairwise(times)]))
    return 0


def _too_little(report: JobReport, since_ms: int, now_ms: int) -> str:
    samples = report.nodes[0].samples
    if samples > 1:
        age = (now_ms - since_ms) / 86_400_000
        return (
            f"the store holds no samples of this job's time any more: it began {age:.0f} days ago,"
            " and measurements are kept for a shorter time than footprints of jobs"
        )
    return "the job was too short to be drawn over time: for a closer look sample it faster"


def _stored_id(report: JobReport) -> str:
    return report.job.raw or report.job.jobid


class _Asking:
    """The questions about one job.

    Args:
        nodes: the hosts to ask for.
        times: begin, end and window, see `Timelines`.

    """

    def __init__(
        self, store: Store, report: JobReport, nodes: Sequence[Node], times: tuple[int, int, int]
    ) -> None:
        self._store = store
        self._report = report
        self._times = times
        self._hosts = [node.host for node in nodes]
        self._cpus = {node.host: node.cpus for node in nodes}
        self._gpus = {
            (node.host, gpu.gpu): place(node.name, gpu.gpu) if len(nodes) > 1 else f"gpu {gpu.gpu}"
            for node in nodes
            for gpu in node.gpus
        }

    def may_have(self, figure: Figure) -> bool:
        """Tell whether a figure is worth asking for: GPUs are, where the job held any."""
        return bool(self._gpus) or not figure.of_gpus

    def panel(self, figure: Figure) -> Panel:
        """Return the lines of a figure of which anything is known."""
        if figure.of_gpus:
            return self._gpu_panel(figure)
        lines = [self._hosts_line(source, figure.unit) for source in figure.sources]
        several = f"{len(self._hosts)} hosts" if len(self._hosts) > 1 else ""
        return Panel(figure.title, figure.unit, [line for line in lines if line.points], several)

    def bounds(self) -> dict[str, Shares]:
        """Return what each GPU was under when."""
        counts: dict[str, dict[int, dict[Bound, float]]] = defaultdict(lambda: defaultdict(dict))
        held = set(self._report.bounds) or set(Bound)
        for bound in (each for each in Bound if each in held):
            for name, row in self._gpu_rows("bound", "bound", bound.value):
                counts[name][_end_ms(row)][bound] = float(row["count"])
        return {
            name: {end_ms: _shares(found) for end_ms, found in sorted(windows.items())}
            for name, windows in counts.items()
        }

    def roofs(self) -> dict[str, list[Fraction]]:
        """Return the shares of the roofs that each GPU reached when; none without counters."""
        reached: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for roof in ("compute", "memory"):
            for name, row in self._gpu_rows("bound", f"{roof}_ratio"):
                reached[name][_end_ms(row)][roof] = float(row["mean"])
        return {
            name: [
                Fraction(end_ms, roofs["compute"], roofs["memory"])
                for end_ms, roofs in sorted(windows.items())
                if len(roofs) == 2
            ]
            for name, windows in reached.items()
        }

    def _gpu_panel(self, figure: Figure) -> Panel:
        """Return a line for each GPU; one for each source if there are several of either."""
        lines = []
        for source in figure.sources:
            series: dict[str, list[Point]] = defaultdict(list)
            for name, row in self._gpu_rows(source.measurement, source.field):
                series[name].append(_point(row))
            if len(figure.sources) == 1 and len(self._gpus) <= MOST_LINES:
                lines += [Line(name, series[name]) for name in self._gpus.values() if series[name]]
            elif series:
                lines.append(Line(source.name or "mean", _reduced(series.values())))
        together = len(figure.sources) > 1 or len(self._gpus) > MOST_LINES
        several = f"{len(self._gpus)} GPUs" if together and len(self._gpus) > 1 else ""
        return Panel(figure.title, figure.unit, lines, several)

    def _gpu_rows(self, measurement: str, field: str, text: str = "") -> Iterator[tuple[str, Row]]:
        """Yield the rows of the job's own GPUs with the GPU's name; none are asked for without."""
        asked = self._rows(measurement, field, ("gpu",), text) if self._gpus else ()
        for row in asked:
            name = self._gpus.get((str(row["host"]), str(row["gpu"])))
            if name is not None:
                yield name, row

    def _hosts_line(self, source: Source, unit: str) -> Line:
        """Return one line of all hosts; on each, all that the source accepts is added up."""
        by_host: dict[str, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
        for row in self._rows(source.measurement, source.field, TAGS.get(source.measurement, ())):
            if source.accept(row):
                by_host[str(row["host"])][_end_ms(row)].append(_point(row))
        # processor time per second is CPUs in use
        of_cpus = (unit, source.measurement) == ("ratio", "job_cgroup")
        whole = self._cpus if of_cpus else dict.fromkeys(self._hosts, 1.0)
        series = [
            [_sum(points, whole[host]) for _, points in sorted(windows.items())]
            for host, windows in by_host.items()
            if whole[host]
        ]
        return Line(source.name, _reduced(series))

    def _rows(
        self, measurement: str, field: str, tags: tuple[str, ...], text: str = ""
    ) -> Iterator[Row]:
        more = {"jobid": [_stored_id(self._report)]} if measurement == "job_cgroup" else {}
        for begin in range(0, len(self._hosts), HOSTS_AT_ONCE):
            hosts = self._hosts[begin : begin + HOSTS_AT_ONCE]
            where = {"cluster": [self._report.job.cluster], "host": hosts, **more}
            asked = Windows(measurement, field, where, ("host", *tags), *self._times, text)
            yield from self._store.windows(asked)


def _end_ms(row: Row) -> int:
    return int(float(row["time_ms"]))


def _point(row: Row) -> Point:
    mean = float(row["mean"])
    return Point(_end_ms(row), mean, float(row.get("low", mean)), float(row.get("high", mean)))


def _sum(points: Sequence[Point], whole: float) -> Point:
    sums = (sum(part) / whole for part in zip(*(point[1:] for point in points), strict=True))
    return Point(points[0].end_ms, *sums)


def _reduced(series: Iterable[Sequence[Point]]) -> list[Point]:
    """Return the mean of several series with their lowest and highest, window by window."""
    windows: dict[int, list[Point]] = defaultdict(list)
    for point in (point for points in series for point in points):
        windows[point.end_ms].append(point)
    return [
        Point(
            end_ms,
            fmean(point.mean for point in points),
            min(point.low for point in points),
            max(point.high for point in points),
        )
        for end_ms, points in sorted(windows.items())
    ]


def _shares(counts: Mapping[Bound, float]) -> dict[Bound, float]:
    whole = sum(counts.values())
    return {bound: count / whole for bound, count in counts.items()}
