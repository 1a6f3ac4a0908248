"""Looks to make screens of: what a node, or a job, might be doing."""

from dataclasses import replace

from agent.inspect.model import JobHeader
from agent.top.model import Disk, Flow, Frame, Gpu, Host, Process, Span

NOW = 1_760_000_000_000  # 08:53:20 UTC
GIBI, MEBI = 2.0**30, 2.0**20


def span(begin_seconds: float, end_seconds: float, bound: str) -> Span:
    """Return a bound that held so many seconds ago."""
    return Span(NOW - round(1000 * begin_seconds), NOW - round(1000 * end_seconds), bound)


BUSY = Gpu(
    "0",
    "NVIDIA H100 80GB HBM3",
    utilization=1.0,
    memory_used=60 * GIBI,
    memory_total=81559 * MEBI,
    watts=690.0,
    watts_limit=700.0,
    celsius=66.0,
    hertz=1.62e9,
    compute=0.9,
    memory=0.39,
    held=True,
    history=(
        span(200, 120, "compute"),
        span(120, 60, "memory"),
        span(60, 40, "latency"),
        span(40, 0, "compute"),
    ),
)
HELD = replace(
    BUSY,
    index="1",
    utilization=0.0,
    memory_used=0.5 * GIBI,
    watts=72.0,
    celsius=31.0,
    compute=0.0,
    memory=0.0,
    history=(span(300, 0, "idle"),),
)
GONE = Gpu("2", answers=False, history=(span(300, 100, "memory"),))

TRAINING = Process(
    4711,
    "alice",
    "python train.py --model llama",
    "R",
    1.01,
    12.3 * GIBI,
    11052.0,
    ("0", "1"),
    "123",
)
STUCK = Process(88, "root", "[kworker/u130:2+nfsiod]", "D", 0.0, 0.0, 3.0)
OTHERS = tuple(
    Process(5000 + number, "bob", f"job step {number}", "S", 0.002, number * MEBI, 60.0 * number)
    for number in range(40)
)

NODE = Host(
    "gpu07",
    cpus=64.0,
    cpu=0.25,
    busiest_core=0.97,
    load=2.31,
    memory_used=94.2e9,
    memory_total=540e9,
    waits=(("cpu", 0.12), ("memory", 0.03), ("io", 0.2)),
    watts=(("node", 912.0), ("package-0", 124.0), ("package-1", 150.0)),
    infiniband=Flow(12.1e9, 11.9e9),
    network=Flow(25e6, 1.2e6),
    files=Flow(4e8, 1e7),
    disks=(
        Disk("/local/scratch", 0.96, 1.05e12, 1.1e12, Flow(1e6, 1.25e9)),
        Disk("/tmp", 0.12, 3e10, 2.5e11),
    ),
    gpus=(BUSY, HELD, GONE),
    processes=(TRAINING, STUCK, *OTHERS),
)
WELL = replace(NODE, disks=NODE.disks[1:], gpus=())
EIGHT = tuple(replace(BUSY, index=str(index)) for index in range(8))

JOB = JobHeader(
    "123",
    "prod",
    "RUNNING",
    user="alice",
    name="train-llama",
    nodes=4,
    cpus=256,
    gpus=8,
    start_ms=NOW - 11_052_000,
    elapsed_seconds=11052.0,
    time_limit_seconds=86400.0,
)


def node(host: Host) -> Frame:
    return Frame(NOW, [host])


def job(*hosts: Host) -> Frame:
    return Frame(NOW, hosts, JOB)


TWO_GPUS = replace(NODE, gpus=(BUSY, HELD), of_job=True, disks=NODE.disks[1:])
FOUR_HOSTS = job(
    replace(TWO_GPUS, name="gpu10"),
    replace(TWO_GPUS, name="gpu9", cpu=0.8, memory_used=5.2e11),
    Host("gpu11", silent_seconds=130.0),
    Host("gpu12"),
)
