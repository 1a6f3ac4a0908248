"""The daemon: ticks, stopping, being killed, and what it says of a bare node."""

import os
import signal
import sqlite3
import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.lineprotocol import Point, parse
from tests.integration.commands import Site
from tests.weather import PATIENCE, Weather, wait_until

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


def spooled_ticks(site: Site) -> dict[int, float]:
    """Return the ticks in the spool, each with how many the agent had skipped until then."""
    return {
        point.time_ms: float(point.fields["ticks_skipped_total"])
        for point in spooled(site)
        if point.measurement == "agent"
    }


def wait_for_spooled(site: Site, number: int) -> None:
    wait_until(lambda: len(spooled_ticks(site)) >= number, f"no {number} ticks in the spool")


def wait_until_sampling(site: Site) -> None:
    store = site.folder / "state" / "rooflight.db"
    wait_until(lambda: any(True for _ in spooled(site)) or store.exists(), "it does not sample")


def has_stored(site: Site, number: int) -> bool:
    """Say whether the agent has stored so many ticks: it makes the file, and then its tables."""
    try:
        return len(stored_ticks(site)) >= number
    except sqlite3.OperationalError:
        return False


def assert_no_gap(ticks: dict[int, float]) -> None:
    """Every tick is there but those that a busy machine made the agent skip, which it counts."""
    assert len(ticks) > 5
    expected = range(min(ticks), max(ticks) + INTERVAL_MS, INTERVAL_MS)
    assert len(expected) - len(ticks) == ticks[max(ticks)]
    assert set(ticks) <= set(expected)


def test_ticks_are_aligned_and_share_one_time(site: Site) -> None:
    with Weather() as weather:
        site.call("rooflight", "agent", "--interval", "0.1", "--for", "2")
    ticks = stored_ticks(site)
    assert len(ticks) + ticks[max(ticks)] >= 15
    assert all(tick % INTERVAL_MS == 0 for tick in ticks)
    for table in ("cpu", "memory", "network"):
        assert {int(each) for (each,) in rows(site, f"SELECT time_ms FROM {table}")} == set(ticks)
    late = [late for (late,) in rows(site, "SELECT lateness_seconds FROM agent")]
    assert statistics.median(late) < 0.05 + 2 * weather.usual


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_with_every_tick_stored(site: Site, number: int) -> None:
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until(lambda: has_stored(site, 10))
    agent.send_signal(number)
    _, words = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0, words
    assert list(spooled(site)) == []
    assert_no_gap(stored_ticks(site))


def test_kill_9_loses_no_finished_tick_and_the_next_agent_ships_them(site: Site) -> None:
    text = site.file.read_text()
    site.file.write_text(text.replace("flush_seconds = 0.2", "flush_seconds = 3600"))
    agent = site.start("rooflight", "agent", "--interval", "0.1")
    seen: dict[int, float] = {}
    for number in range(1, 11):  # each is on the disk as soon as it is finished: nothing is flushed
        wait_for_spooled(site, number)
        seen |= spooled_ticks(site)
    agent.kill()
    agent.communicate()
    before = spooled_ticks(site)
    assert seen.items() <= before.items()
    assert_no_gap(before)
    site.call("rooflight", "agent", "--interval", "0.1", "--for", "0.5")
    assert list(spooled(site)) == []
    assert before.keys() <= stored_ticks(site).keys()


def test_two_agents_cannot_share_a_spool(site: Site) -> None:
    first = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until_sampling(site)
    second = site.complete("rooflight", "agent", "--for", "1")
    first.terminate()
    first.communicate(timeout=PATIENCE)
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
        agent.communicate(timeout=PATIENCE)
    job = site.report("77")["job"]
    assert (job["state"], job["exit_code"], job["name"]) == ("FAILED", 3, "test")


def wait_until_stored(site: Site, jobid: str) -> None:
    wait_until(lambda: site.complete("jobinspect", jobid).returncode == 0, jobid)


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
