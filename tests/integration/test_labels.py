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
from probes.gpu import GpuProbe
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


Play = Callable[..., list[Second]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Replay a trace through the real binding, the probe, the range check and the labeller."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(build())))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    clock, copy = tmp_path / "clock", tmp_path / "trace.csv"

    def seconds_of(text: str, measured: GpuRoofs | None = None) -> list[Second]:
        copy.write_text(text)
        settings = replay_settings({"trace": str(copy), "clock": str(clock)})
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        labeller = Labeller({MODEL: measured} if measured else {})
        truths = truths_of(text)
        samples = ticks(clock, len(truths))
        labelled = [
            labeller.label([sample], round(1000 * (number - 1 + JUST_BEFORE)))[0]
            for number, sample in enumerate(samples)
        ]
        pairs = zip(truths, samples[1:], labelled[1:], strict=True)
        return [Second(truth, seen.fields, label.fields) for truth, seen, label in pairs]

    return seconds_of


def ticks(clock: Path, seconds: int) -> list[Sample]:
    """Return the first sample, from which GPM starts, and one for each second."""
    now = 0.0
    clock.write_text("0")
    probe = GpuProbe(Context(monotonic=lambda: now))
    samples = list(probe.sample())
    for second in range(seconds):
        now = second + JUST_BEFORE
        clock.write_text(str(now))
        samples += probe.sample()
    probe.close()
    checked = [plausible(sample) for sample in samples]
    assert sum(dropped for _, dropped in checked) == 0
    return [sample for sample, _ in checked]


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
    play: Play, reference: GpuRoofs
) -> Iterator[tuple[str, float, float, float, float, float]]:
    texts = {name: (TRACES / name).read_text() for name in make_traces.WHAT}
    texts["memory, few warps"] = make_traces.trace(200, "decode with few warps", [FEW_WARPS])
    for name, text in texts.items():
        counted, weak = play(text), play(without_gpm(text), reference)
        peers = (share(counted, jobscope), share(counted, kempner_pulse))
        yield name, right(counted), right(weak), 1 - right(weak, "unknown"), *peers


def test_fixed_thresholds_on_the_same_traces_for_comparison(
    play: Play, reference: GpuRoofs, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(table(play, reference))
    with capsys.disabled():
        heads = ("seconds right", "gpm", "nvml", "(wrong)", "jobscope", "KempnerPulse")
        print("\n" + f"{heads[0]:20}" + "".join(f"{head:>14}" for head in heads[1:]))
        for name, *shares in rows:
            print(f"{name:20}" + "".join(f"{each:14.1%}" for each in shares))
    ours = fmean(row[1] for row in rows)
    assert ours > max(fmean(row[4] for row in rows), fmean(row[5] for row in rows))


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
    site.call("rooflight", "run", "--interval", "0.25", "--", "sleep", "2")
    exporter.close()
    first, *others = site.report()["nodes"][0]["bounds"]
    assert (first["evidence"], list(first["seconds"])) == ("dcgm", ["memory"])
    assert {gpu["evidence"] for gpu in others} == {"nvml"}
