"""What people read: header, tables for one host and for many, 80 columns, hostile names."""

from collections.abc import Sequence

import msgspec
import pytest

from agent.config import Config
from agent.inspect.collect import report_of
from agent.inspect.model import JobHeader, JobReport, Phase, TaskSummary
from agent.inspect.outliers import RULE_WORDS
from agent.inspect.phasetable import MOST_ROWS
from agent.inspect.rows import JobRows
from agent.inspect.tasktable import MOST_ROWS as MOST_TASKS
from agent.inspect.tasktable import telling
from agent.inspect.text import render
from agent.lineprotocol import parse
from agent.stores.store import Row
from tests.made_up_jobs import CLUSTER, START_MS, SimulatedHost, job_start

NARROW, USUAL = 80, 100


def rendered(report: JobReport, width: int = USUAL, *, per_node: bool = False) -> str:
    return render(report, width, per_node=per_node)


def rows(host: SimulatedHost, *, ended: bool = True) -> dict[str, list[Row]]:
    """Return what a host's agent writes, as a store gives it back."""
    host.run(600)
    lines = host.lines("COMPLETED", (START_MS + 600_000, 0) if ended else None)
    found: dict[str, list[Row]] = {}
    for point in parse(lines.decode()):
        row: Row = {**dict(point.tags), **point.fields, "time_ms": float(point.time_ms)}
        found.setdefault(point.measurement, []).append(row)
    return found


def report(hosts: Sequence[SimulatedHost], *, ended: bool = True) -> JobReport:
    told = [rows(host, ended=ended) for host in hosts]
    names = ("job", "job_footprint", "job_gpu_footprint")
    parts = [[row for each in told for row in each.get(name, ())] for name in names]
    return report_of(Config(cluster=CLUSTER), "7", JobRows(*parts), START_MS + 700_000)


def hosts(count: int, gpus: int = 0, nodes: str = "") -> list[SimulatedHost]:
    job = job_start(nodes=nodes or f"n[1-{count}]")
    return [
        SimulatedHost(msgspec.structs.replace(job, node=f"n{n}"), f"n{n}", loads=(0.9,) * gpus)
        for n in range(1, count + 1)
    ]


def header(**values: object) -> JobReport:
    job = msgspec.structs.replace(JobHeader("7", CLUSTER, "RUNNING"), **values)
    return JobReport(job, (), (), (), ())


def test_the_header_tells_queue_limit_and_restarts() -> None:
    text = rendered(
        header(
            state="FAILED",
            exit_code=3,
            restart=2,
            user="alice",
            account="proj",
            partition="gpu",
            hosts=["n1", "n2"],
            cpus=16,
            gpus=4,
            memory_bytes=2.0**36,
            submit_ms=START_MS - 90_000,
            wait_seconds=90.0,
            start_ms=START_MS,
            end_ms=START_MS + 900_000,
            elapsed_seconds=900.0,
            time_limit_seconds=3600.0,
        )
    )
    assert "FAILED, exit code 3, requeued twice before this run" in text
    assert "alice / proj / gpu" in text
    assert "2 nodes: n1, n2 (16 CPUs, 64.0 GiB memory, 4 GPUs)" in text
    assert "waited 1:30" in text
    assert "took 15:00 of 1:00:00 asked for (25%)" in text


def test_a_pending_job_tells_why_and_when_it_may_start() -> None:
    text = rendered(
        header(
            state="PENDING",
            reason="Resources",
            cpus=8,
            submit_ms=START_MS,
            wait_seconds=120.0,
            expected_start_ms=START_MS + 3_600_000,
        )
    )
    assert "waiting for 2:00" in text
    assert "not begun: Resources; Slurm means to start it 20" in text
    assert "Findings" not in text


@pytest.mark.parametrize("width", [NARROW, USUAL])
def test_a_host_with_gpus_fits_the_terminal(width: int) -> None:
    text = rendered(report(hosts(1, gpus=2)), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "Utilisation of n1: 61 of 62 samples" in text
    for words in ("exact for the job", "exact for the GPU", "whole node, others' work included"):
        assert words in text
    lines = {line[:22].rstrip(): line[22:].split() for line in text.splitlines()}
    bar = "####....." if width == USUAL else "####..."
    assert lines["cpu"] == ["50%", "50%", bar, "cgroup1"]
    assert lines["cpu time"][:5] == ["40:00", "1:20:00", bar, "cgroup1"]
    assert lines["infiniband out"][:6] == ["2.00", "GB/s", "2.00", "GB/s", "1.09", "TiB"]
    assert "…" not in text


def test_few_hosts_stand_side_by_side_and_many_do_when_asked() -> None:
    few, many = report(hosts(2, gpus=2)), report(hosts(9, gpus=2))
    assert "Utilisation: footprints from 2 of 2 nodes, 122 of 124 samples" in rendered(few)
    assert rendered(few).count("\nn2 ") == 1 + 2 * 2  # a host; two GPUs, two tables
    assert "\nn2 " not in rendered(many)
    assert "9 nodes, 18 GPUs: --per-node shows each" in rendered(many)
    assert "Time under each roof, 18 GPUs, judged by gpm" in rendered(many)
    assert rendered(many, per_node=True).count("\nn2 ") == 1 + 2 * 2


def test_hosts_that_did_not_tell_are_counted() -> None:
    text = rendered(report(hosts(3, nodes="n[1-4]")))
    assert "Utilisation: footprints from 3 of 4 nodes" in text


def test_who_is_unlike_the_others_has_a_star_and_the_rule_is_told() -> None:
    made = hosts(4)
    made[2].cpus = 0.5
    text = rendered(report(made))
    (line,) = [line for line in text.splitlines() if line.startswith("n3 ")]
    assert " 6.2%* " in line
    assert text.count("*") == 1 + RULE_WORDS.count("*")
    assert RULE_WORDS in " ".join(text.split())


def test_a_figure_that_was_there_at_times_says_how_often() -> None:
    given = report(hosts(1))
    lines = [
        msgspec.structs.replace(line, samples=20) if line.what == "node power" else line
        for line in given.summary
    ]
    text = rendered(msgspec.structs.replace(given, summary=lines))
    (line,) = [line for line in text.splitlines() if line.startswith("node power")]
    assert line.rstrip().endswith("hwmon 20/62")
    assert text.count("/62") == 1


HOSTILE = "a,b=\"c\" 'd' <script>\x1b[2J\n[bold red]x[/]; DROP TABLE job; $(reboot) \u202e\ud800"


def test_hostile_names_come_out_literally_and_command_no_terminal() -> None:
    task = TaskSummary(HOSTILE, HOSTILE, [HOSTILE], 1.0, name=HOSTILE, findings=[HOSTILE])
    header_of = {"user": HOSTILE, "account": HOSTILE, "name": HOSTILE, "hosts": [HOSTILE]}
    given = header(**header_of, cpus=1, reason=HOSTILE)
    odd = Phase(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0, 0)
    given = msgspec.structs.replace(given, phases=[odd])
    several = msgspec.structs.replace(given, tasks=[task])
    for text in (rendered(given), rendered(several)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\ud800" not in text
    assert r"<script>\x1b[2J\n[bold red]x[/]; DROP TABLE job" in " ".join(rendered(given).split())


def test_a_thousand_ranks_are_told_by_the_names_of_their_phases() -> None:
    phases = [
        Phase("n1", "user", name, f"rank {rank}", "unknown", float(rank), 0)
        for rank in range(MOST_ROWS)
        for name in ("load", "train")
    ]
    text = rendered(msgspec.structs.replace(header(), phases=phases))
    assert f"load ({MOST_ROWS})" in text
    assert text.count("load") == 1


def test_of_very_many_jobs_those_that_tell_something_are_shown() -> None:
    quiet = [TaskSummary(f"7_{n}", "COMPLETED", (), 1.0) for n in range(500)]
    loud = [TaskSummary("7_900", "FAILED", (), 1.0), TaskSummary("7_901", "RUNNING", (), 1.0)]
    assert telling([*quiet, *loud]) == loud
    assert len(telling(quiet)) == MOST_TASKS
    text = rendered(msgspec.structs.replace(header(), tasks=[*quiet, *loud]))
    assert "500 more, of which there is nothing to tell: --json" in text
    assert "500 COMPLETED, 1 FAILED, 1 RUNNING" in text
