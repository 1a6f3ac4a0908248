"""The InfluxDB store against a real InfluxDB 1.x."""

import gzip
import json
import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config
from agent.lineprotocol import Point, encode, stored_tag, stored_text
from agent.stores.influx import InfluxConnection, InfluxSettings, InfluxStore
from agent.stores.settings import SettingsError
from agent.stores.setup import setup_influx, setup_store
from agent.stores.store import Select, StoreRefused, StoreUnreachable
from probes.catalogue import Database
from probes.sample import Value
from tests.integration.services import Service

pytestmark = pytest.mark.influxd
METRICS, JOBS = Database.METRICS, Database.JOBS
NOW_MS = 1_700_000_000_000
_numbers = count()
HOSTILE = st.text(alphabet=st.sampled_from("a,= \"\\\n\t\0é💡'#;-"), min_size=1, max_size=10)


def point(measurement: str, time_ms: int, tags: dict[str, str], **fields: Value) -> bytes:
    line = encode(Point(measurement, tuple(sorted(tags.items())), fields, time_ms))
    return f"{line}\n".encode()


def fresh_settings(service: Service) -> InfluxSettings:
    number = next(_numbers)
    return InfluxSettings(
        url=service.url,
        database=f"metrics_{number}",
        jobs_database=f"jobs_{number}",
        retention_days=0,
        jobs_retention_days=0,
    )


@pytest.fixture
def server(influxd: Service) -> InfluxSettings:
    return fresh_settings(influxd)


@pytest.fixture
def store(server: InfluxSettings) -> Iterator[InfluxStore]:
    setup_influx(server)
    store = InfluxStore(server)
    yield store
    store.close()


def test_five_thousand_points_come_back_as_written(store: InfluxStore) -> None:
    values = {NOW_MS + number: number * 0.1 for number in range(5000)}
    lines = [point("cpu", at, {"host": "n1"}, user_seconds=value) for at, value in values.items()]
    store.write(METRICS, b"".join(lines))
    rows = store.rows(Select("cpu", {"host": "n1"}))
    assert {row["time_ms"]: row["user_seconds"] for row in rows} == values
    assert [row["time_ms"] for row in rows] == sorted(values)
    assert all(set(row) == {"time_ms", "host", "user_seconds"} for row in rows)


def test_writing_again_changes_nothing(store: InfluxStore) -> None:
    lines = point("cpu", NOW_MS, {"host": "n1"}, user_seconds=1.5, idle_seconds=1.0)
    store.write(METRICS, lines)
    store.write(METRICS, lines)
    expected = {"time_ms": float(NOW_MS), "host": "n1", "user_seconds": 1.5, "idle_seconds": 1.0}
    assert store.rows(Select("cpu", {})) == [expected]


def test_jobs_go_to_their_own_database(store: InfluxStore, server: InfluxSettings) -> None:
    store.write(JOBS, point("job", NOW_MS, {"jobid": "1"}, user="zoë", nodes_total=2.0))
    expected = {"time_ms": float(NOW_MS), "jobid": "1", "user": "zoë", "nodes_total": 2.0}
    assert store.rows(Select("job", {"jobid": "1"})) == [expected]
    connection = InfluxConnection(server)
    asked = {"db": server.database, "q": 'SELECT * FROM "job"'}
    assert b"series" not in connection.request("GET", "/query", asked).body
    connection.close()


def test_select_filters_by_time_and_keeps_the_newest(store: InfluxStore) -> None:
    for gpu in ("0", "1"):
        for second in range(10):
            at = NOW_MS + second
            store.write(METRICS, point("bound", at, {"gpu": gpu}, compute_ratio=second / 10))
    select = Select("bound", {"gpu": "1"}, NOW_MS + 2, NOW_MS + 8, newest=3)
    assert [row["time_ms"] for row in store.rows(select)] == [NOW_MS + 6, NOW_MS + 7, NOW_MS + 8]
    assert store.rows(Select("bound", {"gpu": "9"})) == []
    assert store.rows(Select("phase", {})) == []


def test_any_tag_and_text_come_back_and_find_their_own_row(store: InfluxStore) -> None:
    times = count(NOW_MS)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HOSTILE, HOSTILE)
    def round_trip(tag: str, text: str) -> None:
        at = next(times)
        store.write(METRICS, point("phase", at, {"host": "n", "phase": tag}, dtype=text))
        (row,) = store.rows(Select("phase", {"phase": tag}, since_ms=at))
        assert row.get("phase", "") == stored_tag(tag)
        assert row["dtype"] == stored_text(text)

    round_trip()


def test_a_field_conflict_loses_only_the_bad_point(store: InfluxStore) -> None:
    store.write(METRICS, point("cpu", NOW_MS, {"host": "n"}, user_seconds=1.0))
    lines = (
        point("cpu", NOW_MS + 1, {"host": "n"}, user_seconds="a text")
        + point("cpu", NOW_MS + 2, {"host": "n"}, user_seconds=2.0)
        + point("cpu", NOW_MS + 3, {"host": "n"}, user_seconds="another")
    )
    with pytest.raises(StoreRefused, match="field type conflict") as refused:
        store.write(METRICS, lines)
    assert not refused.value.keep
    (rejected,) = refused.value.rejected
    assert rejected.lines.count(b"text") == rejected.lines.count(b"another") == 1
    assert rejected.lines.count(b"\n") == 2
    assert len(store.rows(Select("cpu", {}))) == 2


def test_two_conflicts_and_garbage_in_one_batch_are_all_found(store: InfluxStore) -> None:
    """1.x tells of one kind of trouble at a time, and not of lines that it could not read."""
    store.write(METRICS, point("cpu", NOW_MS, {"host": "n"}, user_seconds=1.0, idle_seconds=1.0))
    bad = [
        point("cpu", NOW_MS + 1, {"host": "n"}, user_seconds="a text"),
        point("cpu", NOW_MS + 2, {"host": "n"}, idle_seconds="a text"),
        b"garbage\n",
    ]
    good = [point("cpu", NOW_MS + n, {"host": "n"}, user_seconds=1.0) for n in range(10, 30)]
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, b"".join([*good[:5], bad[0], bad[1], *good[5:15], bad[2], *good[15:]]))
    found = b"".join(each.lines for each in refused.value.rejected).splitlines(keepends=True)
    assert sorted(found) == sorted(bad)
    assert len(store.rows(Select("cpu", {}))) == 1 + len(good)


def test_points_from_before_the_retention_are_set_aside(influxd: Service) -> None:
    settings = msgspec.structs.replace(fresh_settings(influxd), retention_days=1)
    setup_influx(settings)
    store = InfluxStore(settings)
    now = int(time.time() * 1000)
    old = point("cpu", now - 40 * 3_600_000, {"host": "n"}, user_seconds=1.0)
    fresh = point("cpu", now, {"host": "n"}, user_seconds=2.0)
    with pytest.raises(StoreRefused, match="beyond retention policy") as refused:
        store.write(METRICS, fresh + old + fresh)
    assert [each.lines for each in refused.value.rejected] == [old]
    assert len(store.rows(Select("cpu", {}))) == 1
    store.close()


def test_lines_that_are_no_lines_lose_nothing_else(store: InfluxStore) -> None:
    good = b"".join(
        point("cpu", NOW_MS + number, {"host": "n"}, user_seconds=1.0) for number in range(5)
    )
    with pytest.raises(StoreRefused, match="unable to parse") as refused:
        store.write(METRICS, b"garbage\n" + good + b"cpu,host=\nmore garbage\n")
    assert not refused.value.keep
    assert refused.value.points_lost == 3
    assert len(store.rows(Select("cpu", {}))) == 5


def test_only_bad_lines_are_all_counted(store: InfluxStore) -> None:
    with pytest.raises(StoreRefused) as refused:
        store.write(METRICS, b"garbage\n" * 3)
    assert refused.value.points_lost == 3


def test_a_batch_too_large_for_the_server_is_cut(own_influxd: Service) -> None:
    server = fresh_settings(own_influxd)
    setup_influx(server)
    store = InfluxStore(server)
    numbers = random.Random(1)
    values = [numbers.random() for _ in range(6000)]
    lines = [
        point("cpu", NOW_MS + second, {"host": "n"}, user_seconds=value)
        for second, value in enumerate(values)
    ]
    assert len(gzip.compress(b"".join(lines), 1)) > 40_000  # where 20 kB are allowed
    store.write(METRICS, b"".join(lines))
    assert [row["user_seconds"] for row in store.rows(Select("cpu", {}))] == values
    hopeless = b'cpu t="' + numbers.randbytes(30_000).hex().encode() + b'"\n'
    with pytest.raises(StoreRefused, match="Too Large") as refused:
        store.write(METRICS, hopeless + lines[0])
    assert (refused.value.keep, refused.value.points_lost) == (False, 1)
    store.close()


def test_a_missing_database_is_for_the_admin_to_mend(server: InfluxSettings) -> None:
    store = InfluxStore(server)
    line = point("cpu", NOW_MS, {"host": "n"}, user_seconds=1.0)
    with pytest.raises(StoreRefused, match=r"database not found.*rooflight store setup") as refused:
        store.write(METRICS, line)
    assert refused.value.keep
    with pytest.raises(StoreRefused, match="database not found"):
        store.rows(Select("cpu", {}))
    setup_influx(server)
    store.write(METRICS, line)
    store.close()


def test_v2_writes_to_a_server_that_has_none_name_the_setting(influxd: Service) -> None:
    store = InfluxStore(InfluxSettings(url=influxd.url, api="v2"))
    with pytest.raises(StoreRefused, match=r"404.*influx\.api") as refused:
        store.write(METRICS, point("cpu", NOW_MS, {}, user_seconds=1.0))
    assert refused.value.keep
    store.close()


def test_the_wrong_password_keeps_the_data(
    locked_influxd: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim, sehr\n")
    secret.chmod(0o600)
    anonymous = InfluxConnection(InfluxSettings(url=locked_influxd.url))
    create = "CREATE USER agent WITH PASSWORD 'geheim, sehr' WITH ALL PRIVILEGES"
    assert anonymous.request("POST", "/query", {"q": create}).status == 200
    anonymous.close()

    right = InfluxSettings(
        url=locked_influxd.url, username="agent", password_file=str(secret), retention_days=0
    )
    setup_influx(right)
    line = point("cpu", NOW_MS, {"host": "n"}, user_seconds=1.0)
    store = InfluxStore(right)
    store.write(METRICS, line)
    assert len(store.rows(Select("cpu", {}))) == 1
    store.close()

    monkeypatch.setenv("ROOFLIGHT_INFLUX_PASSWORD", "wrong")
    wrong = InfluxStore(InfluxSettings(url=locked_influxd.url, username="agent"))
    with pytest.raises(StoreRefused, match=r"401: authorization failed.*password_file") as refused:
        wrong.write(METRICS, line)
    assert refused.value.keep
    with pytest.raises(StoreRefused, match="401"):
        wrong.rows(Select("cpu", {}))
    wrong.close()


def test_setup_may_be_run_again_and_follows_the_settings(influxd: Service) -> None:
    number = next(_numbers)
    name, jobs = f'we"ird {number}', f"jobs_{number}"

    def set_up(days: float) -> list[str]:
        settings = InfluxSettings(
            url=influxd.url,
            database=name,
            jobs_database=jobs,
            retention_days=days,
            jobs_retention_days=0,
        )
        return setup_store(Config(store="influx", influx=settings))

    assert (
        set_up(30)
        == set_up(30)
        == [
            f"database {name}: ready, points are kept for 30 days",
            f"database {jobs}: ready, points are kept for ever",
        ]
    )
    assert policy(influxd, name) == ["autogen", "720h0m0s", "24h0m0s", 1, True]
    assert policy(influxd, jobs)[:2] == ["autogen", "0s"]
    set_up(1)
    assert policy(influxd, name) == ["autogen", "24h0m0s", "1h0m0s", 1, True]
    set_up(0)
    assert policy(influxd, name) == ["autogen", "0s", "168h0m0s", 1, True]


def policy(service: Service, database: str) -> list[object]:
    quoted = database.replace('"', '\\"')
    connection = InfluxConnection(InfluxSettings(url=service.url))
    asked = {"q": f'SHOW RETENTION POLICIES ON "{quoted}"'}
    answer = json.loads(connection.request("GET", "/query", asked).body)
    connection.close()
    (only,) = answer["results"][0]["series"][0]["values"]
    assert isinstance(only, list)
    return only


def test_a_paused_server_is_unreachable(own_influxd: Service) -> None:
    store = InfluxStore(InfluxSettings(url=own_influxd.url, timeout_seconds=0.3))
    own_influxd.pause()
    with pytest.raises(StoreUnreachable, match=r"no whole answer in 0\.3 s"):
        store.write(METRICS, point("cpu", NOW_MS, {}, user_seconds=1.0))
    own_influxd.resume()
    store.close()


def test_a_username_without_password_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(SettingsError, match="password_file"):
        InfluxStore(InfluxSettings(username="agent"))
