"""What the numbers of a report say: independent rules, each a pure function of the report.

No rule looks at another's outcome: one idle GPU does not silence the rest.
"""

from collections.abc import Callable, Iterator

from agent.inspect.model import Finding, JobReport, Node, Phase, Usage
from agent.inspect.units import show, show_seconds

FEW_SAMPLES = 5
MISSED_SHARE = 0.2
LOW_CPU_RATIO = 0.25
NEAR_LIMIT_RATIO = 0.9
IDLE_GPU_RATIO = 0.02
CROWDED_RATIO = 0.2
OVER_ASKED_RATIO = 0.2
SHORTEST_LIMIT_SECONDS = 1800.0
WAITED_SHARE = 0.1
SHORTEST_JUDGED_SECONDS = 10.0
MEMORY_BOUND_SHARE = 0.5
LINK_BOUND_SHARE = 0.25
"""Of the time in which the GPU was busy."""

Rule = Callable[[JobReport], Iterator[Finding]]


def find(report: JobReport) -> list[Finding]:
    """Return what every rule finds, warnings first."""
    found = [finding for rule in RULES for finding in rule(report)]
    order = {"warning": 0, "hint": 1, "info": 2}
    return sorted(found, key=lambda each: order[each.severity])


def too_short(report: JobReport) -> Iterator[Finding]:
    """Say that means and peaks rest on few samples; totals are exact all the same."""
    few = min((node.samples for node in report.nodes), default=0)
    if report.nodes and few < FEW_SAMPLES:
        yield Finding(
            "too-short",
            "info",
            f"only {few} samples were taken: totals are exact, means and peaks are rough",
            "for a closer look at short jobs sample faster: rooflight run --interval 0.1",
        )


def samples_missing(report: JobReport) -> Iterator[Finding]:
    """Say where the agent was away while the job ran."""
    for node in report.nodes:
        missing = node.samples_expected - node.samples
        if missing > max(2, MISSED_SHARE * node.samples_expected):
            yield Finding(
                "samples-missing",
                "warning",
                f"{node.host}: {missing} of {node.samples_expected} samples are missing",
                "means and peaks may be off: was the agent stopped or the node overloaded?",
            )


def lost(report: JobReport) -> Iterator[Finding]:
    """Say that the end of the job was never seen."""
    if report.job.state == "LOST":
        yield Finding(
            "lost",
            "warning",
            "nothing was heard of this job for minutes, and its end was never reported",
            "the agent or the node died, or the store is far behind: rooflight check on the node",
        )


def low_cpu(report: JobReport) -> Iterator[Finding]:
    """Point at CPUs that were asked for and not used."""
    if report.job.elapsed_seconds < SHORTEST_JUDGED_SECONDS or report.job.gpus:
        return
    for node, cpu in _job_usage(report, "cpu"):
        if cpu.mean is not None and cpu.mean < LOW_CPU_RATIO and report.job.cpus > 1:
            yield Finding(
                "low-cpu",
                "hint",
                f"{node.host}: {cpu.mean:.0%} of the CPUs' time was used",
                "ask for fewer CPUs, or look at what the program waits for",
            )


def crowded(report: JobReport) -> Iterator[Finding]:
    """Say that other people's work kept the node's CPUs busy while the job ran."""
    for node, others in _job_usage(report, "node cpu others"):
        if others.mean is not None and others.mean > CROWDED_RATIO:
            yield Finding(
                "crowded-node",
                "hint",
                f"{node.host}: {others.mean:.0%} of the node's CPUs were busy with other work",
                "speeds and fractions of ceilings are lower than the job would reach alone",
            )


def near_memory_limit(report: JobReport) -> Iterator[Finding]:
    """Warn of memory that was nearly all used."""
    for node, memory in _job_usage(report, "memory"):
        if memory.peak and memory.available and memory.peak > NEAR_LIMIT_RATIO * memory.available:
            yield Finding(
                "near-memory-limit",
                "warning",
                f"{node.host}: {show(memory.peak, 'B')} of {show(memory.available, 'B')} memory"
                " was used at the peak",
                "the next larger input is killed: ask for more memory, or shard or quantize",
            )


def hosts_missing(report: JobReport) -> Iterator[Finding]:
    """Say of which hosts of the job nothing is known."""
    silent = sorted(set(report.job.hosts) - {node.host for node in report.nodes})
    if report.nodes and silent:
        yield Finding(
            "hosts-missing",
            "warning",
            f"nothing is known of {len(silent)} of {len(report.job.hosts)} hosts: "
            f"{', '.join(silent[:8])}",
            "is the agent running there? what is said here is of the others",
        )


def time_over_asked(report: JobReport) -> Iterator[Finding]:
    """Point at a time limit far above what the job needed."""
    limit, job = report.job.time_limit_seconds or 0.0, report.job
    if job.state != "COMPLETED" or limit < SHORTEST_LIMIT_SECONDS:
        return
    if job.elapsed_seconds < OVER_ASKED_RATIO * limit:
        yield Finding(
            "time-over-asked",
            "hint",
            f"{show_seconds(job.elapsed_seconds)} of the {show_seconds(limit)} asked for were used",
            "a shorter time limit lets the scheduler start the job earlier",
        )


def idle_gpu(report: JobReport) -> Iterator[Finding]:
    """Point at GPUs that were held and not used."""
    for node in report.nodes:
        for usage in node.usage:
            idle = usage.what.startswith("gpu ") and usage.what.endswith(" utilization")
            if idle and usage.mean is not None and usage.mean < IDLE_GPU_RATIO:
                name = usage.what.removesuffix(" utilization")
                yield Finding(
                    "idle-gpu",
                    "warning",
                    f"{node.host}: {name} was held and used {usage.mean:.1%} of the time",
                    "ask for fewer GPUs, or make the program use this one",
                )


def waited(report: JobReport) -> Iterator[Finding]:
    """Point at a resource that work on the node waited for."""
    remedies = {
        "memory": "programs were swapping or reclaiming: ask for more memory",
        "disk": "move hot files to the node-local temp disk, read larger blocks, or prefetch",
    }
    for node in report.nodes:
        for usage in node.usage:
            resource = usage.what.removeprefix("waited for ")
            share = (usage.total or 0.0) / max(node.elapsed_seconds, 1e-9)
            if usage.what in ("waited for memory", "waited for disk") and share > WAITED_SHARE:
                yield Finding(
                    f"waited-for-{resource}",
                    "hint",
                    f"{node.host}: for {share:.0%} of the time some task waited for {resource}",
                    remedies[resource],
                )


def memory_bound_gpu(report: JobReport) -> Iterator[Finding]:
    """Say which GPUs were mostly under the memory roof, whatever the program calls its phases."""
    for node, names in _gpus_under(report, "memory", MEMORY_BOUND_SHARE):
        yield Finding(
            "memory-bound-gpu",
            "info",
            f"{node.host}: for most of the time in which it was busy, the memory roof held back"
            f" gpu {names}",
            "move fewer bytes per result: larger batch, quantized weights, paged or flash"
            " attention, fused operations",
        )


def link_bound_gpu(report: JobReport) -> Iterator[Finding]:
    """Point at GPUs that waited for PCIe or NVLink."""
    for node, names in _gpus_under(report, "link", LINK_BOUND_SHARE):
        yield Finding(
            "link-bound-gpu",
            "hint",
            f"{node.host}: for much of the time in which it was busy, the link to the host or to"
            f" other GPUs held back gpu {names}",
            "keep weights and data on the GPU, overlap transfers with work, or shard differently",
        )


def memory_bound_phase(report: JobReport) -> Iterator[Finding]:
    """Say which phase the job spent most of its memory-bound time in, and what moves it."""
    worst = _longest(report, "memory")
    if worst:
        yield Finding(
            "memory-bound-phase",
            "info",
            f"{worst.phase} took {show_seconds(worst.duration_seconds)} and is memory-bound:"
            f" {_fraction(worst.memory_ratio)} of this device's memory bandwidth,"
            f" {_fraction(worst.compute_ratio)} of its compute",
            "a faster chip will not help: move fewer bytes per result (larger batch, quantized"
            " weights, paged or flash attention, fused optimizer)",
        )


def compute_bound_phase(report: JobReport) -> Iterator[Finding]:
    """Say which phase is held back by compute, and how near to the ceiling it is."""
    worst = _longest(report, "compute")
    if worst:
        lower = " or a lower precision" if worst.dtype in ("fp32", "float32") else ""
        yield Finding(
            "compute-bound-phase",
            "info",
            f"{worst.phase} took {show_seconds(worst.duration_seconds)} and is compute-bound:"
            f" {_fraction(worst.compute_ratio)} of this device's measured {worst.dtype} ceiling",
            f"more memory bandwidth will not help: only more or faster compute{lower} does",
        )


RULES: tuple[Rule, ...] = (
    too_short,
    samples_missing,
    lost,
    low_cpu,
    crowded,
    hosts_missing,
    time_over_asked,
    near_memory_limit,
    idle_gpu,
    waited,
    memory_bound_gpu,
    link_bound_gpu,
    memory_bound_phase,
    compute_bound_phase,
)


def _job_usage(report: JobReport, what: str) -> Iterator[tuple[Node, Usage]]:
    """Yield each node with its line of the utilisation table."""
    for node in report.nodes:
        for usage in node.usage:
            if usage.what == what:
                yield node, usage


def _gpus_under(report: JobReport, bound: str, from_share: float) -> Iterator[tuple[Node, str]]:
    """Yield each node that has such GPUs, named with share and evidence; none for short jobs."""
    for node in report.nodes:
        names = [
            f"{gpu.gpu} ({gpu.share(bound):.0%} by {gpu.evidence})"
            for gpu in node.bounds
            if gpu.share(bound) >= from_share
            and sum(gpu.seconds.values()) >= SHORTEST_JUDGED_SECONDS
        ]
        if names:
            yield node, ", ".join(names)


def _longest(report: JobReport, bound: str) -> Phase | None:
    """Return the phase with this bound that took most time."""
    phases = [phase for phase in report.phases if phase.bound == bound]
    return max(phases, key=lambda phase: phase.duration_seconds, default=None)


def _fraction(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:.0%}"
