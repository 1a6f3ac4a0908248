"""A disk that is really full, and one that is really read-only."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.ledger import Reason, read_numbers
from agent.spool import Spool
from probes.catalogue import Database
from tests.faults.disk import SmallDisk, small_disk
from tests.integration.commands import NO_SLURM, Site
from tests.integration.services import Missing

pytestmark = pytest.mark.mount
METRICS = Database.METRICS
TICK = b"0123456789\n" * 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", mebibytes=2) as disk:
            yield disk
    except Missing as missing:
        pytest.skip(str(missing))


def contents(spool: Spool) -> bytes:
    spool.close_segment(METRICS)
    return b"".join(each.lines() for each in spool.closed(METRICS))


def test_ticks_outlive_a_full_disk(disk: SmallDisk) -> None:
    spool = Spool(disk.folder / "spool", 1 << 20)
    spool.append(METRICS, b"before\n")
    disk.fill()
    for _ in range(3):
        spool.append(METRICS, TICK)
    # the file's last page has room for one of them
    assert read_numbers(disk.folder / "spool" / "ledger")["held"] == 400
    disk.free()
    spool.append(METRICS, b"after\n")
    assert contents(spool) == b"before\n" + TICK * 3 + b"after\n"
    assert not any(each.held for each in spool.closed(METRICS))
    assert (spool.lost, read_numbers(disk.folder / "spool" / "ledger")["held"]) == ({}, 0)
    spool.close()


def test_the_ledger_is_written_though_the_disk_is_full(disk: SmallDisk) -> None:
    spool = Spool(disk.folder / "spool", 1 << 20, memory_bytes=10_000)
    disk.fill()
    for _ in range(10):
        spool.append(METRICS, TICK)
    dropped = spool.lost[Reason.MEMORY_FULL]
    os.close(spool._lock_file)  # as if it had been killed
    following = Spool(disk.folder / "spool", 1 << 20)
    assert following.lost == {Reason.MEMORY_FULL: dropped, Reason.NOT_SAVED: 2000 - dropped}
    following.close()


def test_what_a_read_only_disk_does_not_take_is_shipped_and_its_files_are_deleted_later(
    disk: SmallDisk,
) -> None:
    spool = Spool(disk.folder / "spool", 1 << 20)
    spool.append(METRICS, b"before\n")
    spool.close_segment(METRICS)
    (segment,) = spool.closed(METRICS)
    # mount(8) wants no file open for writing; a kernel that saw an error does not ask
    spool._ledger.close()
    disk.read_only(True)
    spool.append(METRICS, b"during\n")
    assert contents(spool) == b"before\nduring\n"
    for each in spool.closed(METRICS):
        assert spool.remove(each)
    assert segment.path.exists()
    disk.read_only(False)
    spool.append(METRICS, b"after\n")
    assert contents(spool) == b"after\n"
    (last,) = spool.closed(METRICS)
    spool.remove(last)
    assert list(disk.folder.glob("spool/*.lp")) == []
    spool.close()


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_an_agent_starts_and_ships_on_such_a_disk(
    disk: SmallDisk, tmp_path: Path, trouble: str
) -> None:
    """Jobs' state and the spool lie there, as in /var/lib/rooflight; socket and store elsewhere."""
    text = f'store = "local"\n[local]\npath = "{tmp_path}/store.db"'
    agent = f'state_directory = "{disk.folder}/state"\nsocket = "{tmp_path}/agent.sock"'
    agent += f"\nflush_seconds = 0.2\n{NO_SLURM}"
    (tmp_path / "rooflight.toml").write_text(
        f'cluster = "test"\nhost = "node1"\n{text}\n[agent]\n{agent}\n'
    )
    site = Site(tmp_path)
    site.call("rooflight", "agent", "--interval", "0.1", "--for", "0.5")
    before = stored(tmp_path)
    disk.fill() if trouble == "full" else disk.read_only(True)
    done = site.complete("rooflight", "agent", "--interval", "0.1", "--for", "2")
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path) > before + 5
    words = "No space left" if trouble == "full" else "Read-only file system"
    assert done.stderr.count(words) == 1, done.stderr
    if trouble == "read-only":
        disk.read_only(False)


def stored(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "store.db")) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM agent").fetchone()[0])
