"""Labels within the loop: written at every tick, summed in footprints, taught by root alone."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from agent.client import ask, send_points
from agent.listener import AgentSocket, Received
from agent.loop import Loop
from agent.messages import JobStart, Ping
from agent.runner import runner
from probes.probe import Context, Probe
from probes.sample import Sample, Value, tags
from tests.unit.test_loop import Clock, Sink, make_loop


class Gpus(Probe):
    """Two GPUs with counters: the first does what a test says, the second nothing."""

    name = "gpu"
    fields: ClassVar[dict[str, Value]] = {}

    def __init__(self, context: Context) -> None:
        pass

    def sample(self) -> Sequence[Sample]:
        quiet = {**MEMORY, "graphics_active_ratio": 0.0}
        return [
            Sample("gpu", tags(gpu=str(i), uuid=f"GPU-{i}", model="H"), fields)
            for i, fields in enumerate((self.fields, quiet))
        ]


def counters(tensor: float, dram: float) -> dict[str, Value]:
    pipes = {"tensor_active_ratio": tensor, "fp32_active_ratio": 0.1, "fp64_active_ratio": 0.0}
    return {**pipes, "dram_active_ratio": dram, "graphics_active_ratio": 1.0, "source": "gpm"}


MEMORY = counters(0.05, 0.8)
COMPUTE = counters(0.8, 0.3)


def test_each_second_of_a_job_counts_once_under_one_roof(tmp_path: Path) -> None:
    clock, sink = Clock(), Sink()
    loop = make_loop(tmp_path, [runner(Gpus, Context())], clock, sink)
    Gpus.fields = COMPUTE
    loop.tick(int(clock.now * 1000))
    loop.start_job(JobStart("7", int(clock.now * 1000)))
    for fields in (COMPUTE, COMPUTE, MEMORY):
        Gpus.fields = fields
        clock.now += 10
        loop.tick(int(clock.now * 1000))
    loop.end_job("7", 0)
    rows = [point for point in sink.points if point.measurement == "job_gpu_footprint"]
    held = [
        {name: value for name, value in row.fields.items() if name.endswith("_bound_seconds")}
        for row in rows[-2:]
    ]
    assert held == [
        {"compute_bound_seconds": 20.0, "memory_bound_seconds": 10.0},
        {"idle_bound_seconds": 30.0},
    ]
    assert sink.last("bound").fields["evidence"] == "gpm"
    loop.close()


class A100(Gpus):
    """The same without counters."""

    def sample(self) -> Sequence[Sample]:
        fields: dict[str, Value] = {
            "utilization_ratio": 1.0,
            "memory_utilization_ratio": 0.4,
            "power_watts": 390.0,
            "power_limit_watts": 400.0,
            "sm_clock_hertz": 1.2e9,
            "sm_clock_limit_hertz": 1.41e9,
            "source": "nvml",
        }
        return [Sample("gpu", tags(gpu="0", uuid="GPU-0", model="A100"), fields)]


class Impersonated(AgentSocket):
    """A socket to which everything seems to come from one user."""

    uid = os.geteuid()

    def receive(self) -> Received | None:
        received = super().receive()
        return received and received._replace(uid=self.uid)


def tell(loop: Loop, listener: AgentSocket, phase: Sample, time_ms: int) -> None:
    """Send a phase to a running loop and wait until it has been taken."""
    path = str(listener.path)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert send_points([(phase, time_ms)], {"ROOFLIGHT_SOCKET": path})
    assert ask(path, Ping()) is not None
    loop.stop()
    thread.join(10)


@pytest.mark.parametrize(("owner", "bound"), [(os.geteuid(), "compute"), (12345, "unknown")])
def test_reference_phases_teach_only_by_root_s_word(tmp_path: Path, owner: int, bound: str) -> None:
    """The other user owns the job, so that the phase is written, and is not believed."""
    clock, sink = Clock(), Sink()
    loop = make_loop(tmp_path, [runner(A100, Context())], clock, sink)
    loop.start_job(JobStart("7", int(clock.now * 1000), uid=owner))
    begin = int(clock.now * 1000)
    for _ in range(6):
        clock.now += 2
        loop.tick(int(clock.now * 1000))
    phase = Sample(
        "phase",
        tags(jobid="7", phase="prefill", workload="w", device="cuda:0"),
        {"duration_seconds": 12.0, "bound": "compute", "confidence_ratio": 0.9},
    )
    listener = Impersonated(tmp_path / "agent.sock")
    listener.uid = owner
    loop.watch(listener, lambda: loop.serve(listener))
    tell(loop, listener, phase, begin)
    listener.close()
    assert sink.last("phase").fields["bound"] == "compute"
    for _ in range(2):
        clock.now += 2
        loop.tick(int(clock.now * 1000))
    assert sink.last("bound").fields["bound"] == bound
