import ast
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lineprotocol import Point, encode, stored_tag
from agent.stores.local import LocalStore
from agent.stores.store import Row, Select, StoreRefused, StoreUnreachable
from probes.catalogue import CATALOGUE, Database
from probes.sample import Value

METRICS, JOBS = Database.METRICS, Database.JOBS
DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
FOR_EVER = 1e6


class FakeClock:
    def __init__(self) -> None:
        self.now = NOW_MS / 1000

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def point(measurement: str, time_ms: int, tags: dict[str, str], **fields: Value) -> bytes:
    all_tags = {"cluster": "c", "host": "n1", **tags}
    return (
        encode(Point(measurement, tuple(sorted(all_tags.items())), fields, time_ms)) + "\n"
    ).encode()


def row(time_ms: int, tags: dict[str, str], **fields: Value) -> Row:
    return {"time_ms": float(time_ms), "cluster": "c", "host": "n1", **tags, **fields}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rooflight.db"


def test_rows_come_back_as_written_oldest_first(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    store.write(METRICS, point("cpu", 20, {}, utilization_ratio=0.5, user_seconds=7.25))
    store.write(METRICS, point("cpu", 10, {}, utilization_ratio=0.25))
    store.write(JOBS, point("job", 5, {"jobid": "42"}, user='zoë, "the" \\one', nodes_total=2.0))
    assert store.rows(Select("cpu", {})) == [
        row(10, {}, utilization_ratio=0.25),
        row(20, {}, utilization_ratio=0.5, user_seconds=7.25),
    ]
    assert store.rows(Select("job", {"jobid": "42"})) == [
        row(5, {"jobid": "42"}, user='zoë, "the" \\one', nodes_total=2.0)
    ]
    store.close()


def test_select_filters_by_tag_and_time_and_keeps_the_newest(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    for time_ms in range(10):
        for gpu in ("0", "1"):
            store.write(METRICS, point("bound", time_ms, {"gpu": gpu}, compute_ratio=time_ms / 10))
    found = store.rows(
        Select("bound", {"gpu": "1", "host": "n1"}, since_ms=2, until_ms=8, newest=3)
    )
    assert [each["time_ms"] for each in found] == [6, 7, 8]
    assert {each["gpu"] for each in found} == {"1"}
    assert store.rows(Select("bound", {"no_such_tag": "x"})) == []
    assert store.rows(Select("bound", {"gpu": "' OR 1=1 --"})) == []
    store.close()


def test_the_same_point_again_merges_its_fields(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    store.write(METRICS, point("cpu", 1, {}, user_seconds=1.0, idle_seconds=5.0))
    store.write(METRICS, point("cpu", 1, {}, user_seconds=2.0, system_seconds=3.0))
    expected = row(1, {}, user_seconds=2.0, idle_seconds=5.0, system_seconds=3.0)
    assert store.rows(Select("cpu", {})) == [expected]
    store.close()


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_tag_finds_its_own_row(
    tmp_path_factory: pytest.TempPathFactory, value: str, other: str
) -> None:
    store = LocalStore(tmp_path_factory.mktemp("db") / "db", FOR_EVER)
    for device in (value, other):
        store.write(METRICS, point("blockdisk", 1, {"device": device}, read_bytes=1.0))
    (found,) = store.rows(Select("blockdisk", {"device": value}))
    assert found.get("device", "") == stored_tag(value)
    store.close()


def test_what_the_catalogue_does_not_know_is_refused_and_its_neighbours_written(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    bad = [
        point("of_the_future", 1, {}, a_total=1.0),
        point("cpu", 1, {"core": "3"}, user_seconds=1.0),
        point("cpu", 2, {}, warp_ratio=1.0),
        point("cpu", 3, {}, user_seconds="a text"),
        b"torn, \x00 \xff\n",
        b"\n",
    ]
    good = point("cpu", 4, {}, user_seconds=4.0, warp_ratio=1.0)
    with pytest.raises(StoreRefused, match="no measurement 'of_the_future'") as refused:
        store.write(METRICS, b"".join([*bad[:3], good, *bad[3:]]))
    assert not refused.value.keep
    assert [each.lines for each in refused.value.rejected] == bad
    words = [each.words for each in refused.value.rejected]
    assert "cpu has no tag 'core'" in words[1]
    assert "cpu has no field 'warp_ratio'" in words[2]
    assert store.rows(Select("cpu", {})) == [row(4, {}, user_seconds=4.0)]
    store.close()


def test_old_measurements_go_once_an_hour_and_jobs_stay(path: Path) -> None:
    clock = FakeClock()
    store = LocalStore(path, 2, clock)
    fresh, old = NOW_MS - DAY_MS, NOW_MS - 3 * DAY_MS
    store.write(METRICS, point("cpu", fresh, {}, user_seconds=1.0))
    store.write(METRICS, point("cpu", old, {}, user_seconds=1.0))
    store.write(JOBS, point("job", old, {"jobid": "1"}, user="u"))
    assert len(store.rows(Select("cpu", {}))) == 2
    clock.now += 3600
    store.write(METRICS, point("cpu", fresh + 1, {}, user_seconds=1.0))
    assert [each["time_ms"] for each in store.rows(Select("cpu", {}))] == [fresh, fresh + 1]
    assert len(store.rows(Select("job", {}))) == 1
    store.close()


def test_an_older_file_gets_the_new_columns_and_tags(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as older:
        older.execute(
            "CREATE TABLE bound (time_ms INTEGER NOT NULL, host TEXT NOT NULL DEFAULT '')"
        )
        older.execute("CREATE UNIQUE INDEX bound_points ON bound (time_ms, host)")
        older.execute("INSERT INTO bound VALUES (1, 'n1')")
    older.close()
    store = LocalStore(path, FOR_EVER)
    store.write(METRICS, point("bound", 1, {"gpu": "0"}, compute_ratio=0.5))
    store.write(METRICS, point("bound", 1, {"gpu": "1"}, compute_ratio=0.75))
    found = store.rows(Select("bound", {"cluster": "c"}))
    assert {each["gpu"]: each["compute_ratio"] for each in found} == {"0": 0.5, "1": 0.75}
    assert len(store.rows(Select("bound", {}))) == 3  # the old row is still there
    store.close()


def test_any_sql_tool_reads_it_while_it_is_written(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    store.write(METRICS, point("cpu", 1, {}, user_seconds=1.5))
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as tool:
        assert tool.execute("SELECT host, user_seconds FROM cpu").fetchall() == [("n1", 1.5)]
        assert tool.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        tables = {
            name for (name,) in tool.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
    tool.close()
    assert tables == set(CATALOGUE)
    reader = LocalStore.read_only(path)
    store.write(METRICS, point("cpu", 2, {}, user_seconds=2.5))
    assert len(reader.rows(Select("cpu", {}))) == 2
    with pytest.raises(StoreUnreachable):
        reader.write(METRICS, point("cpu", 3, {}, user_seconds=3.5))
    reader.close()
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("agent_runs", [True, False])
def test_a_user_without_rights_reads_it(agent_runs: bool) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from agent.stores.local import LocalStore; from agent.stores.store import Select\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(LocalStore.read_only(Path(sys.argv[1])).rows(Select('cpu', {})))"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "rooflight.db"
        store = LocalStore(path, FOR_EVER)
        store.write(METRICS, point("cpu", 1, {}, user_seconds=1.5))
        if not agent_runs:
            store.close()
        command = [sys.executable, "-c", script, str(path)]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        store.close()
    assert ast.literal_eval(told.stdout) == [row(1, {}, user_seconds=1.5)]


def test_a_locked_file_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.stores.local.BUSY_SECONDS", 0.05)
    store = LocalStore(path, FOR_EVER)
    store.prepare()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnreachable, match="locked"):
        store.write(METRICS, point("cpu", 1, {}, user_seconds=1.0))
    other.close()
    store.write(METRICS, point("cpu", 1, {}, user_seconds=1.0))
    store.close()


def test_a_full_disk_is_tried_again(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    store.prepare()
    assert store._connection
    store._connection.execute("PRAGMA max_page_count = 1")
    text = "x" * 10_000
    lines = b"".join(point("job", number, {"jobid": "1"}, user=text) for number in range(50))
    with pytest.raises(StoreUnreachable, match="full"):
        store.write(JOBS, lines)
    assert store.rows(Select("job", {})) == []  # all or nothing
    store.write(JOBS, lines)
    assert len(store.rows(Select("job", {}))) == 50
    store.close()


def test_a_broken_file_is_kept_for_the_admin(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1000)
    store = LocalStore(path, FOR_EVER)
    with pytest.raises(StoreRefused, match=f"move {path} away") as refused:
        store.write(METRICS, point("cpu", 1, {}, user_seconds=1.0))
    assert refused.value.keep


def test_a_missing_file_says_so_to_a_reader(path: Path) -> None:
    with pytest.raises(StoreUnreachable, match=str(path)):
        LocalStore.read_only(path).rows(Select("cpu", {}))


def test_it_may_be_closed_by_another_thread(path: Path) -> None:
    store = LocalStore(path, FOR_EVER)
    thread = threading.Thread(
        target=store.write, args=(METRICS, point("cpu", 1, {}, user_seconds=1.0))
    )
    thread.start()
    thread.join()
    store.close()
    store.close()
    assert not path.with_name("rooflight.db-wal").exists()
