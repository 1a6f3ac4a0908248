"""Labels of the node's CPUs: memory where traffic says so, idle, and else unknown."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from agent.labels import gpuroofs
from agent.labels.cpu import TRAFFIC, CpuLabeller
from agent.labels.gpuroofs import GpuRoofs
from agent.messages import JobStart
from agent.runner import runner
from probes.cpu import CpuProbe
from probes.probe import Context
from probes.resctrl import ResctrlProbe
from probes.sample import Sample, Value, tags
from tests.golden.machine import SteppedClock, copy_machine, later_files
from tests.unit.test_loop import Clock, Sink, make_loop

ROOF = 100e9
MEASURED = {"cpu": GpuRoofs({TRAFFIC: ROOF})}


def cpu(utilization: float, cpus: float = 8.0) -> Sample:
    return Sample("cpu", (), {"utilization_ratio": utilization, "cpus_total": cpus})


def traffic(**moved: float) -> list[Sample]:
    return [
        Sample("memory_traffic", tags(cache=cache), {"moved_bytes": bytes_})
        for cache, bytes_ in moved.items()
    ]


def labels(
    rates: Iterable[float | None],
    utilization: float = 0.9,
    measured: Mapping[str, GpuRoofs] = MEASURED,
) -> list[dict[str, Value]]:
    """Return the labels of seconds with these rates of traffic; None: it cannot be read."""
    labeller, moved, found = CpuLabeller(measured), 0.0, []
    for second, rate in enumerate([0.0, *rates]):
        moved += rate or 0.0
        samples = [cpu(utilization), *([] if rate is None else traffic(L3_00=moved))]
        (sample,) = labeller.label(samples, second * 1000)
        found.append(dict(sample.fields))
    return found[1:]


@pytest.mark.parametrize(
    ("share", "utilization", "bound"),
    [
        (0.61, 0.9, "memory"),
        (0.59, 0.9, "unknown"),
        (1.3, 0.9, "memory"),
        (0.61, 0.051, "memory"),
        (0.61, 0.049, "idle"),
        (0.0, 0.9, "unknown"),
    ],
)
def test_traffic_near_the_roof_is_memory_and_else_it_is_not_known(
    share: float, utilization: float, bound: str
) -> None:
    (label,) = labels([share * ROOF], utilization)
    assert label == {
        "bound": bound,
        f"{bound}_seconds": 1.0,
        "memory_ratio": pytest.approx(min(1.0, share)),
        "evidence": "resctrl",
    }


def test_memory_stays_the_bound_a_little_below_where_it_begins() -> None:
    found = labels([0.7 * ROOF, 0.55 * ROOF, 0.45 * ROOF, 0.55 * ROOF])
    assert [label["bound"] for label in found] == ["memory", "memory", "unknown", "unknown"]


def test_without_traffic_or_without_a_roof_the_bound_is_unknown() -> None:
    (unread,) = labels([None])
    assert unread == {"bound": "unknown", "unknown_seconds": 1.0}
    (unmeasured,) = labels([0.9 * ROOF], measured={})
    assert unmeasured["bound"] == "unknown"
    assert "memory_ratio" not in unmeasured


def test_counters_that_begin_anew_tell_nothing_for_once() -> None:
    labeller = CpuLabeller(MEASURED)
    bounds = []
    for second, samples in enumerate(
        (traffic(L3_00=9e12), traffic(L3_00=0.0), traffic(L3_00=90e9), traffic(L3_01=1.0))
    ):
        (label,) = labeller.label([cpu(1.0), *samples], second * 1000)
        bounds.append(label.fields["bound"])
    assert bounds == ["unknown", "unknown", "memory", "unknown"]


def test_sockets_are_summed() -> None:
    labeller = CpuLabeller(MEASURED)
    labeller.label([cpu(1.0), *traffic(L3_00=0.0, L3_01=0.0)], 0)
    (label,) = labeller.label([cpu(1.0), *traffic(L3_00=40e9, L3_01=40e9)], 1000)
    assert label.fields["memory_ratio"] == pytest.approx(0.8)


def ceiling(kind: str, rate: float, threads: float = 8.0, device: str = "cpu") -> Sample:
    names = tags(device=device, kind=kind, dtype="fp32", model="x")
    return Sample("ceiling", names, {"bytes_per_second": rate, "threads_total": threads})


def test_the_highest_memory_ceiling_of_all_cpus_is_the_roof(tmp_path: Path) -> None:
    file = tmp_path / "cpu-roofs.json"
    labeller = CpuLabeller(keep=lambda table: gpuroofs.save(file, table))
    labeller.label([cpu(1.0, cpus=8.0)], 0)
    labeller.learn([ceiling("copy", 50e9), ceiling("update", 76e9), ceiling("disk-read", 9e12)])
    labeller.learn([ceiling("read", 300e9, device="cuda:0"), ceiling("copy", 90e9, threads=1.0)])
    labeller.learn([ceiling("copy", 40e9)])
    assert gpuroofs.load(file) == {"cpu": GpuRoofs({TRAFFIC: 76e9})}


def test_a_node_without_cpu_figures_has_no_label() -> None:
    assert CpuLabeller(MEASURED).label(traffic(L3_00=1.0), 0) == []


def test_a_job_on_the_fixture_machine_counts_its_seconds_under_the_memory_roof(
    tmp_path: Path,
) -> None:
    """Its traffic grows by 360 GB in ten seconds, on both sockets and in both control groups."""
    copy, stepped, clock, sink = tmp_path / "machine", SteppedClock(), Clock(), Sink()
    context = Context(copy_machine("gpu_node", copy), stepped)
    probes = [runner(CpuProbe, context), runner(ResctrlProbe, context)]
    loop = make_loop(tmp_path, probes, clock, sink)
    loop.cpu_labeller.learn([ceiling("triad", 40e9, threads=1024.0)])
    loop.start_job(JobStart("7", int(clock.now * 1000)))
    later_files("gpu_node", copy)
    clock.now += 10
    stepped.now += 10
    loop.tick(int(clock.now * 1000))
    labelled = sink.last("cpu_bound").fields
    assert labelled["memory_ratio"] == pytest.approx(0.9)
    assert labelled["bound"] == "memory"
    loop.end_job("7", 0)
    assert sink.last("job_footprint").fields["node_cpu_memory_seconds"] == 10.0
    loop.close()
