"""The daemon: ticks, stopping, being killed, and what it says of a bare node."""

import os
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.lineprotocol import Point, parse
from tests.integration.commands import Site

INTERVAL_MS = 100


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def rows(site: Site, question: str) -> list[tuple[float, ...]]:
    with closing(sqlite3.connect(site.folder / "state" / "rooflight.db")) as connection:
        return connection.execute(question).fetchall()


def spooled(site: Site) -> Iterator[Point]:
    for segment in sorted((site.folder / "state" / "spool").glob("*.*p*")):
        if segment.suffix in (".open", ".lp"):
            yield from parse(segment.read_text())


def stored_ticks(site: Site) -> dict[int, float]:
    """Return the ticks in the store, each with how many the agent had skipped until then."""
    return {
        int(time_ms): skipped
        for time_ms, skipped in rows(site, "SELECT time_ms, ticks_skipped_total FROM agent")
    }


def wait_until_sampling(site: Site) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(True for _ in spooled(site)) or (site.folder / "state" / "rooflight.db").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the agent did not begin to sample")


def assert_no_gap(ticks: dict[int, float]) -> None:
    """Every tick is there but those that a busy machine made the agent skip, which it counts."""
    assert len(ticks) > 5
    expected = range(min(ticks), max(ticks) + INTERVAL_MS, INTERVAL_MS)
    assert len(expected) - len(ticks) == ticks[max(ticks)]
    assert set(ticks) <= set(expected)


def test_ticks_are_aligned_and_share_one_time(site: Site) -> None:
    site.call("rooflight", "agent", "--interval", "0.1", "--for", "2")
    ticks = stored_ticks(site)
    assert len(ticks) >= 15
    assert all(tick % INTERVAL_MS == 0 for tick in ticks)
    for table in ("cpu", "memory", "network"):
        assert {int(each) for (each,) in rows(site, f"SELECT time_ms FROM {table}")} == set(ticks)
    late = [late for (late,) in rows(site, "SELECT lateness_seconds FROM agent")]
    assert statistics.median(late) < 0.05


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_with_every_tick_stored(site: Site, number: int) -> None:
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until_sampling(site)
    time.sleep(1.5)
    agent.send_signal(number)
    _, words = agent.communicate(timeout=20)
    assert agent.returncode == 0, words
    assert list(spooled(site)) == []
    assert_no_gap(stored_ticks(site))


def test_kill_9_loses_no_finished_tick_and_the_next_agent_ships_them(site: Site) -> None:
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until_sampling(site)
    time.sleep(1.5)
    killed_ms = time.time() * 1000
    agent.kill()
    agent.communicate()
    in_spool = {
        point.time_ms: float(point.fields["ticks_skipped_total"])
        for point in spooled(site)
        if point.measurement == "agent"
    }
    before = stored_ticks(site) | in_spool
    assert_no_gap(before)
    assert max(before) > killed_ms - 3 * INTERVAL_MS
    site.call("rooflight", "agent", "--interval", "0.1", "--for", "0.5")
    assert list(spooled(site)) == []
    assert before.keys() <= stored_ticks(site).keys()


def test_two_agents_cannot_share_a_spool(site: Site) -> None:
    first = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until_sampling(site)
    second = site.complete("rooflight", "agent", "--for", "1")
    first.terminate()
    first.communicate(timeout=20)
    assert second.returncode == 2
    assert f"in use by another agent (process {first.pid})" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_bare_node_works_and_says_so_once(site: Site) -> None:
    missing = [
        line
        for line in site.call("rooflight", "check").splitlines()
        if line.startswith("off") and not line.startswith("off  agent")
    ]
    agent = site.complete("rooflight", "agent", "--interval", "0.1", "--for", "1")
    for line in missing:
        name, reason = line.split(None, 2)[1:]
        assert agent.stderr.count(f"probe {name} is off: {reason}") == 1


def test_once_prints_one_tick_with_rates(site: Site) -> None:
    points = list(parse(site.call("rooflight", "agent", "--once", "--store", "stdout")))
    assert len({point.time_ms for point in points}) == 1
    found = {point.measurement: point for point in points}
    assert {"cpu", "memory", "network", "tempdisk", "agent"} <= found.keys()
    assert 0.0 <= float(found["cpu"].fields["utilization_ratio"]) <= 1.0
    assert dict(found["cpu"].tags) == {"cluster": "test", "host": "node1"}


def test_a_job_is_started_and_ended_over_the_socket(site: Site) -> None:
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until_sampling(site)
    try:
        site.call("rooflight", "job", "start", "77", "--pid", str(os.getpid()), "--name", "test")
        wait_until_stored(site, "77")
        assert site.report("77")["job"]["state"] == "RUNNING"
        site.call("rooflight", "job", "end", "77", "--exit-code", "3")
    finally:
        agent.terminate()
        agent.communicate(timeout=20)
    job = site.report("77")["job"]
    assert (job["state"], job["exit_code"], job["name"]) == ("FAILED", 3, "test")


def wait_until_stored(site: Site, jobid: str) -> None:
    deadline = time.monotonic() + 10
    while site.complete("jobinspect", jobid).returncode != 0:
        assert time.monotonic() < deadline, f"job {jobid} did not reach the store"


def test_without_an_agent_a_prolog_is_told_so_in_one_line(site: Site) -> None:
    done = site.complete("rooflight", "job", "start", "77")
    assert done.returncode == 3
    assert done.stderr.startswith("rooflight: no agent answers at ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent2]", "unknown key 'agent2'; did you mean 'agent'?"),
        ("[influx]\ntimeout_seconds = 0", "influx.timeout_seconds: expected"),
        ('store = "influx"\n[influx]\npassword_file = "/no/such"', "/no/such"),
    ],
)
def test_a_config_mistake_is_exit_code_2_and_one_line(
    tmp_path: Path, text: str, words: str
) -> None:
    done = Site(tmp_path, text).complete("rooflight", "agent", "--for", "1")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
