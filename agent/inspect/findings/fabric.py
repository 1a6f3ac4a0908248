"""InfiniBand and Ethernet between the hosts of a job."""

from collections.abc import Iterator

from agent.inspect.findings.rule import Case, Rule, long_enough
from agent.inspect.model import JobReport, Node
from agent.inspect.units import show

ERRORS_FROM = 10
UNUSED_SHARE = 0.01
NETWORK_BYTES_PER_SECOND = 1e6
SATURATED_RATIO = 0.7


def errors(report: JobReport) -> Iterator[Case]:
    """Tell where InfiniBand ports counted errors while the job ran."""
    for node in report.nodes:
        count = node.total("infiniband errors") or 0.0
        if count >= ERRORS_FROM:
            words = f"{node.name}: {count:.0f} errors on InfiniBand ports while the job ran"
            yield Case(words, node.name)


def unused(report: JobReport) -> Iterator[Case]:
    """Tell where a job of several hosts talked over Ethernet beside an idle InfiniBand."""
    if report.job.nodes < 2:
        return
    for node in long_enough(report):
        ports, network = node.line("infiniband ports"), _moved(node, "network")
        fast = _moved(node, "infiniband")
        busy = network / node.elapsed_seconds >= NETWORK_BYTES_PER_SECOND
        if ports and ports.peak and busy and fast < UNUSED_SHARE * network:
            yield Case(
                f"{node.name}: {show(network, 'B')} went over Ethernet and {show(fast, 'B')} over"
                f" {ports.peak:.0f} InfiniBand ports",
                node.name,
            )


def _moved(node: Node, what: str) -> float:
    return sum(node.total(f"{what} {direction}") or 0.0 for direction in ("in", "out"))


def saturated(report: JobReport) -> Iterator[Case]:
    """Tell where the links were nearly as fast as they can be, for all of the job's time."""
    for node in long_enough(report):
        for what in ("network in", "network out", "infiniband in", "infiniband out"):
            line = node.line(f"{what} rate")
            if (
                line
                and line.mean
                and line.available
                and line.mean > SATURATED_RATIO * line.available
            ):
                rate, whole = show(line.mean, "B/s"), show(line.available, "B/s")
                yield Case(f"{node.name}: {what} {rate} of {whole}, all the time", node.name)


RULES = (
    Rule(
        "infiniband-errors",
        "warning",
        "error counters of all InfiniBand and RoCE ports (bits, links, drops, sequence)",
        f"{ERRORS_FROM} or more while the job ran",
        "a cable, a port or a switch is failing: tell staff; collective operations wait for it",
        errors,
    ),
    Rule(
        "infiniband-unused",
        "hint",
        "bytes over InfiniBand and over other interfaces, of jobs with several nodes",
        f"ports are up, and moved less than {UNUSED_SHARE:.0%} of what others did, which was"
        f" {show(NETWORK_BYTES_PER_SECOND, 'B/s')} or more",
        "let NCCL or MPI find it: NCCL_DEBUG=INFO tells why not (NCCL_IB_HCA, NCCL_SOCKET_IFNAME)",
        unused,
    ),
    Rule(
        "link-saturated",
        "hint",
        "mean rates of the node's links, and their speed",
        f"above {SATURATED_RATIO:.0%}",
        "send less (gradient compression, larger local batches), or spread over more links",
        saturated,
    ),
)
