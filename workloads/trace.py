"""Show a profiler the phases of a run: Perfetto or chrome://tracing a file, Nsight Systems ranges.

rooflight workload run train --trace step.json     then open the file in ui.perfetto.dev
nsys profile rooflight workload run decode         shows NVTX ranges of the same names
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from workloads.device import synchronizer
from workloads.phase import Mark, Recorder
from workloads.setting import Progress, Setting, silent

Run = Callable[[Setting, Recorder, Progress], object]


def range_marker(device: torch.device) -> Mark:
    """Return what names a phase for profilers from outside: NVTX ranges on CUDA."""
    return torch.cuda.nvtx.range if device.type == "cuda" else nullcontext


def write_trace(path: Path, runs: Mapping[str, Run], setting: Setting, progress: Progress) -> None:
    """Run one recorded step of each workload under torch's profiler; write them as one trace.

    Raises:
        OSError: the file cannot be written.

    """
    traces: list[dict[str, Any]] = []
    for name, run in runs.items():
        progress(f"trace: {name}", len(traces) / len(runs))
        traces.append(trace_step(name, run, setting))
    events = [event for trace in traces for event in trace["traceEvents"]]
    whole = {**traces[0], "traceName": path.name, "traceEvents": events}
    path.write_text(json.dumps(whole), encoding="utf-8")


def trace_step(name: str, run: Run, setting: Setting) -> dict[str, Any]:
    """Return one recorded step of a workload in Chrome's trace format."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its stages are not for stderr
    device = torch.device(setting.device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities)
    run(replace(setting, steps=1), _ProfiledRecorder(name, setting, profiler), silent)
    synchronizer(device)()
    profiler.stop()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace: dict[str, Any] = json.loads(file.read_bytes())
    return trace


class _ProfiledRecorder(Recorder):
    """Starts the profiler when the warm-up is over, and names phases for it."""

    def __init__(self, workload: str, setting: Setting, profiler: profile) -> None:
        super().__init__(
            workload,
            setting.dtype,
            synchronizer(torch.device(setting.device)),
            clock=time.perf_counter,
            wall=time.time,
            mark=record_function,
        )
        self._profiler = profiler

    def forget(self) -> None:
        """Drop the warm-up and begin to profile."""
        super().forget()
        self._profiler.start()
