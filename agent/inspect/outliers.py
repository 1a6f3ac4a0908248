"""Hosts and GPUs that are unlike the others of their job.

The rule is robust: it looks at the median and at the median distance from it (MAD), which a few
strange members cannot move, where a mean and a standard deviation would hide them. A member stands
out if its distance from the median is more than `MOST_DEVIATIONS` times 1.4826 MAD (which for
normal scatter is the standard deviation), and more than `SMALLEST_SHARE` of the median, or of the
whole for a ratio: members that are all but equal have no outliers. It takes `FEWEST` members.

Source: B. Iglewicz, D. Hoaglin, "How to Detect and Handle Outliers" (1993): 3.5 for modified
z-scores.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from agent.inspect.model import Node, Outlier, Usage

MOST_DEVIATIONS = 3.5
NORMAL_SCALE = 1.4826
SMALLEST_SHARE = 0.1
FEWEST = 3

RULE_WORDS = (
    f"* unlike the others: further from their median than {MOST_DEVIATIONS:g} robust deviations"
    f" and {SMALLEST_SHARE:.0%}"
)

OF_NODES = ("cpu", "memory", "node cpu others", "node power", "network in", "infiniband in")
OF_GPUS = (
    *("utilization", "memory", "power", "sm clock", "tensor active", "dram active"),
    *("throttled", "temperature"),
)
"""Lines in which members of a job should be alike. Disks are left out: one rank writes for all."""


def outliers(nodes: Sequence[Node]) -> list[Outlier]:
    """Return who stands out, line by line."""
    of_nodes = {what: [(node, node.line(what)) for node in nodes] for what in OF_NODES}
    of_gpus = {
        what: [(node, node.line(what, gpu.gpu)) for node in nodes for gpu in node.gpus]
        for what in OF_GPUS
    }
    lines = [*of_nodes.items(), *of_gpus.items()]
    return [outlier for what, members in lines for outlier in _of_line(what, members)]


def _of_line(what: str, members: Iterable[tuple[Node, Usage | None]]) -> Iterator[Outlier]:
    known = [
        (node, usage, usage.figure)
        for node, usage in members
        if usage is not None and usage.figure is not None
    ]
    if len(known) < FEWEST:
        return
    middle, threshold = _limits([figure for _, _, figure in known], known[0][1].unit)
    for node, usage, figure in known:
        if abs(figure - middle) > threshold:
            yield Outlier(what, usage.unit, node.host, figure, middle, usage.gpu)


def _limits(figures: Sequence[float], unit: str) -> tuple[float, float]:
    """Return the median, and how far from it is unlike."""
    middle = median(figures)
    scatter = NORMAL_SCALE * median(abs(figure - middle) for figure in figures)
    whole = 1.0 if unit == "ratio" else abs(middle)
    return middle, max(MOST_DEVIATIONS * scatter, SMALLEST_SHARE * whole)
