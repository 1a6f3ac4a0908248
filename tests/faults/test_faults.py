"""The fault suite in its short form, and whether it would notice."""

import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bed import Bed, bed, settle
from tests.faults.run import run
from tests.faults.story import STATUSES, TROUBLES, episodes
from tests.faults.verdict import judge
from tests.faults.witness import read_records
from tests.integration.services import Missing, influxd

SEED = int(os.environ.get("FAULTS_SEED", "1"))
SHORT_TICKS = 300


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[Bed]:
    """Agent and store, and nothing wrong."""
    (tmp_path / "influxd").mkdir()
    try:
        with influxd(tmp_path / "influxd") as server, bed(tmp_path, server) as made:
            yield made
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.influxd
@pytest.mark.mount
@pytest.mark.timeout(1200)  # a backlog gives a busy store long pauses
def test_every_finished_tick_is_in_the_store_once_or_counted(tmp_path: Path) -> None:
    """`make faults` does it for longer; to replay one, set FAULTS_SEED."""
    try:
        done = run(tmp_path, SEED, SHORT_TICKS)
    except Missing as missing:
        pytest.skip(str(missing))
    print(done)
    assert done.verdict.faults == []
    assert done.verdict.unaccounted == 0
    assert done.verdict.ticks >= SHORT_TICKS
    assert done.kills > 1


@pytest.mark.influxd
@pytest.mark.mount
def test_a_point_that_the_store_lost_would_be_noticed(healthy: Bed) -> None:
    healthy.wait_ticks(20)
    settle(healthy)
    assert judge(healthy).faults == []
    (tick, *_) = [each for each in healthy.records(1) if each.database == "metrics"][5:]
    line = next(line for line in tick.lines.splitlines() if line.startswith(b"memory,"))
    gone = f"DELETE FROM memory WHERE time = {line.split()[-1].decode()}ms"
    asked = urllib.parse.urlencode({"db": "rooflight", "q": gone}).encode()
    urllib.request.urlopen(f"{healthy.server.url}/query", asked).close()
    verdict = judge(healthy)
    assert (verdict.missing, verdict.unaccounted) == (1, 1)
    (fault,) = verdict.faults
    assert "nothing was wrong then" in fault
    assert repr(line) in fault


@pytest.mark.influxd
@pytest.mark.mount
def test_a_tick_that_the_spool_lost_would_be_noticed(healthy: Bed) -> None:
    healthy.proxy.behave("refuse")
    healthy.wait_ticks(20)
    healthy.kill_agent()
    segment = max(healthy.spool.glob("*-metrics.lp"))
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[1:]))
    healthy.proxy.behave("pass")
    healthy.start_agent()
    healthy.wait_ticks(1)
    settle(healthy)
    assert judge(healthy).unaccounted == 1


def test_a_seed_tells_the_same_story_again() -> None:
    def told(seed: int, number: int) -> list[str]:
        return [str(episode) for episode, _ in zip(episodes(seed), range(number), strict=False)]

    assert told(7, 50) == told(7, 50)
    assert told(7, 50) != told(8, 50)
    rounds = len(TROUBLES)
    for seed in range(20):
        assert {words.split()[0] for words in told(seed, rounds)} == set(TROUBLES)
        statuses = [words.split()[1] for words in told(seed, rounds * 9) if "status" in words]
        assert set(statuses) == {str(status) for status in STATUSES}


def test_a_record_that_is_torn_was_never_begun() -> None:
    whole = b"begun 1 metrics 8\na b=1 2\nfinished 1\n"
    second = b"begun 2 metrics 8\na b=1 3\n"
    for length in range(len(second)):
        (record,) = read_records(whole + second[:length])
        assert (record.lines, record.finished) == (b"a b=1 2\n", True)
    *_, record = read_records(whole + second)
    assert (record.lines, record.finished) == (b"a b=1 3\n", False)
