"""Every rule at both sides of its threshold, and that no rule can silence another."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

import agent.inspect
from agent.inspect.findings import MOST_CASES, RULES, SEVERITIES, find
from agent.inspect.findings.page import page
from agent.inspect.findings.rule import Case, Rule
from agent.inspect.model import (
    Gpu,
    GpuBounds,
    JobHeader,
    JobReport,
    Node,
    Outlier,
    Phase,
    Usage,
)

GIBIBYTE = 2.0**30
PAGE = Path(agent.inspect.__file__).with_name("FINDINGS.md")


def line(what: str, scope: str = "job", unit: str = "ratio", **numbers: float | None) -> Usage:
    return Usage(what, unit, scope, **numbers)  # type: ignore[arg-type]


def node(*usage: Usage, samples: int = 100, expected: int = 100, **values: object) -> Node:
    made = Node("n1", 100.0, samples, expected, 0, True, "cgroup2", usage)
    return msgspec.structs.replace(made, **{"cpus": 8.0, **values})


def gpu(*usage: Usage, index: str = "3", host: str = "n1", **values: object) -> Node:
    """Return a host with one GPU, whose lines are given without its name."""
    lines = [msgspec.structs.replace(each, what=f"gpu {index} {each.what}") for each in usage]
    return msgspec.structs.replace(node(*lines), host=host, gpus=[Gpu(index)], **values)


def used(mean: float, **values: object) -> Node:
    return msgspec.structs.replace(gpu(line("utilization", "gpu", mean=mean)), **values)


def under(**seconds: float) -> Node:
    return node(bounds=[GpuBounds("0", "gpm", seconds)])


def report(*nodes: Node, phases: Sequence[Phase] = (), **job: object) -> JobReport:
    header = JobHeader("1", "c", "COMPLETED", cpus=8, elapsed_seconds=100.0, end_ms=100_000)
    header = msgspec.structs.replace(header, **{"hosts": [each.name for each in nodes], **job})
    return JobReport(header, nodes, phases, [], [])


def phase(name: str, bound: str, seconds: float = 2.0, **ratios: float) -> Phase:
    made = Phase("n1", "w", name, "cpu", bound, seconds, 0, dtype="fp32")
    return msgspec.structs.replace(made, **ratios)


def found(given: JobReport) -> set[str]:
    return {finding.id for finding in find(given)}


class Sides(NamedTuple):
    """A rule, a report for which it fires, and one just beyond its threshold."""

    rule: str
    fires: JobReport
    silent: JobReport


def memory(peak: float, limit: float, whole: float = 1024.0) -> Node:
    return node(
        line("memory", unit="B", peak=peak * GIBIBYTE, available=limit * GIBIBYTE),
        line("node memory", "node", "B", available=whole * GIBIBYTE),
    )


def gpu_memory(peak: float, mean: float = 0.5) -> Node:
    return gpu(
        line("utilization", "gpu", mean=mean),
        line("memory", "gpu", "B", peak=peak * GIBIBYTE, available=100 * GIBIBYTE),
    )


def shared(rate: float, held: float = 0.0, operations: float = 0.0) -> list[Usage]:
    return [
        line("shared files read", "node", "B", total=rate * 100.0),
        line("shared file operations", "node", "count", total=operations * 100.0),
        line("temp disk held", unit="B", peak=held * GIBIBYTE),
    ]


def links(infiniband: float, network: float, ports: float = 4.0) -> Node:
    return node(
        line("infiniband ports", "node", "count", peak=ports),
        line("infiniband out", "node", "B", total=infiniband),
        line("network out", "node", "B", total=network),
    )


def pipes(fp32: float, tensor: float, compute: float = 60.0) -> Node:
    lines = [line("fp32 active", "gpu", mean=fp32), line("tensor active", "gpu", mean=tensor)]
    bounds = [GpuBounds("3", "gpm", {"compute": compute, "memory": 100.0 - compute})]
    return gpu(*lines, bounds=bounds)


def feeding(utilization: float, cpu: float = 0.0, disk: float = 0.0) -> Node:
    made = used(utilization)
    more = [line("cpu", mean=cpu), line("waited for disk", "node", "s", total=disk)]
    return msgspec.structs.replace(made, usage=[*made.usage, *more])


def on(host: str, made: Node) -> Node:
    return msgspec.structs.replace(made, host=host)


def cpu(mean: float, peak: float | None = None) -> Node:
    return node(line("cpu", mean=mean, peak=peak))


def waits(what: str, seconds: float, *more: Usage) -> Node:
    return node(line(what, "node", "s", total=seconds), *more)


OTHER = Outlier("cpu", "ratio", "n1", 0.1, 0.9)

SIDES = [
    Sides("too-short", report(node(samples=4, expected=4)), report(node(samples=5, expected=5))),
    Sides("samples-missing", report(node(samples=79)), report(node(samples=80))),
    Sides(
        "partly-seen",
        report(node(line("node power", "node", "W", mean=1.0, samples=79))),
        report(node(line("node power", "node", "W", mean=1.0, samples=80))),
    ),
    Sides(
        "partly-seen",
        report(node(line("cpu", mean=1.0, samples=14), samples=20, expected=20)),
        report(node(line("cpu", mean=1.0, samples=15), samples=20, expected=20)),
    ),
    Sides("lost", report(node(), state="LOST"), report(node(), state="RUNNING")),
    Sides("hosts-missing", report(node(), hosts=["n1", "n2"]), report(node(), hosts=["n1"])),
    Sides("low-cpu", report(cpu(0.24)), report(cpu(0.26))),
    Sides("serial", report(cpu(0.9 / 8)), report(cpu(0.89 / 8))),
    Sides("serial", report(cpu(1.1 / 8)), report(cpu(1.11 / 8))),
    Sides("cpus-over-asked", report(cpu(0.1, 0.49), gpus=1), report(cpu(0.1, 0.51), gpus=1)),
    Sides(
        "crowded-node",
        report(node(line("node cpu others", "node", mean=0.21))),
        report(node(line("node cpu others", "node", mean=0.19))),
    ),
    Sides(
        "uneven-nodes",
        report(cpu(0.39), on("n2", cpu(0.8))),
        report(cpu(0.41), on("n2", cpu(0.8))),
    ),
    Sides(
        "uneven-nodes",
        report(cpu(0.1), on("n2", cpu(0.26))),
        report(cpu(0.1), on("n2", cpu(0.24))),
    ),
    Sides(
        "waited-for-cpu",
        report(waits("job waited for cpu", 51.0, line("cpu", mean=0.91))),
        report(waits("job waited for cpu", 49.0, line("cpu", mean=0.91))),
    ),
    Sides(
        "time-over-asked",
        report(node(), time_limit_seconds=3600.0, elapsed_seconds=719.0),
        report(node(), time_limit_seconds=3600.0, elapsed_seconds=721.0),
    ),
    Sides("timed-out", report(node(), state="TIMEOUT"), report(node())),
    Sides("near-memory-limit", report(memory(91, 100)), report(memory(89, 100))),
    Sides("memory-over-asked", report(memory(29, 100)), report(memory(31, 100))),
    Sides("memory-over-asked", report(memory(1, 4)), report(memory(1, 3.9))),
    Sides("memory-over-asked", report(memory(1, 90, 100)), report(memory(1, 96, 100))),
    Sides("memory-over-asked", report(memory(1, 90)), report(memory(1, 90), end_ms=None)),
    Sides(
        "out-of-memory",
        report(node(line("out of memory", unit="count", total=1.0))),
        report(node(line("out of memory", unit="count", total=0.0))),
    ),
    Sides("out-of-memory", report(node(), state="OUT_OF_MEMORY"), report(node(), state="FAILED")),
    Sides(
        "waited-for-memory",
        report(waits("waited for memory", 10.1)),
        report(waits("waited for memory", 9.9)),
    ),
    Sides(
        "waited-for-memory",
        report(waits("job waited for memory", 10.1)),
        report(
            waits("waited for memory", 90.0, line("job waited for memory", unit="s", total=0.0))
        ),
    ),
    Sides("idle-gpu", report(used(0.019)), report(used(0.021))),
    Sides("underused-gpu", report(used(0.24)), report(used(0.26))),
    Sides("underused-gpu", report(used(0.2)), report(used(0.2, elapsed_seconds=59.0))),
    Sides(
        "uneven-gpus",
        report(used(0.5), used(0.76, host="n2")),
        report(used(0.5), used(0.74, host="n2")),
    ),
    Sides(
        "uneven-gpus",
        report(used(0.021), used(0.9, host="n2")),
        report(used(0.019), used(0.9, host="n2")),  # an idle one is another finding
    ),
    Sides(
        "unlike-the-others",
        msgspec.structs.replace(report(node()), outliers=[OTHER]),
        report(node()),
    ),
    Sides(
        "gpu-shared",
        report(gpu(line("processes of others", "gpu", "count", peak=1.0))),
        report(gpu(line("processes of others", "gpu", "count", peak=0.0))),
    ),
    Sides("gpu-misplaced", report(node(gpus_not_given="2")), report(node())),
    Sides("gpu-misplaced", report(node(gpus_not_found="2")), report(node())),
    Sides("gpu-memory-full", report(gpu_memory(95.1)), report(gpu_memory(94.9))),
    Sides("gpu-memory-empty", report(gpu_memory(19.9)), report(gpu_memory(20.1))),
    Sides("gpu-memory-empty", report(gpu_memory(1)), report(gpu_memory(1, mean=0.01))),
    Sides(
        "slowed-for-power",
        report(gpu(line("slowed for power", "gpu", "s", total=10.1))),
        report(gpu(line("slowed for power", "gpu", "s", total=9.9))),
    ),
    Sides(
        "slowed-for-heat",
        report(gpu(line("slowed for heat", "gpu", "s", total=1.1))),
        report(gpu(line("slowed for heat", "gpu", "s", total=0.9))),
    ),
    Sides(
        "gpu-errors",
        report(gpu(line("xid errors", "gpu", "count", total=1.0))),
        report(gpu(line("xid errors", "gpu", "count", total=0.0))),
    ),
    Sides(
        "temp-disk-filling",
        report(node(line("temp disk used", "node", "B", peak=91.0, available=100.0))),
        report(node(line("temp disk used", "node", "B", peak=89.0, available=100.0))),
    ),
    Sides("temp-disk-unused", report(node(*shared(101e6))), report(node(*shared(99e6)))),
    Sides(
        "temp-disk-unused",
        report(node(*shared(0.0, operations=1001.0))),
        report(node(*shared(0.0, operations=999.0))),
    ),
    Sides("temp-disk-unused", report(node(*shared(1e9, 0.9))), report(node(*shared(1e9, 1.1)))),
    Sides(
        "waited-for-disk",
        report(waits("waited for disk", 10.1)),
        report(waits("waited for disk", 9.9)),
    ),
    Sides("data-starved", report(feeding(0.4, cpu=0.81)), report(feeding(0.4, cpu=0.79))),
    Sides("data-starved", report(feeding(0.4, disk=10.1)), report(feeding(0.4, disk=9.9))),
    Sides("data-starved", report(feeding(0.49, cpu=0.9)), report(feeding(0.51, cpu=0.9))),
    Sides(
        "infiniband-errors",
        report(node(line("infiniband errors", "node", "count", total=10.0))),
        report(node(line("infiniband errors", "node", "count", total=9.0))),
    ),
    Sides(
        "infiniband-unused",
        report(links(0.9e6, 1e8), nodes=2),
        report(links(1.1e6, 1e8), nodes=2),
    ),
    Sides("infiniband-unused", report(links(0, 1e8), nodes=2), report(links(0, 0.9e8), nodes=2)),
    Sides("infiniband-unused", report(links(0, 1e8), nodes=2), report(links(0, 1e8), nodes=1)),
    Sides("infiniband-unused", report(links(0, 1e8), nodes=2), report(links(0, 1e8, 0.0), nodes=2)),
    Sides(
        "link-saturated",
        report(node(line("network in rate", "node", "B/s", mean=71.0, available=100.0))),
        report(node(line("network in rate", "node", "B/s", mean=69.0, available=100.0))),
    ),
    Sides(
        "memory-bound-gpu",
        report(under(memory=51.0, compute=49.0, idle=900.0)),
        report(under(memory=49.0, compute=51.0)),
    ),
    Sides("memory-bound-gpu", report(under(memory=10.0)), report(under(memory=9.9))),
    Sides(
        "compute-bound-gpu",
        report(under(memory=49.0, compute=51.0)),
        report(under(memory=51.0, compute=49.0)),
    ),
    Sides(
        "link-bound-gpu",
        report(under(link=26.0, latency=74.0)),
        report(under(link=24.0, latency=76.0)),
    ),
    Sides(
        "latency-bound-gpu",
        report(under(latency=51.0, compute=49.0)),
        report(under(latency=49.0, compute=51.0)),
    ),
    Sides("fp32-on-tensor-cores", report(pipes(0.31, 0.04)), report(pipes(0.29, 0.04))),
    Sides("fp32-on-tensor-cores", report(pipes(0.8, 0.049)), report(pipes(0.8, 0.051))),
    Sides("fp32-on-tensor-cores", report(pipes(0.8, 0.0)), report(pipes(0.8, 0.0, compute=49.0))),
    Sides(
        "memory-bound-phase",
        report(node(), phases=[phase("decode", "memory")]),
        report(node(), phases=[phase("decode", "latency")]),
    ),
    Sides(
        "compute-bound-phase",
        report(node(), phases=[phase("prefill", "compute")]),
        report(node(), phases=[phase("prefill", "balanced")]),
    ),
    Sides(
        "link-or-io-bound-phase",
        report(node(), phases=[phase("load", "io")]),
        report(node(), phases=[phase("load", "memory")]),
    ),
]


@pytest.mark.parametrize("sides", SIDES, ids=[f"{n}-{side.rule}" for n, side in enumerate(SIDES)])
def test_a_rule_fires_on_one_side_of_its_threshold(sides: Sides) -> None:
    assert sides.rule in found(sides.fires)
    assert sides.rule not in found(sides.silent)


def test_every_rule_is_tested_and_has_a_name_of_its_own() -> None:
    names = [rule.id for rule in RULES]
    assert sorted(set(names)) == sorted(names)
    assert {side.rule for side in SIDES} == set(names)


def test_a_job_too_short_to_be_judged_has_no_shares() -> None:
    short = [msgspec.structs.replace(side.fires.nodes[0], elapsed_seconds=9.9) for side in SIDES]
    judged = {"low-cpu", "serial", "cpus-over-asked", "temp-disk-unused", "data-starved"}
    for each in short:
        assert not judged & found(report(each, gpus=len(each.gpus)))


def test_a_pending_job_has_no_findings() -> None:
    assert find(JobReport(JobHeader("1", "c", "PENDING"), [], [], [], [])) == []


def test_one_idle_gpu_does_not_silence_the_rest() -> None:
    bad = used(0.0)
    lines = (
        line("memory", unit="B", peak=99.0, available=100.0),
        line("waited for disk", "node", "s", total=50.0),
    )
    both = msgspec.structs.replace(bad, usage=[*bad.usage, *lines], samples=3, samples_expected=90)
    everything = found(report(both, state="LOST", gpus=1))
    assert {"idle-gpu", "near-memory-limit", "waited-for-disk", "lost", "too-short"} <= everything


def failing(error: Exception) -> Rule:
    def cases(_: JobReport) -> Iterable[Case]:
        yield Case("half of it")
        raise error

    return Rule("odd", "hint", "", "", "", cases)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), TypeError("x"), KeyError("x")])
def test_a_rule_that_fails_says_so_and_the_others_go_on(error: Exception) -> None:
    rules = (failing(error), *RULES)
    findings = find(report(used(0.0)), rules)
    assert {"rule-failed", "idle-gpu"} <= {finding.id for finding in findings}
    assert "odd" not in {finding.id for finding in findings}
    words = next(finding.words for finding in findings if finding.id == "rule-failed")
    assert type(error).__name__ in words


def test_bad_numbers_of_one_host_leave_the_others_judged() -> None:
    odd = node(line("memory", unit="B", peak=1.0, available=0.0), elapsed_seconds=0.0, cpus=0.0)
    findings = found(report(odd, on("n2", used(0.0))))
    assert "idle-gpu" in findings
    assert "rule-failed" not in findings


def test_warnings_come_first() -> None:
    mixed = report(msgspec.structs.replace(used(0.0), samples=3), phases=[phase("x", "memory")])
    severities = [each.severity for each in find(mixed)]
    assert len(set(severities)) > 1
    assert severities == sorted(severities, key=SEVERITIES.index)


def test_many_alike_are_told_once_and_all_named() -> None:
    nodes = [used(0.0, host=f"n{number}") for number in range(1, 65)]
    (finding,) = [each for each in find(report(*nodes)) if each.id == "idle-gpu"]
    assert "n1: gpu 3 was held and used 0.0% of the time; so it is in 64 places" in finding.words
    assert "and 58 more" in finding.words
    assert len(finding.places) == 64
    few = [each for each in find(report(*nodes[:MOST_CASES])) if each.id == "idle-gpu"]
    assert [each.places for each in few] == [["n1 gpu 3"], ["n2 gpu 3"], ["n3 gpu 3"]]


def test_missing_hosts_are_counted_and_named_as_slurm_names_them() -> None:
    made = [node(host="a.site", node="a"), node(host="b.site", node="b")]
    partly = report(*made, hosts=["a", "b", "c"])
    (finding,) = [each for each in find(partly) if each.id == "hosts-missing"]
    assert finding.words == "footprints from 2 of 3 nodes: nothing is known of c"


def test_memory_over_asked_says_what_would_do() -> None:
    (finding,) = [each for each in find(report(memory(10, 100))) if each.id == "memory-over-asked"]
    assert finding.words == (
        "n1: 10.0 GiB of 100 GiB memory was used at the peak; --mem=12G leaves 20% spare"
    )


def test_gpus_under_a_roof_are_named_with_share_and_evidence() -> None:
    gpus = [
        GpuBounds("0", "gpm", {"memory": 80.0, "compute": 20.0}),
        GpuBounds("1", "gpm", {"compute": 100.0}),
        GpuBounds("2", "nvml", {"memory": 60.0, "unknown": 40.0}),
    ]
    findings = {each.id: each.words for each in find(report(node(bounds=gpus)))}
    assert findings["memory-bound-gpu"].endswith("held back gpu 0 (80% by gpm), 2 (60% by nvml)")
    assert findings["compute-bound-gpu"].endswith("held back gpu 1 (100% by gpm)")


def test_the_longest_memory_bound_phase_is_named_with_its_numbers() -> None:
    phases = [
        phase("decode", "memory", 2.0, memory_ratio=0.81, compute_ratio=0.04),
        phase("optimizer", "memory", 1.0, memory_ratio=0.9, compute_ratio=0.01),
    ]
    words = find(report(node(), phases=phases))[0].words
    assert "decode took 2.00 s and is memory-bound: 81% of this device's memory bandwidth" in words


def test_the_page_of_rules_is_up_to_date() -> None:
    """After a change: python -m agent.inspect.findings.page > agent/inspect/FINDINGS.md"""
    assert PAGE.read_text(encoding="utf-8") == page()
