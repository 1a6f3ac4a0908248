"""Where data comes from: temp disk, shared file systems, and GPUs that wait for it."""

from collections.abc import Iterator

from agent.inspect.findings.rule import (
    SHORTEST_JUDGED_SECONDS,
    Case,
    Rule,
    at,
    gpus_of,
    long_enough,
    share_of_time,
    used_ratio,
)
from agent.inspect.model import Gpu, JobReport, Node
from agent.inspect.units import show

FILLING_RATIO = 0.9
WAITED_SHARE = 0.1
SHARED_BYTES_PER_SECOND = 100e6
SHARED_OPERATIONS_PER_SECOND = 1000.0
UNUSED_TEMP_BYTES = 2.0**30
STARVED_BELOW = 0.5
BUSY_CPU_RATIO = 0.8


def temp_disk_filling(report: JobReport) -> Iterator[Case]:
    """Tell where the temporary disk was nearly full, whoever filled it."""
    for node in report.nodes:
        disk = node.line("temp disk used")
        if disk and used_ratio(node, "temp disk used") > FILLING_RATIO:
            used, whole = show(disk.peak or 0.0, "B"), show(disk.available or 0.0, "B")
            held = node.line("temp disk held")
            own = f", {show(held.peak, 'B')} of it by the job" if held and held.peak else ""
            yield Case(f"{node.name}: {used} of {whole} temp disk were used{own}", node.name)


def temp_disk_unused(report: JobReport) -> Iterator[Case]:
    """Tell where the shared file systems were hammered and the temporary disk was left alone."""
    for node in long_enough(report):
        rate, operations = _shared_load(node)
        hammered = rate >= SHARED_BYTES_PER_SECOND or operations >= SHARED_OPERATIONS_PER_SECOND
        if hammered and _temp_disk_bytes(node) < UNUSED_TEMP_BYTES:
            yield Case(
                f"{node.name}: shared file systems served {show(rate, 'B/s')} and"
                f" {operations:.0f} operations a second, and the temp disk was left unused",
                node.name,
            )


def _shared_load(node: Node) -> tuple[float, float]:
    """Return bytes and operations per second of the shared file systems."""
    moved = sum(node.total(f"shared files {what}") or 0.0 for what in ("read", "written"))
    operations = node.total("shared file operations") or 0.0
    return moved / node.elapsed_seconds, operations / node.elapsed_seconds


def _temp_disk_bytes(node: Node) -> float:
    """Return what the job kept on the temporary disk; if unknown, what any disk was given."""
    held = node.line("temp disk held")
    if held and held.peak is not None:
        return held.peak
    return node.total("all disks written") or 0.0


def waited_for_disk(report: JobReport) -> Iterator[Case]:
    """Tell where tasks waited for a disk: the job's own, or if that is not known the node's."""
    for node in report.nodes:
        share, whose = _disk_waits(node)
        if share > WAITED_SHARE:
            words = f"{node.name}: for {share:.0%} of the time some task {whose}waited for disk"
            yield Case(words, node.name)


def _disk_waits(node: Node) -> tuple[float, str]:
    if node.total("job waited for disk") is not None:
        return share_of_time(node, "job waited for disk"), "of the job "
    return share_of_time(node, "waited for disk"), ""


def starved(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs had little to do while CPUs or file systems were busy for them."""
    for node, gpu in gpus_of(report):
        waiting, cause = _waiting(node, gpu), _busy_elsewhere(node)
        long = node.elapsed_seconds >= SHORTEST_JUDGED_SECONDS
        if waiting > STARVED_BELOW and cause and long:
            words = f"gpu {gpu.gpu} waited for {waiting:.0%} of the time while {cause}"
            yield Case(f"{node.name}: {words}", at(node, gpu))


def _waiting(node: Node, gpu: Gpu) -> float:
    """Return the share of time without a kernel, of a GPU that was used at all."""
    mean = node.mean("utilization", gpu.gpu)
    return 0.0 if not mean else 1.0 - mean


def _busy_elsewhere(node: Node) -> str:
    """Return what was busy meanwhile, or nothing."""
    cpu, waits = node.mean("cpu") or 0.0, _disk_waits(node)[0]
    iowait, (rate, operations) = node.mean("node cpu iowait") or 0.0, _shared_load(node)
    if cpu > BUSY_CPU_RATIO:
        return f"{cpu:.0%} of the job's CPUs were busy"
    if max(waits, iowait) > WAITED_SHARE:
        return f"tasks waited for a disk ({max(waits, iowait):.0%} of the time)"
    if rate >= SHARED_BYTES_PER_SECOND or operations >= SHARED_OPERATIONS_PER_SECOND:
        return f"shared file systems served {show(rate, 'B/s')} and {operations:.0f} operations/s"
    return ""


HAMMERED = (
    f"{show(SHARED_BYTES_PER_SECOND, 'B/s')} or {SHARED_OPERATIONS_PER_SECOND:.0f} operations a"
    " second"
)

RULES = (
    Rule(
        "temp-disk-filling",
        "warning",
        "peak of the temp disk in use, and its size",
        f"above {FILLING_RATIO:.0%}",
        "clean up $TMPDIR as you go, or stage less: a full temp disk stops everybody on the node",
        temp_disk_filling,
    ),
    Rule(
        "temp-disk-unused",
        "hint",
        "traffic of the shared file systems, and what the job kept on the temp disk",
        f"{HAMMERED}, and less than {show(UNUSED_TEMP_BYTES, 'B')}",
        "copy what is read often to $TMPDIR first; pack many small files into few large ones",
        temp_disk_unused,
    ),
    Rule(
        "waited-for-disk",
        "hint",
        "pressure (PSI) of the job's control group, or of the node",
        f"waits in more than {WAITED_SHARE:.0%} of the time",
        "move hot files to the node-local temp disk, read larger blocks, or prefetch",
        waited_for_disk,
    ),
    Rule(
        "data-starved",
        "hint",
        "time without a kernel on a used GPU; CPUs, disk waits and shared files of its host",
        f"more than {STARVED_BELOW:.0%}, while CPUs are {BUSY_CPU_RATIO:.0%} busy, disks are waited"
        f" for in {WAITED_SHARE:.0%} of the time, or {HAMMERED}",
        "feed it faster: more data-loader workers, decode on the GPU, prefetch, stage to $TMPDIR",
        starved,
    ),
)
