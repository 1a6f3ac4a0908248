"""Main memory: too much, too little."""

import math
from collections.abc import Iterator

from agent.inspect.findings.rule import Case, Rule, long_enough, share_of_time, used_ratio
from agent.inspect.model import JobReport, Node
from agent.inspect.units import show

NEAR_LIMIT_RATIO = 0.9
OVER_ASKED_RATIO = 0.3
SMALLEST_ASKED_BYTES = 4.0 * 2**30
WHOLE_NODE_RATIO = 0.95
"""A limit above this share of the node's memory is the node's: nobody asked for it."""
HEADROOM = 1.2
WAITED_SHARE = 0.1
GIBIBYTE = 2.0**30


def near_limit(report: JobReport) -> Iterator[Case]:
    """Tell where memory was nearly all used."""
    for node in report.nodes:
        memory = node.line("memory")
        if memory and used_ratio(node, "memory") > NEAR_LIMIT_RATIO:
            used, whole = show(memory.peak or 0.0, "B"), show(memory.available or 0.0, "B")
            words = f"{node.name}: {used} of {whole} memory was used at the peak"
            yield Case(words, node.name)


def over_asked(report: JobReport) -> Iterator[Case]:
    """Tell where much more memory was asked for than used, and what would do."""
    if report.job.end_ms is None:
        return
    for node in long_enough(report):
        memory, asked = node.line("memory"), _asked(node)
        if memory and memory.peak and asked and memory.peak < OVER_ASKED_RATIO * asked:
            enough = max(1, math.ceil(memory.peak * HEADROOM / GIBIBYTE))
            yield Case(
                f"{node.name}: {show(memory.peak, 'B')} of {show(asked, 'B')} memory was used at"
                f" the peak; --mem={enough}G leaves {HEADROOM - 1:.0%} spare",
                node.name,
            )


def _asked(node: Node) -> float | None:
    """Return the job's own memory limit, if it is large and not the whole node's."""
    memory, whole = node.line("memory"), node.line("node memory")
    limit = memory.available if memory else None
    of_node = whole.available if whole else None
    if limit is None or limit < SMALLEST_ASKED_BYTES:
        return None
    return limit if of_node is None or limit < WHOLE_NODE_RATIO * of_node else None


def killed(report: JobReport) -> Iterator[Case]:
    """Tell where programs were killed for want of memory."""
    found = [(node, node.total("out of memory") or 0.0) for node in report.nodes]
    for node, kills in found:
        if kills >= 1:
            words = f"{node.name}: {kills:.0f} programs of the job were killed for want of memory"
            yield Case(words, node.name)
    if report.job.state == "OUT_OF_MEMORY" and not any(kills for _, kills in found):
        yield Case("Slurm says that the job was killed for want of memory")


def waited(report: JobReport) -> Iterator[Case]:
    """Tell where tasks waited for memory: the job's own, or if that is not known the node's."""
    for node in report.nodes:
        own = node.total("job waited for memory") is not None
        share = share_of_time(node, "job waited for memory" if own else "waited for memory")
        if share > WAITED_SHARE:
            whose = "of the job " if own else ""
            words = f"{node.name}: for {share:.0%} of the time some task {whose}waited for memory"
            yield Case(words, node.name)


RULES = (
    Rule(
        "near-memory-limit",
        "warning",
        "peak of the job's memory, and its limit",
        f"above {NEAR_LIMIT_RATIO:.0%}",
        "the next larger input is killed: ask for more memory, or shard or quantize",
        near_limit,
    ),
    Rule(
        "memory-over-asked",
        "hint",
        "peak of the job's memory, and its own limit, once the job has ended",
        f"below {OVER_ASKED_RATIO:.0%} of {show(SMALLEST_ASKED_BYTES, 'B')} or more",
        "ask for less memory: it keeps other jobs from the node",
        over_asked,
    ),
    Rule(
        "out-of-memory",
        "warning",
        "programs that the kernel killed, and Slurm's word on how the job ended",
        "any, or OUT_OF_MEMORY",
        "ask for more memory (--mem), or let fewer processes hold the data at a time",
        killed,
    ),
    Rule(
        "waited-for-memory",
        "hint",
        "pressure (PSI) of the job's control group, or of the node",
        f"waits in more than {WAITED_SHARE:.0%} of the time",
        "programs were swapping or reclaiming: ask for more memory",
        waited,
    ),
)
