"""How much of the job was seen at all."""

from collections.abc import Iterator

from agent.inspect.findings.rule import Case, Rule
from agent.inspect.model import JobReport, Node
from agent.inspect.units import some

FEW_SAMPLES = 5
MISSED_SHARE = 0.2
MISSED_AT_LEAST = 2
PARTLY_SHARE = 0.8
PARTLY_AT_LEAST = 5
"""A job's control group comes after its first samples, and is gone before the last."""


def too_short(report: JobReport) -> Iterator[Case]:
    """Tell of the host with the fewest samples."""
    few = min((node.samples for node in report.nodes), default=FEW_SAMPLES)
    if few < FEW_SAMPLES:
        exact = all(node.source for node in report.nodes)
        totals = "totals are exact" if exact else "nothing is known of the job itself"
        yield Case(f"only {few} samples were taken: {totals}, means and peaks are rough")


def samples_missing(report: JobReport) -> Iterator[Case]:
    """Tell where the agent was away while the job ran."""
    for node in report.nodes:
        missing = node.samples_expected - node.samples
        if missing > max(MISSED_AT_LEAST, MISSED_SHARE * node.samples_expected):
            words = f"{node.name}: {missing} of {node.samples_expected} samples are missing"
            yield Case(words, node.name)


def partly_seen(report: JobReport) -> Iterator[Case]:
    """Tell which figures rest on fewer samples than the others of their host."""
    for node in report.nodes:
        found = _partly_seen_lines(node)
        if node.samples >= FEW_SAMPLES and found:
            yield Case(f"{node.name}: {some(found, 4)}", node.name)


def _partly_seen_lines(node: Node) -> list[str]:
    return [
        f"{usage.what} ({usage.samples} of {node.samples} samples)"
        for usage in node.usage
        if usage.samples is not None
        and usage.samples < PARTLY_SHARE * node.samples
        and node.samples - usage.samples > PARTLY_AT_LEAST
    ]


def lost(report: JobReport) -> Iterator[Case]:
    """Tell that the end of the job was never seen."""
    if report.job.state == "LOST":
        yield Case("nothing was heard of this job for minutes, and its end was never reported")


def hosts_missing(report: JobReport) -> Iterator[Case]:
    """Tell of which hosts of the job nothing is known."""
    silent = sorted(set(report.job.hosts) - {node.name for node in report.nodes})
    if report.nodes and silent:
        told = len(report.job.hosts) - len(silent)
        yield Case(
            f"footprints from {told} of {len(report.job.hosts)} nodes: "
            f"nothing is known of {some(silent, 8)}"
        )


RULES = (
    Rule(
        "too-short",
        "info",
        "samples of each host",
        f"fewer than {FEW_SAMPLES}",
        "for a closer look at short jobs sample faster: rooflight run --interval 0.1",
        too_short,
    ),
    Rule(
        "samples-missing",
        "warning",
        "samples taken, and how many there should be",
        f"more than {MISSED_SHARE:.0%} and more than {MISSED_AT_LEAST} are missing",
        "means and peaks may be off: was the agent stopped or the node overloaded?",
        samples_missing,
    ),
    Rule(
        "partly-seen",
        "info",
        "in how many of a host's samples each figure was there",
        f"in less than {PARTLY_SHARE:.0%}, and more than {PARTLY_AT_LEAST} are missing",
        "a probe came late or failed at times, or began later: rooflight check on that host",
        partly_seen,
    ),
    Rule(
        "lost",
        "warning",
        "when the agents were last heard of",
        "a running job, and none for 5 minutes",
        "the agent or the node died, or the store is far behind: rooflight check on the node",
        lost,
    ),
    Rule(
        "hosts-missing",
        "warning",
        "the job's nodes, and those that told of it",
        "any did not",
        "is the agent running there? what is said here is of the others",
        hosts_missing,
    ),
)
