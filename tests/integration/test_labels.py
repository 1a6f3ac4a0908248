"""Labels of whole traces, replayed through NVML's interface, held against what was played.

The same traces go through two peers' fixed thresholds, and the comparison is printed. The traces
are made (tests/nvml/make_traces.py), not recorded.
"""

import csv
import ctypes
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pynvml
import pytest

from agent.labels.bounds import Labeller, signature_of
from agent.labels.gpuroofs import GpuRoofs, Signature
from agent.plausible import plausible
from probes.catalogue import BOUNDS
from probes.gpu import GpuProbe
from probes.gpu_device import SeenGpu
from probes.probe import Context
from probes.sample import Sample, Value
from tests.integration.commands import Site
from tests.nvml import make_traces
from tests.nvml.build import TRACES, build, environment, replay_settings
from tests.nvml.exporter import Exporter

pytestmark = pytest.mark.cc

MODEL = "NVIDIA H100 80GB HBM3"
RIGHT_FROM, WRONG_UP_TO = 0.95, 0.05
JUST_BEFORE = 0.99
"""A tick sees the second that ends, as an agent does; the row of the next begins on the second."""

Fields = Mapping[str, Value]
Rule = Callable[[Fields], str]


class Second(NamedTuple):
    """What was played in a second, what the probe saw of it, and the label's fields."""

    truth: str
    seen: Fields
    label: Fields


class Tick(NamedTuple):
    """A sample of the GPU, as its probe tells it."""

    second: int
    sample: Sample
    gpu: SeenGpu


class Interval(NamedTuple):
    """Seconds by bound between two samples: as they were played, and as they were labelled."""

    played: Counter[str]
    labelled: Counter[str]


Play = Callable[..., list[Second]]
PlayTicks = Callable[..., list[Tick]]


@pytest.fixture
def play_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayTicks:
    """Replay a trace through the real binding, the probe and the range check."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(build())))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    clock, copy = tmp_path / "clock", tmp_path / "trace.csv"

    def ticks_of(text: str, every: int = 1) -> list[Tick]:
        copy.write_text(text)
        settings = replay_settings({"trace": str(copy), "clock": str(clock)})
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return ticks(clock, len(truths_of(text)), every)

    return ticks_of


@pytest.fixture
def play(play_ticks: PlayTicks) -> Play:
    """Label every second of a replayed trace."""

    def seconds_of(text: str, measured: GpuRoofs | None = None) -> list[Second]:
        found = play_ticks(text)
        pairs = zip(truths_of(text), found[1:], labels_of(found, measured)[1:], strict=True)
        return [Second(truth, tick.sample.fields, label) for truth, tick, label in pairs]

    return seconds_of


def ticks(clock: Path, seconds: int, every: int) -> list[Tick]:
    """Return the first sample, from which GPM starts, and one every so many seconds."""
    now = 0.0
    clock.write_text("0")
    probe = GpuProbe(Context(monotonic=lambda: now))
    found = [tick_of(probe, 0)]
    for half in range(1, 2 * seconds + 1):
        now = half / 2 - 1 + JUST_BEFORE
        clock.write_text(str(now))
        if half % (2 * every):
            probe.glance()  # as the probe's thread does between samples
        else:
            found.append(tick_of(probe, half // 2))
    probe.close()
    checked = [plausible(tick.sample) for tick in found]
    assert sum(dropped for _, dropped in checked) == 0
    return found


def tick_of(probe: GpuProbe, second: int) -> Tick:
    (sample,) = probe.sample()
    (gpu,) = probe.seen
    return Tick(second, sample, gpu)


def labels_of(ticks: Sequence[Tick], measured: GpuRoofs | None) -> list[Fields]:
    labeller = Labeller({MODEL: measured} if measured else {})
    return [
        labeller.label([tick.sample], 1000 * tick.second, [tick.gpu])[0].fields for tick in ticks
    ]


def intervals_of(
    text: str, found: Sequence[Tick], measured: GpuRoofs | None = None
) -> list[Interval]:
    """Return what was played and what was labelled between each two samples."""
    truths = truths_of(text)
    seconds = [
        Counter({bound: float(label.get(f"{bound}_seconds", 0.0)) for bound in BOUNDS})
        for label in labels_of(found, measured)
    ]
    pairs = zip(found, found[1:], seconds[1:], strict=False)
    return [
        Interval(Counter(truths[begin.second : end.second]), labelled)
        for begin, end, labelled in pairs
    ]


def truths_of(text: str) -> list[str]:
    """Return what was played in each second."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("# truth "):
            begin, end, bound = line.removeprefix("# truth ").split()
            assert int(begin) == len(found)
            found += [bound] * (int(end) - int(begin))
    return found


def without_gpm(text: str) -> str:
    """Return a trace without the columns that GPM gives."""
    lines = text.splitlines()
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    kept = [number for number, name in enumerate(rows[0]) if not name.startswith("gpm_")]
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows([row[i] for i in kept] for row in rows)
    return "\n".join([line for line in lines if line.startswith("#")]) + "\n" + output.getvalue()


def share(seconds: Sequence[Second], rule: Rule, *wanted: str) -> float:
    """Return the share of seconds whose label is the truth or one of `wanted`."""
    return fmean(rule(each.seen) in (each.truth, *wanted) for each in seconds)


def agreeing(intervals: Sequence[Interval]) -> float:
    """Return the share of time that is labelled as it was played."""
    shared = sum((played & labelled).total() for played, labelled in intervals)
    return shared / sum(played.total() for played, _ in intervals)


def contradicting(intervals: Sequence[Interval]) -> float:
    """Return the share of time that has a label, and a wrong one."""
    wrong = [labelled - played for played, labelled in intervals]
    told = sum(each.total() - each["unknown"] for each in wrong)
    return told / sum(played.total() for played, _ in intervals)


def labelled(seconds: Sequence[Second]) -> list[str]:
    return [str(second.label["bound"]) for second in seconds]


def right(seconds: Sequence[Second], *also: str) -> float:
    labels = labelled(seconds)
    return fmean(
        label in (second.truth, *also) for label, second in zip(labels, seconds, strict=True)
    )


@pytest.fixture
def reference(play: Play) -> GpuRoofs:
    """What reference phases showed on this node: other runs, with other noise, than the traces."""
    signatures = {}
    for number, level in enumerate((make_traces.PREFILL, make_traces.DECODE)):
        seconds = play(without_gpm(make_traces.trace(100 + number, "reference phase", [level])))
        looks = [look for each in seconds[1:] if (look := signature_of(each.seen))]
        signatures[level.bound] = Signature(
            *(fmean(getattr(look, name) for look in looks) for name in Signature.__struct_fields__)
        )
    return GpuRoofs({}, signatures["compute"], signatures["memory"])


def test_the_committed_traces_are_those_that_are_made(tmp_path: Path) -> None:
    """After a change: python -m tests.nvml.make_traces"""
    make_traces.main(tmp_path)
    for name in make_traces.WHAT:
        assert (tmp_path / name).read_text() == (TRACES / name).read_text()


@pytest.mark.parametrize("name", make_traces.WHAT)
def test_nineteen_seconds_of_twenty_are_labelled_right_from_counters(name: str, play: Play) -> None:
    seconds = play((TRACES / name).read_text())
    assert len(seconds) == make_traces.SECONDS
    assert {second.label["evidence"] for second in seconds} == {"gpm"}
    assert right(seconds) >= RIGHT_FROM, Counter(labelled(seconds))


EVERY = 10  # the agent's interval, unless it is configured


@pytest.mark.parametrize("name", make_traces.WHAT)
def test_samples_far_apart_know_each_second_s_roof(name: str, play_ticks: PlayTicks) -> None:
    """Between samples 10 s apart lie a whole prefill and a whole decode."""
    text = (TRACES / name).read_text()
    assert agreeing(intervals_of(text, play_ticks(text, EVERY))) >= RIGHT_FROM


def test_one_mean_over_prefill_and_decode_would_be_wrong(play_ticks: PlayTicks) -> None:
    """What the glances between samples are good for: the same without them."""
    text = (TRACES / "alternating.csv").read_text()
    blurred = [tick._replace(gpu=SeenGpu("0")) for tick in play_ticks(text, EVERY)]
    assert agreeing(intervals_of(text, blurred)) < 0.6


@pytest.mark.parametrize("name", make_traces.WHAT)
def test_nvml_alone_is_seldom_wrong_between_samples_far_apart(
    name: str, play_ticks: PlayTicks, reference: GpuRoofs
) -> None:
    text = without_gpm((TRACES / name).read_text())
    intervals = intervals_of(text, play_ticks(text, EVERY), reference)
    assert contradicting(intervals) <= WRONG_UP_TO


@pytest.mark.parametrize("name", make_traces.WHAT)
def test_nvml_alone_is_seldom_wrong(name: str, play: Play, reference: GpuRoofs) -> None:
    seconds = play(without_gpm((TRACES / name).read_text()), reference)
    assert {second.label["evidence"] for second in seconds} == {"nvml"}
    assert right(seconds, "unknown") >= 1 - WRONG_UP_TO, Counter(labelled(seconds))


def test_nvml_alone_finds_what_it_was_shown(play: Play, reference: GpuRoofs) -> None:
    for name in ("compute_bound.csv", "memory_bound.csv", "idle_held.csv"):
        assert right(play(without_gpm((TRACES / name).read_text()), reference)) >= 0.8, name


def test_nvml_alone_says_unknown_where_no_reference_phase_ran(play: Play) -> None:
    seconds = play(without_gpm((TRACES / "memory_bound.csv").read_text()))
    assert set(labelled(seconds)) == {"unknown"}


def percent(fields: Fields, name: str) -> float:
    return 100 * float(fields.get(name, 0.0))


def jobscope(fields: Fields) -> str:
    """Return the verdict of jobscope's thresholds; its tags in words of ours, "" for none of them.

    Its one tag for a job that is well, "ok", is counted as compute.
    """
    sm, dram = percent(fields, "sm_active_ratio"), percent(fields, "dram_active_ratio")
    rules = (
        (sm < 5, "idle"),
        (sm < 15, ""),  # underfed
        (sm >= 40 and percent(fields, "sm_occupancy_ratio") < 20, ""),  # low occupancy
        (dram >= 40 and dram >= sm, "memory"),
        (sm >= 40 and percent(fields, "tensor_active_ratio") < 1, ""),  # no tensor
    )
    return next((verdict for holds, verdict in rules if holds), "compute")


def kempner_pulse(fields: Fields) -> str:
    """Return the verdict of KempnerPulse's ordered thresholds in words of ours, "" for the rest."""
    sm, dram = percent(fields, "sm_active_ratio"), percent(fields, "dram_active_ratio")
    tensor, graphics = (
        percent(fields, "tensor_active_ratio"),
        percent(fields, "graphics_active_ratio"),
    )
    copying = percent(fields, "memory_utilization_ratio") >= 40 or link_rate(fields) >= 1e9
    rules = (
        (max(sm, dram, tensor, graphics) < 5, "idle"),
        (tensor >= 50 and sm >= 60, "compute"),
        (tensor >= 15 and sm >= 40, "compute"),
        (percent(fields, "fp64_active_ratio") >= 20 and sm >= 50, "compute"),
        (copying and sm < 30, "link"),
        (dram >= 50 and sm < 50, "memory"),
        (sm >= 50, "compute"),
        (dram >= 40, "memory"),
    )
    return next((verdict for holds, verdict in rules if holds), "")


def link_rate(fields: Fields) -> float:
    ways = ("receive", "transmit")
    return max(float(fields.get(f"pcie_{way}_bytes_per_second", 0.0)) for way in ways)


FEW_WARPS = make_traces.DECODE._replace(sm=45.0)
"""A decode that leaves half of the multiprocessors empty: peers' thresholds are made for it."""


def table(
    play: Play, play_ticks: PlayTicks, reference: GpuRoofs
) -> Iterator[tuple[str, float, float, float, float, float, float]]:
    texts = {name: (TRACES / name).read_text() for name in make_traces.WHAT}
    texts["memory, few warps"] = make_traces.trace(200, "decode with few warps", [FEW_WARPS])
    for name, text in texts.items():
        counted, weak = play(text), play(without_gpm(text), reference)
        peers = (share(counted, jobscope), share(counted, kempner_pulse))
        far_apart = agreeing(intervals_of(text, play_ticks(text, EVERY)))
        ours = (right(counted), far_apart, right(weak), 1 - right(weak, "unknown"))
        yield name, *ours, *peers


def test_fixed_thresholds_on_the_same_traces_for_comparison(
    play: Play, play_ticks: PlayTicks, reference: GpuRoofs, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(table(play, play_ticks, reference))
    with capsys.disabled():
        heads = ("gpm", "every 10 s", "nvml", "(wrong)", "jobscope", "KempnerPulse")
        print("\n" + f"{'seconds right':20}" + "".join(f"{head:>13}" for head in heads))
        for name, *shares in rows:
            print(f"{name:20}" + "".join(f"{each:13.1%}" for each in shares))
    for name, counted, far_apart, _, wrong, *_ in rows:
        assert min(counted, far_apart) >= RIGHT_FROM, name
        assert wrong <= WRONG_UP_TO, name
    ours = fmean(row[1] for row in rows)
    assert ours > max(fmean(row[5] for row in rows), fmean(row[6] for row in rows))


def test_a_job_s_page_shows_how_long_each_gpu_was_under_which_roof(tmp_path: Path) -> None:
    site = Site(tmp_path, environment=environment(TRACES / "two_h100.csv"))
    site.call("rooflight", "run", "--interval", "0.25", "--", "sleep", "3")
    report = site.report()
    busy, idle = report["nodes"][0]["bounds"]
    assert (busy["gpu"], busy["evidence"], idle["gpu"]) == ("0", "gpm", "1")
    elapsed = report["job"]["elapsed_seconds"]
    assert busy["seconds"]["compute"] == pytest.approx(elapsed, abs=0.5)
    assert sum(busy["seconds"].values()) == pytest.approx(elapsed, rel=0.02)
    assert idle["seconds"] == {"idle": pytest.approx(elapsed, rel=0.02)}
    page = site.call("jobinspect", report["job"]["jobid"])
    assert "Time under each roof, node1" in page


def test_a_dcgm_exporter_gives_an_a100_its_labels(tmp_path: Path) -> None:
    uuid = "GPU-22222222-0000-0000-0000-000000000000"
    levels = {
        "GR_ENGINE": 0.97,
        "DRAM": 0.75,
        "PIPE_TENSOR": 0.04,
        "PIPE_FP32": 0.1,
        "PIPE_FP64": 0,
    }
    exporter = Exporter(
        "".join(
            f'DCGM_FI_PROF_{name}_ACTIVE{{gpu="0",UUID="{uuid}"}} {level}\n'
            for name, level in levels.items()
        )
    )
    probes = f'[probes]\ndcgm_url = "{exporter.url}"\n'
    site = Site(tmp_path, text=probes, environment=environment(TRACES / "four_a100.csv"))
    for _ in range(20):  # once the exporter is late, it is not asked for a while: another run
        asked = exporter.requests
        site.call("rooflight", "run", "--interval", "0.25", "--", "sleep", "2")
        (node,) = site.report()["nodes"]
        if exporter.requests - asked >= node["samples"]:
            break
    exporter.close()
    first, *others = node["bounds"]
    assert (first["evidence"], list(first["seconds"])) == ("dcgm", ["memory"])
    assert {gpu["evidence"] for gpu in others} == {"nvml"}
