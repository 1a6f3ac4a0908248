"""GPUs: idle, uneven, full, slowed, broken."""

from collections.abc import Iterator

from agent.inspect.findings.rule import (
    SHORTEST_JUDGED_SECONDS,
    Case,
    Rule,
    at,
    gpus_of,
    share_of_time,
    used_ratio,
)
from agent.inspect.model import Gpu, JobReport, Node
from agent.inspect.outliers import RULE_WORDS
from agent.inspect.units import show, some

IDLE_RATIO = 0.02
LOW_RATIO = 0.25
LOW_AFTER_SECONDS = 60.0
UNEVEN_DIFFERENCE = 0.25
FULL_RATIO = 0.95
EMPTY_RATIO = 0.2
POWER_SHARE = 0.1
HEAT_SHARE = 0.01


def idle(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs were held and not used."""
    for node, gpu in gpus_of(report):
        mean = node.mean("utilization", gpu.gpu)
        if mean is not None and mean < IDLE_RATIO:
            words = f"{node.name}: gpu {gpu.gpu} was held and used {mean:.1%} of the time"
            yield Case(words, at(node, gpu))


def hardly_used(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs ran a kernel for a small part of the time."""
    for node, gpu in gpus_of(report):
        mean = node.mean("utilization", gpu.gpu)
        if mean is not None and IDLE_RATIO <= mean < LOW_RATIO and _after(node, LOW_AFTER_SECONDS):
            words = f"{node.name}: gpu {gpu.gpu} ran a kernel for {mean:.0%} of the time"
            yield Case(words, at(node, gpu))


def uneven(report: JobReport) -> Iterator[Case]:
    """Tell which of the GPUs that worked had least to do."""
    busy = [
        (mean, node, gpu)
        for node, gpu in gpus_of(report)
        if (mean := node.mean("utilization", gpu.gpu)) is not None and mean >= IDLE_RATIO
    ]
    if len(busy) < 2:
        return
    ranked = sorted(busy, key=lambda each: each[0])
    (low, idlest, slow), (high, busiest, fast) = ranked[0], ranked[-1]
    if high - low > UNEVEN_DIFFERENCE:
        where, other = at(idlest, slow), at(busiest, fast)
        words = f"GPUs ran kernels for {low:.0%} of the time on {where}, {high:.0%} on {other}"
        yield Case(words, where)


def shared(report: JobReport) -> Iterator[Case]:
    """Tell on which GPUs others had processes beside the job's."""
    for node, gpu in gpus_of(report):
        others = node.line("processes of others", gpu.gpu)
        if others and others.peak and others.peak >= 1:
            words = f"{node.name}: {others.peak:.0f} processes of others were on gpu {gpu.gpu}"
            yield Case(words, at(node, gpu))


def misplaced(report: JobReport) -> Iterator[Case]:
    """Tell where the GPUs that the job was given, has and uses are not the same."""
    for node in report.nodes:
        if node.gpus_not_given:
            words = f"{node.name}: the job ran on gpu {node.gpus_not_given} without being given it"
            yield Case(words, node.name)
        if node.gpus_not_found:
            words = f"{node.name}: the job was given gpu {node.gpus_not_found}, which is not there"
            yield Case(words, node.name)


def unlike(report: JobReport) -> Iterator[Case]:
    """Tell which hosts and GPUs are unlike the others, by the rule of `outliers.py`."""
    for outlier in report.outliers:
        value, middle = show(outlier.value, outlier.unit), show(outlier.median, outlier.unit)
        words = f"{outlier.place}: {outlier.what} {value}, where the median is {middle}"
        yield Case(words, outlier.place)


def memory_full(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs had next to no memory left."""
    for node, gpu in gpus_of(report):
        if used_ratio(node, "memory", gpu.gpu) > FULL_RATIO:
            yield Case(f"{node.name}: {_memory(node, gpu)}", at(node, gpu))


def memory_empty(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs worked with a small part of their memory."""
    for node, gpu in gpus_of(report):
        mean = node.mean("utilization", gpu.gpu) or 0.0
        if mean >= IDLE_RATIO and 0.0 < used_ratio(node, "memory", gpu.gpu) < EMPTY_RATIO:
            yield Case(f"{node.name}: {_memory(node, gpu)}", at(node, gpu))


def _memory(node: Node, gpu: Gpu) -> str:
    line = node.line("memory", gpu.gpu)
    peak, whole = (line.peak, line.available) if line else (None, None)
    used = f"{show(peak or 0.0, 'B')} of {show(whole or 0.0, 'B')}"
    return f"gpu {gpu.gpu} had {used} in use at the peak"


def slowed_for_power(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs were slowed to keep a limit of power."""
    return _slowed(report, "power", POWER_SHARE)


def slowed_for_heat(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs were slowed because they were hot."""
    return _slowed(report, "heat", HEAT_SHARE)


def _slowed(report: JobReport, cause: str, from_share: float) -> Iterator[Case]:
    for node, gpu in gpus_of(report):
        share = share_of_time(node, f"slowed for {cause}", gpu.gpu)
        if share > from_share and _after(node, SHORTEST_JUDGED_SECONDS):
            words = f"{node.name}: gpu {gpu.gpu} was slowed for {cause} {share:.0%} of the time"
            yield Case(words, at(node, gpu))


def broken(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs reported errors while the job ran."""
    for node, gpu in gpus_of(report):
        found = [
            f"{count:.0f} {what}"
            for what in ("memory errors", "xid errors")
            if (count := node.total(what, gpu.gpu) or 0.0) >= 1
        ]
        if found:
            yield Case(f"{node.name}: gpu {gpu.gpu} had {some(found, 2)}", at(node, gpu))


def _after(node: Node, seconds: float) -> bool:
    return node.elapsed_seconds >= seconds


RULES = (
    Rule(
        "idle-gpu",
        "warning",
        "time in which any kernel ran on a GPU that the job held",
        f"below {IDLE_RATIO:.0%}",
        "ask for fewer GPUs, or make the program use this one",
        idle,
    ),
    Rule(
        "underused-gpu",
        "hint",
        "time in which any kernel ran on a GPU that the job used",
        f"below {LOW_RATIO:.0%}, after {LOW_AFTER_SECONDS:.0f} s",
        "a server that waits for requests looks so; else see what the GPU waits for",
        hardly_used,
    ),
    Rule(
        "uneven-gpus",
        "hint",
        "time in which any kernel ran, of the GPUs that were used at all",
        f"highest and lowest more than {UNEVEN_DIFFERENCE * 100:.0f} points apart",
        "balance the work of the ranks; pipeline stages and experts want equal shares",
        uneven,
    ),
    Rule(
        "unlike-the-others",
        "hint",
        "main figures of each host and GPU, against the median of all of the job",
        RULE_WORDS.removeprefix("* unlike the others: "),
        "if its work is the same, this host or GPU is slower, hotter or more shared: tell staff",
        unlike,
    ),
    Rule(
        "gpu-shared",
        "hint",
        "processes on the job's GPUs (NVML)",
        "any that is not the job's",
        "speed, memory and power of that GPU are everybody's on it; is sharing meant?",
        shared,
    ),
    Rule(
        "gpu-misplaced",
        "warning",
        "GPUs that Slurm gave, that NVML shows, and that the job's processes run on",
        "they differ",
        "leave CUDA_VISIBLE_DEVICES as Slurm sets it; staff: does gres.conf list what is there?",
        misplaced,
    ),
    Rule(
        "gpu-memory-full",
        "hint",
        "peak of a GPU's memory in use (everybody's on it)",
        f"above {FULL_RATIO:.0%}",
        "a longer input fails: smaller batch, paged or quantized KV cache, activation checkpoints;"
        " allocators that keep what they once had (torch, JAX) look so as well",
        memory_full,
    ),
    Rule(
        "gpu-memory-empty",
        "info",
        "peak of a GPU's memory in use, of GPUs that were used at all",
        f"below {EMPTY_RATIO:.0%}",
        "try a larger batch; or a smaller GPU or a MIG slice does as well",
        memory_empty,
    ),
    Rule(
        "slowed-for-power",
        "info",
        "time in which a GPU was slowed by its power limit or the power brake",
        f"more than {POWER_SHARE:.0%} of the time",
        "usual under full load; a lower precision or fewer bytes moved give more work per joule",
        slowed_for_power,
    ),
    Rule(
        "slowed-for-heat",
        "warning",
        "time in which a GPU was slowed by driver or chip because it was hot",
        f"more than {HEAT_SHARE:.0%} of the time",
        "cooling is short on that host: tell staff",
        slowed_for_heat,
    ),
    Rule(
        "gpu-errors",
        "warning",
        "memory errors that were not corrected, and critical Xid events",
        "any while the job ran",
        "results may be wrong: tell staff, and go on from an earlier checkpoint",
        broken,
    ),
)
