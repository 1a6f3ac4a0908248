"""A small cluster in a real InfluxDB for the dashboards: two GPU nodes and one without.

gpu1 and gpu2 are simulated (`simulated.py`), each with two replayed GPUs for ten minutes up to now.
Job 1001 holds GPU 0 of both and runs on; job 1002 held GPU 1 of gpu1, used it for nothing and
failed. cpu1 is this machine: it ran a job with a phase of its own.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.messages import JobStart, PointMessage
from tests.integration.commands import BIN, NO_SLURM, Site
from tests.integration.services import Service
from tests.integration.simulated import TICK_SECONDS, SimulatedJob, Simulation
from tests.nvml.build import TRACES, environment
from tests.weather import PATIENCE

CLUSTER = "tiny"
TICKS = 60
MODEL = "NVIDIA H100 80GB HBM3"
TRAINING = ["train.forward", "train.backward"]


@dataclass(frozen=True)
class FilledSite:
    """The cluster as it lies in the store.

    Attributes:
        site: runs commands on it.
        begin_ms: time of the first tick of the simulated nodes.
        local_job: id of the job on cpu1.

    """

    site: Site
    begin_ms: int
    local_job: str


def fill(folder: Path, service: Service) -> FilledSite:
    sites = {host: host_site(folder / host, service, host) for host in ("cpu1", "gpu1", "gpu2")}
    sites["cpu1"].call("rooflight", "store", "setup")
    now = int(time.time()) // TICK_SECONDS * TICK_SECONDS
    begin_ms = (now - TICK_SECONDS * (TICKS - 1)) * 1000
    playing = [play(sites[host], host, begin_ms) for host in ("gpu1", "gpu2")]
    marked = [str(BIN / "rooflight"), "phase", "load", "--", "sleep", "1.5"]
    run = sites["cpu1"].complete("rooflight", "run", "--quiet", "--interval", "0.2", "--", *marked)
    assert run.returncode == 0, run.stderr
    for each in playing:
        words, _ = each.communicate(timeout=PATIENCE)
        assert each.returncode == 0, words
    local_job = run.stderr.strip().rpartition(" ")[2]
    return FilledSite(sites["cpu1"], begin_ms, local_job)


def host_site(folder: Path, service: Service, host: str) -> Site:
    folder.mkdir(parents=True)
    text = f"""
cluster = "{CLUSTER}"
host = "{host}"
store = "influx"
[influx]
url = "{service.url}"
database = "dash"
jobs_database = "dash_jobs"
retention_days = 0
[agent]
state_directory = "state"
flush_seconds = 0.2
{NO_SLURM}
"""
    (folder / "rooflight.toml").write_text(text)
    return Site(folder)


def play(site: Site, host: str, begin_ms: int) -> subprocess.Popen[str]:
    """Start the simulation of one GPU node."""
    jobs = [SimulatedJob(job("1001", gpu="0", nodes="gpu[1-2]"), begins=10)]
    if host == "gpu1":
        jobs.append(SimulatedJob(job("1002", gpu="1", nodes="gpu1"), 5, 50, exit_code=1))
    points = [*ceilings(host, begin_ms), *(phases(begin_ms) if host == "gpu1" else [])]
    simulation = Simulation(
        str(site.file), str(site.folder), begin_ms, TICKS, jobs=jobs, points=points
    )
    spec = site.folder / "simulation.json"
    spec.write_bytes(msgspec.json.encode(simulation))
    variables = environment(
        TRACES / "two_h100.csv", clock=str(site.folder / "nvml-clock"), loop="1"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.simulated", str(spec)],
        env={**site.variables(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def job(jobid: str, gpu: str, nodes: str) -> JobStart:
    return JobStart(
        jobid,
        0,
        user="ann",
        account="physics",
        partition="gpu",
        name="train",
        gpus=(gpu,),
        cpus=4.0,
        nodes=nodes,
        source="slurm",
    )


def ceilings(host: str, begin_ms: int) -> list[PointMessage]:
    """Return what devices reach: the second GPU of gpu2 is a fifth slower than its kind."""
    slow = 0.8 if host == "gpu2" else 1.0
    reached = [
        ("cuda:0", "matmul", "bf16", "flops_per_second", 700e12),
        ("cuda:1", "matmul", "bf16", "flops_per_second", 700e12 * slow),
        ("cuda:0", "copy", "byte", "bytes_per_second", 3e12),
        ("cuda:1", "copy", "byte", "bytes_per_second", 3e12),
    ]
    return [
        PointMessage(
            "ceiling",
            {"device": device, "kind": kind, "dtype": dtype, "model": MODEL},
            {field: speed, "spread_ratio": 0.02, "method": "as the test says"},
            begin_ms + 60_000,
        )
        for device, kind, dtype, field, speed in reached
    ]


def phases(begin_ms: int) -> list[PointMessage]:
    """Return the phases of job 1001: half of the compute roof, a tenth of the memory roof."""
    fields: dict[str, float | str] = {
        "duration_seconds": 60.0,
        "calls_total": 100.0,
        "tokens_total": 1e6,
        "flops_per_second": 350e12,
        "moved_bytes_per_second": 0.3e12,
        "intensity_flops_per_byte": 350 / 0.3,
        "ridge_flops_per_byte": 700 / 3,
        "compute_ratio": 0.5,
        "memory_ratio": 0.1,
        "confidence_ratio": 1.0,
        "bound": "compute",
        "dtype": "bf16",
        "explanation": "half of the compute roof",
    }
    return [
        PointMessage(
            "phase",
            {"jobid": "1001", "workload": "train", "phase": name, "device": "cuda:0"},
            dict(fields),
            begin_ms + 200_000 + 60_000 * number,
        )
        for number, name in enumerate(TRAINING)
    ]
