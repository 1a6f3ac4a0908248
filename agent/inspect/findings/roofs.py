"""Which roof held the GPUs back, and the phases that the program marked."""

from collections.abc import Iterator

from agent.inspect.findings.rule import SHORTEST_JUDGED_SECONDS, Case, Rule, at, gpus_of
from agent.inspect.model import JobReport, Phase
from agent.inspect.units import show_seconds

COMPUTE_SHARE = 0.5
MEMORY_SHARE = 0.5
LINK_SHARE = 0.25
LATENCY_SHARE = 0.5
"""Of the time in which the GPU was busy."""

FP32_RATIO = 0.3
TENSOR_RATIO = 0.05


def compute_bound(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs computed as fast as they could."""
    return _under(report, "compute", COMPUTE_SHARE, "most", "the compute roof")


def memory_bound(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs waited for their memory, whatever the program calls its phases."""
    return _under(report, "memory", MEMORY_SHARE, "most", "the memory roof")


def link_bound(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs waited for PCIe or NVLink."""
    return _under(report, "link", LINK_SHARE, "much", "the link to the host or to other GPUs")


def latency_bound(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs were far below every roof while kernels ran."""
    return _under(report, "latency", LATENCY_SHARE, "most", "neither roof but launches and waits")


def _under(
    report: JobReport, bound: str, from_share: float, amount: str, what: str
) -> Iterator[Case]:
    """Yield each host that has such GPUs, named with share and evidence; none for short jobs."""
    for node in report.nodes:
        names = [
            f"{gpu.gpu} ({gpu.share(bound):.0%} by {gpu.evidence})"
            for gpu in node.bounds
            if gpu.share(bound) >= from_share
            and sum(gpu.seconds.values()) >= SHORTEST_JUDGED_SECONDS
        ]
        if names:
            words = f"for {amount} of the time in which it was busy, {what} held back gpu"
            yield Case(f"{node.name}: {words} {', '.join(names)}", node.name)


def fp32_on_tensor_cores(report: JobReport) -> Iterator[Case]:
    """Tell which GPUs computed in fp32 beside idle tensor pipes."""
    shares = {
        (node.host, bounds.gpu): bounds.share("compute")
        for node in report.nodes
        for bounds in node.bounds
    }
    for node, gpu in gpus_of(report):
        fp32, tensor = node.mean("fp32 active", gpu.gpu), node.mean("tensor active", gpu.gpu)
        if shares.get((node.host, gpu.gpu), 0.0) < COMPUTE_SHARE or fp32 is None or tensor is None:
            continue
        if fp32 >= FP32_RATIO and tensor < TENSOR_RATIO:
            words = (
                f"the fp32 pipe was busy in {fp32:.0%} of the cycles, tensor pipes in {tensor:.0%}"
            )
            yield Case(f"{node.name}: on gpu {gpu.gpu} {words}", at(node, gpu))


def memory_bound_phase(report: JobReport) -> Iterator[Case]:
    """Tell in which phase most memory-bound time was spent."""
    phase = _longest(report, "memory")
    if phase:
        yield Case(
            f"{phase.phase} took {show_seconds(phase.duration_seconds)} and is memory-bound:"
            f" {_percent(phase.memory_ratio)} of this device's memory bandwidth,"
            f" {_percent(phase.compute_ratio)} of its compute"
        )


def compute_bound_phase(report: JobReport) -> Iterator[Case]:
    """Tell which phase is held back by compute, and how near to the ceiling it is."""
    phase = _longest(report, "compute")
    if phase:
        yield Case(
            f"{phase.phase} took {show_seconds(phase.duration_seconds)} and is compute-bound:"
            f" {_percent(phase.compute_ratio)} of this device's measured {phase.dtype} ceiling"
        )


def outside_bound_phase(report: JobReport) -> Iterator[Case]:
    """Tell which phases waited for a link or for storage."""
    names = {"link": "the link to the host or to other devices", "io": "storage"}
    for bound, what in names.items():
        phase = _longest(report, bound)
        if phase:
            seconds = show_seconds(phase.duration_seconds)
            yield Case(f"{phase.phase} took {seconds} and waited for {what}")


def _longest(report: JobReport, bound: str) -> Phase | None:
    """Return the phase with this bound that took most time."""
    phases = [phase for phase in report.phases if phase.bound == bound]
    return max(phases, key=lambda phase: phase.duration_seconds, default=None)


def _percent(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:.0%}"


BUSY = "labels of the GPU's time (GPM, DCGM, or a resemblance by NVML)"
AFTER = f"of the busy time, after {SHORTEST_JUDGED_SECONDS:.0f} s"

RULES = (
    Rule(
        "memory-bound-gpu",
        "info",
        BUSY,
        f"memory {MEMORY_SHARE:.0%} {AFTER}",
        "move fewer bytes per result: larger batch, quantized weights, paged or flash attention,"
        " fused operations",
        memory_bound,
    ),
    Rule(
        "compute-bound-gpu",
        "info",
        BUSY,
        f"compute {COMPUTE_SHARE:.0%} {AFTER}",
        "the GPU is what it costs: only fewer operations, a lower precision or more GPUs help",
        compute_bound,
    ),
    Rule(
        "link-bound-gpu",
        "hint",
        BUSY,
        f"link {LINK_SHARE:.0%} {AFTER}",
        "keep weights and data on the GPU, overlap transfers with work, or shard differently",
        link_bound,
    ),
    Rule(
        "latency-bound-gpu",
        "hint",
        BUSY,
        f"latency {LATENCY_SHARE:.0%} {AFTER}",
        "larger batches, CUDA graphs, torch.compile or fused kernels; fewer waits for the host",
        latency_bound,
    ),
    Rule(
        "fp32-on-tensor-cores",
        "hint",
        "labels, and cycles with the fp32 and the tensor pipes busy",
        f"compute-bound, fp32 {FP32_RATIO:.0%} or more, tensor below {TENSOR_RATIO:.0%}",
        "use the tensor cores: TF32 (torch.set_float32_matmul_precision('high')) or BF16 autocast",
        fp32_on_tensor_cores,
    ),
    Rule(
        "memory-bound-phase",
        "info",
        "phases that were measured",
        "any is memory-bound; the longest is told",
        "a faster chip will not help: move fewer bytes per result (larger batch, quantized"
        " weights, paged or flash attention, fused optimizer)",
        memory_bound_phase,
    ),
    Rule(
        "compute-bound-phase",
        "info",
        "phases that were measured",
        "any is compute-bound; the longest is told",
        "more memory bandwidth will not help: only more or faster compute or a lower precision"
        " does",
        compute_bound_phase,
    ),
    Rule(
        "link-or-io-bound-phase",
        "hint",
        "phases that were measured",
        "any is bound by a link or by storage; the longest of each is told",
        "overlap it with work, or keep what it fetches nearer: on the device, or on the temp disk",
        outside_bound_phase,
    ),
)
