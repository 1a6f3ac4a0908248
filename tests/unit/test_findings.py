"""Every rule at both sides of its threshold."""

from collections.abc import Sequence

import msgspec
import pytest

from agent.inspect.findings import find
from agent.inspect.model import GpuBounds, JobHeader, JobReport, Node, Phase, Usage

MEBIBYTE = float(1 << 20)


def node(*usage: Usage, samples: int = 100, expected: int = 100) -> Node:
    return Node("n1", 100.0, samples, expected, 0, True, "cgroup2", usage)


def under(**seconds: float) -> Node:
    return msgspec.structs.replace(node(), bounds=[GpuBounds("0", "gpm", seconds)])


def report(
    *nodes: Node, phases: Sequence[Phase] = (), state: str = "COMPLETED", gpus: int = 0
) -> JobReport:
    job = JobHeader("1", "c", state, cpus=8, gpus=gpus, elapsed_seconds=100.0)
    return JobReport(job, nodes, phases, [], [])


def with_job(given: JobReport, **values: object) -> JobReport:
    return msgspec.structs.replace(given, job=msgspec.structs.replace(given.job, **values))


def found(given: JobReport) -> set[str]:
    return {finding.id for finding in find(given)}


def phase(
    name: str,
    bound: str,
    seconds: float,
    memory_ratio: float | None = None,
    compute_ratio: float | None = None,
) -> Phase:
    return Phase(
        "n1",
        "w",
        name,
        "cpu",
        bound,
        seconds,
        0,
        dtype="fp32",
        memory_ratio=memory_ratio,
        compute_ratio=compute_ratio,
    )


@pytest.mark.parametrize(
    ("identifier", "fires", "silent"),
    [
        ("too-short", report(node(samples=4, expected=4)), report(node(samples=5, expected=5))),
        ("samples-missing", report(node(samples=79)), report(node(samples=80))),
        ("lost", report(node(), state="LOST"), report(node(), state="RUNNING")),
        (
            "low-cpu",
            report(node(Usage("cpu", "ratio", "job", mean=0.24))),
            report(node(Usage("cpu", "ratio", "job", mean=0.26))),
        ),
        (
            "crowded-node",
            report(node(Usage("node cpu others", "ratio", "node", mean=0.21))),
            report(node(Usage("node cpu others", "ratio", "node", mean=0.19))),
        ),
        (
            "hosts-missing",
            with_job(report(node()), hosts=["n1", "n2"]),
            with_job(report(node()), hosts=["n1"]),
        ),
        (
            "time-over-asked",
            with_job(report(node()), time_limit_seconds=3600.0, elapsed_seconds=719.0),
            with_job(report(node()), time_limit_seconds=3600.0, elapsed_seconds=721.0),
        ),
        (
            "near-memory-limit",
            report(node(Usage("memory", "B", "job", peak=91 * MEBIBYTE, available=100 * MEBIBYTE))),
            report(node(Usage("memory", "B", "job", peak=89 * MEBIBYTE, available=100 * MEBIBYTE))),
        ),
        (
            "idle-gpu",
            report(node(Usage("gpu 3 utilization", "ratio", "gpu", mean=0.019)), gpus=1),
            report(node(Usage("gpu 3 utilization", "ratio", "gpu", mean=0.021)), gpus=1),
        ),
        (
            "waited-for-disk",
            report(node(Usage("waited for disk", "s", "node", total=10.1))),
            report(node(Usage("waited for disk", "s", "node", total=9.9))),
        ),
        (
            "waited-for-memory",
            report(node(Usage("waited for memory", "s", "node", total=10.1))),
            report(node(Usage("waited for memory", "s", "node", total=9.9))),
        ),
        (
            "memory-bound-gpu",
            report(under(memory=51.0, compute=49.0, idle=900.0), gpus=1),
            report(under(memory=49.0, compute=51.0), gpus=1),
        ),
        (
            "memory-bound-gpu",
            report(under(memory=10.0), gpus=1),
            report(under(memory=9.9), gpus=1),
        ),
        (
            "link-bound-gpu",
            report(under(link=26.0, latency=74.0), gpus=1),
            report(under(link=24.0, latency=76.0), gpus=1),
        ),
        (
            "memory-bound-phase",
            report(node(), phases=[phase("decode", "memory", 2.0)]),
            report(node(), phases=[phase("decode", "latency", 2.0)]),
        ),
        (
            "compute-bound-phase",
            report(node(), phases=[phase("prefill", "compute", 2.0)]),
            report(node(), phases=[phase("prefill", "balanced", 2.0)]),
        ),
    ],
)
def test_a_rule_fires_on_one_side_of_its_threshold(
    identifier: str, fires: JobReport, silent: JobReport
) -> None:
    assert identifier in found(fires)
    assert identifier not in found(silent)


def test_gpus_under_a_roof_are_named_with_share_and_evidence() -> None:
    gpus = [
        GpuBounds("0", "gpm", {"memory": 80.0, "compute": 20.0}),
        GpuBounds("1", "gpm", {"compute": 100.0}),
        GpuBounds("2", "nvml", {"memory": 60.0, "unknown": 40.0}),
    ]
    words = find(report(msgspec.structs.replace(node(), bounds=gpus), gpus=3))[0].words
    assert words.endswith("held back gpu 0 (80% by gpm), 2 (60% by nvml)")


def test_one_idle_gpu_does_not_silence_the_rest() -> None:
    lines = (
        Usage("gpu 0 utilization", "ratio", "gpu", mean=0.0),
        Usage("memory", "B", "job", peak=99.0, available=100.0),
        Usage("waited for disk", "s", "node", total=50.0),
    )
    everything = found(report(node(*lines, samples=3, expected=90), state="LOST", gpus=1))
    assert {"idle-gpu", "near-memory-limit", "waited-for-disk", "lost", "too-short"} <= everything


def test_warnings_come_first() -> None:
    lines = (
        Usage("waited for disk", "s", "node", total=50.0),
        Usage("gpu 0 utilization", "ratio", "gpu", mean=0.0),
    )
    severities = [each.severity for each in find(report(node(*lines), gpus=1))]
    assert severities == sorted(severities, key=["warning", "hint", "info"].index)


def test_the_longest_memory_bound_phase_is_named_with_its_numbers() -> None:
    phases = [
        phase("decode", "memory", 2.0, memory_ratio=0.81, compute_ratio=0.04),
        phase("optimizer", "memory", 1.0, memory_ratio=0.9, compute_ratio=0.01),
    ]
    words = find(report(node(), phases=phases))[0].words
    assert "decode took 2.00 s and is memory-bound: 81% of this device's memory bandwidth" in words
