"""A report and its timelines, with something in each of their parts."""

from agent.inspect.model import (
    Ceiling,
    Finding,
    Gpu,
    GpuBounds,
    JobHeader,
    JobReport,
    Node,
    Outlier,
    Phase,
    Summary,
    TaskSummary,
    Usage,
)
from agent.inspect.series import Fraction, Line, Panel, Point, Timelines
from workloads.roofline import Bound

BEGIN_MS = 1_700_000_000_000
END_MS = BEGIN_MS + 60_000
GIBI = float(1 << 30)


def usage(text: str) -> list[Usage]:
    """Return lines of a host and of its two GPUs; `text` is part of what could be hostile."""
    lines = [
        Usage("cpu", "ratio", "job", mean=0.81, peak=0.98, source=text),
        Usage("memory", "B", "job", mean=GIBI, peak=2 * GIBI, available=8 * GIBI),
        Usage("node cpu", "ratio", "node", mean=0.83, peak=0.99, samples=50),
    ]
    for gpu, share in (("0", 0.97), ("1", 0.02)):
        lines += [
            Usage(f"gpu {gpu} utilization", "ratio", "gpu", mean=share, gpu=gpu),
            Usage(f"gpu {gpu} power", "W", "gpu", mean=700 * share, gpu=gpu),
        ]
    return lines


def report(text: str = "name") -> JobReport:
    """Return a report in which everything that others can choose is `text`."""
    job = JobHeader(
        *(text, text, text, text, text, text, text, text, [text]),
        cpus=8,
        gpus=2,
        start_ms=BEGIN_MS,
        end_ms=END_MS,
        elapsed_seconds=60.0,
        exit_code=0,
        reason=text,
    )
    bounds = [
        GpuBounds("0", text, {"compute": 40.0, "memory": 20.0}),
        GpuBounds("1", "gpm", {"idle": 60.0}),
    ]
    gpus = [Gpu("0", text, text, text), Gpu("1", model="H100")]
    node = Node(text, 60.0, 60, 61, END_MS, True, text, usage(text), bounds, gpus, text, 8.0)
    phase = Phase(
        *(text, text, text, text, "compute", 20.0, BEGIN_MS + 5000, text, 3),
        flops_per_second=120e9,
        bytes_per_second=1.2e9,
        intensity_flops_per_byte=100.0,
        compute_ratio=0.6,
        memory_ratio=0.03,
        explanation=text,
    )
    ceilings = [
        Ceiling(text, text, "matmul", text, flops_per_second=200e9),
        Ceiling(text, text, "triad", "byte", bytes_per_second=50e9),
        Ceiling(text, text, "read", "byte", bytes_per_second=40e9),
    ]
    return JobReport(
        job,
        [node, node],
        [phase],
        ceilings,
        [Finding("rule", "warning", text, text)],
        grafana=f"https://grafana.example/{text}",
        notes=[text],
        summary=[Summary("cpu", "ratio", "job", mean=0.8, lowest=0.7, lowest_on=text)],
        outliers=[Outlier("power", "W", text, 14.0, 679.0, "1")],
        bounds={"compute": 40.0, "memory": 20.0, "idle": 60.0},
    )


def with_tasks(text: str) -> JobReport:
    """Return the report on a whole array."""
    task = TaskSummary(text, text, [text], 10.0, 0.5, GIBI, 0.9, findings=[text])
    return JobReport(JobHeader(text, text, text), (), (), (), (), tasks=[task])


def timelines(text: str = "gpu 0") -> Timelines:
    """Return a minute in windows of five seconds."""
    ends = range(BEGIN_MS + 5000, END_MS + 1, 5000)
    points = [Point(end_ms, 0.5, 0.25, 0.75) for end_ms in ends]
    compute = {end_ms: {Bound.COMPUTE: 0.75, Bound.MEMORY: 0.25} for end_ms in ends}
    return Timelines(
        BEGIN_MS,
        END_MS,
        5000,
        [
            Panel("CPU", "ratio", [Line(text, points), Line("whole node", points)], "2 hosts"),
            Panel("Network", "B/s", [Line(text, [Point(END_MS, 0.0, 0.0, 0.0)])]),
        ],
        ["InfiniBand"],
        {text: compute},
        {text: [Fraction(end_ms, 0.8, 0.3) for end_ms in ends]},
    )
