"""CPUs, and the time that was asked for."""

from collections.abc import Iterator

from agent.inspect.findings.rule import (
    SHORTEST_JUDGED_SECONDS,
    Case,
    Rule,
    long_enough,
    share_of_time,
)
from agent.inspect.model import JobReport
from agent.inspect.units import show_seconds

LOW_CPU_RATIO = 0.25
UNUSED_CPU_RATIO = 0.5
SERIAL_CPUS = (0.9, 1.1)
SERIAL_FROM_CPUS = 4
CROWDED_RATIO = 0.2
UNEVEN_RATIO = 0.5
UNEVEN_FROM_RATIO = 0.25
CONTENDED_SHARE = 0.5
CONTENDED_CPU_RATIO = 0.9
TIME_OVER_ASKED_RATIO = 0.2
SHORTEST_LIMIT_SECONDS = 1800.0


def low_cpu(report: JobReport) -> Iterator[Case]:
    """Tell where CPUs were asked for and not used, by a job without GPUs."""
    if report.job.gpus or report.job.cpus <= 1:
        return
    for node in long_enough(report):
        mean = node.mean("cpu")
        if mean is not None and mean < LOW_CPU_RATIO:
            yield Case(f"{node.name}: {mean:.0%} of the CPUs' time was used", node.name)


def serial(report: JobReport) -> Iterator[Case]:
    """Tell where one CPU of many did all the work."""
    for node in long_enough(report):
        busy = (node.mean("cpu") or 0.0) * node.cpus
        if node.cpus >= SERIAL_FROM_CPUS and SERIAL_CPUS[0] <= busy <= SERIAL_CPUS[1]:
            words = f"{node.name}: the work of {busy:.1f} CPUs was done on {node.cpus:.0f}"
            yield Case(words, node.name)


def cpus_over_asked(report: JobReport) -> Iterator[Case]:
    """Tell where a job with GPUs never had half of its CPUs busy."""
    if not report.job.gpus:
        return
    for node in long_enough(report):
        cpu = node.line("cpu")
        if node.cpus > 1 and cpu and cpu.peak is not None and cpu.peak < UNUSED_CPU_RATIO:
            busy = cpu.peak * node.cpus
            words = f"{node.name}: at most {busy:.1f} of {node.cpus:.0f} CPUs were ever busy"
            yield Case(words, node.name)


def crowded(report: JobReport) -> Iterator[Case]:
    """Tell where other people's work kept the node's CPUs busy while the job ran."""
    for node in report.nodes:
        others = node.mean("node cpu others")
        if others is not None and others > CROWDED_RATIO:
            words = f"{node.name}: {others:.0%} of the node's CPUs were busy with other work"
            yield Case(words, node.name)


def uneven(report: JobReport) -> Iterator[Case]:
    """Tell which host had least to do, where others had much."""
    known = [(mean, node) for node in long_enough(report) if (mean := node.mean("cpu")) is not None]
    if len(known) < 2:
        return
    (low, idle), (high, busy) = (
        min(known, key=lambda each: each[0]),
        max(known, key=lambda each: each[0]),
    )
    if high >= UNEVEN_FROM_RATIO and low < UNEVEN_RATIO * high:
        words = f"CPUs were busy {low:.0%} of the time on {idle.name} and {high:.0%} on {busy.name}"
        yield Case(words, idle.name)


def contended(report: JobReport) -> Iterator[Case]:
    """Tell where the job's own tasks waited for a CPU while all of them were busy."""
    for node in long_enough(report):
        share = share_of_time(node, "job waited for cpu")
        if share >= CONTENDED_SHARE and (node.mean("cpu") or 0.0) >= CONTENDED_CPU_RATIO:
            words = f"{node.name}: for {share:.0%} of the time some task waited for a CPU"
            yield Case(words, node.name)


def time_over_asked(report: JobReport) -> Iterator[Case]:
    """Tell of a time limit far above what the job needed."""
    limit, job = report.job.time_limit_seconds or 0.0, report.job
    if job.state != "COMPLETED" or limit < SHORTEST_LIMIT_SECONDS:
        return
    if job.elapsed_seconds < TIME_OVER_ASKED_RATIO * limit:
        used, asked = show_seconds(job.elapsed_seconds), show_seconds(limit)
        yield Case(f"{used} of the {asked} asked for were used")


def timed_out(report: JobReport) -> Iterator[Case]:
    """Tell that the job was ended by its time limit."""
    if report.job.state == "TIMEOUT":
        limit = report.job.time_limit_seconds
        after = f" of {show_seconds(limit)}" if limit else ""
        yield Case(f"the job was killed at its time limit{after}")


RULES = (
    Rule(
        "low-cpu",
        "hint",
        "CPU time over CPUs and elapsed time, of jobs without GPUs and with several CPUs",
        f"below {LOW_CPU_RATIO:.0%}, after {SHORTEST_JUDGED_SECONDS:.0f} s",
        "ask for fewer CPUs, or look at what the program waits for",
        low_cpu,
    ),
    Rule(
        "serial",
        "hint",
        "CPU time over elapsed time",
        f"{SERIAL_CPUS[0]} to {SERIAL_CPUS[1]} CPUs of {SERIAL_FROM_CPUS} or more",
        "ask for one CPU, or tell the program to use them all (OMP_NUM_THREADS, processes)",
        serial,
    ),
    Rule(
        "cpus-over-asked",
        "hint",
        "CPU utilization of jobs with GPUs, in the busiest interval",
        f"below {UNUSED_CPU_RATIO:.0%} of more than one CPU",
        "ask for fewer CPUs per GPU: they keep other jobs from the node's other GPUs",
        cpus_over_asked,
    ),
    Rule(
        "crowded-node",
        "hint",
        "the node's CPU utilization less the job's",
        f"above {CROWDED_RATIO:.0%}",
        "speeds and fractions of ceilings are lower than the job would reach alone",
        crowded,
    ),
    Rule(
        "uneven-nodes",
        "hint",
        "CPU utilization of the job on each host",
        f"the lowest below {UNEVEN_RATIO:.0%} of the highest, which is {UNEVEN_FROM_RATIO:.0%} or"
        " more",
        "is the work split evenly? ask for fewer nodes, or balance what each rank gets",
        uneven,
    ),
    Rule(
        "waited-for-cpu",
        "hint",
        "pressure of the job's own control group (PSI), and its CPU utilization",
        f"waits in {CONTENDED_SHARE:.0%} of the time, with CPUs {CONTENDED_CPU_RATIO:.0%} busy",
        "more threads than CPUs take turns: start fewer, or ask for more CPUs",
        contended,
    ),
    Rule(
        "time-over-asked",
        "hint",
        "elapsed time and time limit of jobs that completed",
        f"below {TIME_OVER_ASKED_RATIO:.0%} of {show_seconds(SHORTEST_LIMIT_SECONDS)} or more",
        "a shorter time limit lets the scheduler start the job earlier",
        time_over_asked,
    ),
    Rule(
        "timed-out",
        "warning",
        "Slurm's word on how the job ended",
        "TIMEOUT",
        "ask for more time, or save checkpoints and go on from them in the next job",
        timed_out,
    ),
)
