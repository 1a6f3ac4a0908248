"""The way from tick to store is short enough for a newcomer, and the README tells it truly."""

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest

from agent.encoder import Encoder
from agent.shipper import Shipper
from agent.spool import Spool
from agent.stores.influx import InfluxSettings, InfluxStore
from probes.sample import Sample
from tests.unit.test_store_influx import Influx2
from tests.unit.test_walls import imported, tree_of

AGENT = Path(__file__).parents[2] / "agent"
MOST_FILES, FEWER_LINES_THAN = 4, 300


def chapter() -> str:
    text = (AGENT / "README.md").read_text(encoding="utf-8")
    return text.partition("## From tick to store\n")[2].partition("\n|")[0]


def to_read() -> list[str]:
    return re.findall(r"^\d\. `([\w/]+\.py)`", chapter(), re.MULTILINE)


def leaned_on() -> list[str]:
    return re.findall(r"`([\w/]+\.py)`", chapter().partition("lean on")[2])


def test_the_way_from_tick_to_store_is_read_in_ten_minutes() -> None:
    lengths = {name: len((AGENT / name).read_text().splitlines()) for name in to_read()}
    assert 1 < len(lengths) <= MOST_FILES
    assert all(length < FEWER_LINES_THAN for length in lengths.values()), lengths


def test_what_need_not_be_read_knows_nothing_of_what_must() -> None:
    path = {f"agent.{name.removesuffix('.py').replace('/', '.')}" for name in to_read()}
    for name in leaned_on():
        modules = {each.rpartition(".")[0] for each in imported(tree_of(AGENT / name))}
        assert modules & path == set(), name


@pytest.fixture
def server() -> Iterator[Influx2]:
    with Influx2() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_tick_passes_through_these_files_and_no_others(tmp_path: Path, server: Influx2) -> None:
    """With a line that the server refuses, so that this is on the way, too."""
    store = InfluxStore(InfluxSettings(url=server.url))
    spool = Spool(tmp_path / "spool", 1 << 20)
    shipper = Shipper(spool, store, flush_seconds=1.0)
    encoder = Encoder("c", "h")
    entered: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        entered.add(frame.f_code)

    samples = [Sample("cpu", (), {"user_seconds": 1.0}), Sample("memory", (), {"free_bytes": 1.0})]
    server.bad = {b"cpu,cluster=c,host=h user_seconds=1.0 5"}
    sys.setprofile(note)
    try:
        for database, lines in encoder.lines(samples, 5).items():
            spool.append(database, lines)
        shipper.ship()
    finally:
        sys.setprofile(None)
    spool.close()
    store.close()
    assert server.lines == [b"memory,cluster=c,host=h free_bytes=1.0 5"]
    assert (spool.directory / "quarantine.lp").exists()
    files = {Path(code.co_filename) for code in entered}
    passed = {file.relative_to(AGENT).as_posix() for file in files if AGENT in file.parents}
    assert passed >= set(to_read())
    assert passed - set(to_read()) == set(leaned_on())
