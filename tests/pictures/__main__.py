"""Make the pictures of the dashboards from real runs, for the documentation and for reviews.

    python -m tests.pictures [--to FOLDER] [--all]

It takes about two minutes, a real influxd and a C compiler. The job of `job.png` is what this
machine does meanwhile; the cluster of the others is simulated (`cluster.py`), its GPUs replayed
through NVML's own interface. With `--all` it draws every dashboard whole, empty panels included:
for reviews, and too large for a repository.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.config import load
from agent.dashboards.cli import asking, view_of_job
from dashboards.draw.page import Picture, draw
from dashboards.expand import View
from dashboards.frames import Ask
from dashboards.pages import all_dashboards
from tests.integration import services
from tests.integration.commands import BIN, Site
from tests.integration.services import Service
from tests.pictures import cluster

PICTURES = Path(__file__).parents[2] / "dashboards" / "pictures"
PAGES = {dashboard.page: dashboard for dashboard in all_dashboards()}

JOB_ROWS = ("The job", "What holds it back", "CPU and memory")
GPU_JOB_ROWS = ("The job", "What holds it back", "GPUs")
"""What a picture for the documentation shows: below that all is as the fixture machine has it."""

PHASES = ("train", "prefill", "decode")
LONGEST_RUN_SECONDS = 900
LARGEST_BYTES = 250_000


def real_run(folder: Path, service: Service) -> Site:
    """Run the reference phases as a job on this machine, as `make demo` does."""
    folder.mkdir()
    text = f"""
cluster = "demo"
host = "node1"
store = "influx"
[influx]
url = "{service.url}"
database = "demo"
jobs_database = "demo_jobs"
retention_days = 0
[agent]
state_directory = "state"
flush_seconds = 1
"""
    (folder / "rooflight.toml").write_text(text)
    site = Site(folder)
    site.call("rooflight", "store", "setup")
    command = [str(BIN / "rooflight"), "workload", "run", *PHASES]
    run = site.start("rooflight", "run", "--quiet", "--interval", "1", "--", *command)
    _, words = run.communicate(timeout=LONGEST_RUN_SECONDS)
    assert run.returncode == 0, words
    return site


def job_view(ask: Ask, view: View, jobid: str = "") -> View:
    """Return the view that a link to a job leads to; to the newest, if none is named."""
    found = view_of_job(ask, view, jobid)
    assert found is not None, f"no job {jobid} in the store"
    return replace(found, least_interval_ms=view.least_interval_ms)


def save(picture: Picture, file: Path, largest: int = LARGEST_BYTES) -> None:
    picture.save(file)
    size = file.stat().st_size
    print(f"{file.name}: {len(picture.drawn)} panels, {size // 1000} kB")
    assert size <= largest, f"{file} is too large for a repository"


def for_documents(page: str, view: View, ask: Ask, rows: Sequence[str] = ()) -> Picture:
    return draw(PAGES[page], view, ask, only_filled=True, rows=rows)


def for_reviews(folder: Path, view: View, ask: Ask, job: View) -> None:
    """Write every dashboard whole."""
    for page, dashboard in PAGES.items():
        seen = job if page == "job" else view
        save(draw(dashboard, seen, ask), folder / f"{page}-whole.png", 4 * LARGEST_BYTES)


def make(folder: Path, work: Path, service: Service, *, everything: bool) -> None:
    """Write the pictures."""
    site = real_run(work / "demo", service)
    now_ms = int(time.time() * 1000)
    view = View(now_ms - 3_600_000, now_ms, {"cluster": "demo"}, least_interval_ms=1000)
    with asking(load(site.file, environment={}).config) as ask:
        job = job_view(ask, view)
        save(for_documents("job", job, ask, JOB_ROWS), folder / "job.png")
    site, begin_ms = cluster.fill(work / "cluster", service)
    view = View(begin_ms, int(time.time() * 1000), {"cluster": cluster.CLUSTER})
    with asking(load(site.file, environment={}).config) as ask:
        job = job_view(ask, view, "1001")
        save(for_documents("cluster", view, ask), folder / "cluster.png")
        save(for_documents("job", job, ask, GPU_JOB_ROWS), folder / "job-gpu.png")
        if everything:
            for_reviews(folder, view, ask, job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=PICTURES, help="folder to write to")
    parser.add_argument("--all", action="store_true", help="draw every dashboard whole, too")
    chosen = parser.parse_args()
    folder: Path = chosen.to
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, services.influxd(Path(name)) as service:
        make(folder, Path(name), service, everything=chosen.all)


if __name__ == "__main__":
    main()
