"""What one person may see of a store: of a real one, with jobs of two users on a shared host."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lineprotocol import Point, encode
from agent.stores.guarded import GRACE_MS, GuardedStore
from agent.stores.local import LocalStore
from agent.stores.store import Row, Select, StoreRefused, Windows
from probes.catalogue import CATALOGUE, Database
from probes.sample import Value

BEGIN_MS = 1_700_000_000_000
END_MS = BEGIN_MS + 100_000
STEP_MS = 10_000

ALICE = {"cluster": "c", "jobid": "1"}
BOB = {"cluster": "c", "jobid": "2"}


def put(
    store: LocalStore, measurement: str, time_ms: int, tags: dict[str, str], **fields: Value
) -> None:
    everywhere = {"cluster": "c", "host": "n1", **tags}
    point = Point(measurement, tuple(sorted(everywhere.items())), fields, time_ms)
    store.write(CATALOGUE[measurement].database, f"{encode(point)}\n".encode())


def put_job(
    store: LocalStore,
    jobid: str,
    user: str,
    start_ms: int,
    end_ms: int | None,
    *,
    host: str = "n1",
    gpus: tuple[str, ...] = (),
) -> None:
    tags = {"jobid": jobid, "host": host}
    end: dict[str, Value] = {} if end_ms is None else {"end_epoch_milliseconds": float(end_ms)}
    put(store, "job", start_ms, tags, user=user, source="slurm", **end)
    heard = float(end_ms or start_ms + STEP_MS)
    put(store, "job_footprint", start_ms, tags, cpu_seconds=1.0, updated_epoch_milliseconds=heard)
    for gpu in gpus:
        put(store, "job_gpu_footprint", start_ms, {**tags, "gpu": gpu}, samples_total=1.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice and Bob share n1 for a while, each with a GPU; before and after, it is Bob's alone."""
    path = tmp_path_factory.mktemp("store") / "rooflight.db"
    made = LocalStore(path, 1e6)
    put_job(made, "1", "alice", BEGIN_MS, END_MS, gpus=("0",))
    put_job(made, "2", "bob", BEGIN_MS - 50_000, END_MS + 50_000, gpus=("1",))
    put_job(made, "1", "alice", BEGIN_MS, END_MS, host="n2", gpus=("0", "1"))
    for host in ("n1", "n2", "n3"):
        for time_ms in range(BEGIN_MS - 50_000, END_MS + 50_001, STEP_MS):
            for cluster in ("c", "other"):
                tags = {"cluster": cluster, "host": host}
                put(made, "cpu", time_ms, tags, utilization_ratio=0.5)
            for gpu in ("0", "1"):
                tags = {"host": host, "gpu": gpu, "uuid": f"{host}-{gpu}", "model": "m"}
                put(made, "gpu", time_ms, tags, power_watts=100.0 if gpu == "0" else 300.0)
    for jobid in ("1", "2"):
        put(made, "job_cgroup", BEGIN_MS + STEP_MS, {"jobid": jobid}, memory_bytes=float(jobid))
    made.close()
    return path


@pytest.fixture
def store(tmp_path: Path, shared: Path) -> Iterator[LocalStore]:
    made = LocalStore(Path(shutil.copy(shared, tmp_path)), 1e6)
    yield made
    made.close()


def as_alice(store: LocalStore) -> GuardedStore:
    return GuardedStore(store, lambda job: job["user"] == "alice")


def places(rows: list[Row] | tuple[Row, ...]) -> set[tuple[str, str]]:
    return {(str(row["host"]), str(row.get("gpu", ""))) for row in rows}


@pytest.mark.parametrize("measurement", ["job", "job_footprint", "job_gpu_footprint", "job_cgroup"])
def test_another_s_job_looks_like_none_at_all(store: LocalStore, measurement: str) -> None:
    guarded = as_alice(store)
    assert store.rows(Select(measurement, BOB)) != []
    assert guarded.rows(Select(measurement, BOB)) == []
    assert guarded.rows(Select(measurement, {**BOB, "jobid": "none such"})) == []
    assert guarded.rows(Select(measurement, ALICE)) == store.rows(Select(measurement, ALICE))


def test_several_jobs_asked_at_once_are_sorted_out(store: LocalStore) -> None:
    both = {"cluster": "c", "jobid": ["1", "2", "3"]}
    for measurement in ("job", "job_footprint", "job_cgroup"):
        found = as_alice(store).rows(Select(measurement, both))
        assert {row["jobid"] for row in found} == {"1"}, measurement


def test_rows_of_jobs_are_not_given_without_the_job_s_name(store: LocalStore) -> None:
    guarded = as_alice(store)
    for where in ({}, {"cluster": "c"}, {"host": "n1"}, {"jobid": "1"}):
        assert guarded.rows(Select("job_footprint", where)) == []


def test_the_newest_job_is_the_newest_of_one_s_own(store: LocalStore) -> None:
    put_job(store, "3", "bob", END_MS + 60_000, None)
    last = Select("job", {"cluster": "c"}, newest=1)
    assert [row["jobid"] for row in store.rows(last)] == ["3"]
    assert [row["jobid"] for row in as_alice(store).rows(last)] == ["1"]


def test_a_host_is_shown_for_the_time_of_one_s_job_there(store: LocalStore) -> None:
    guarded = as_alice(store)
    asked = Select("cpu", {"cluster": "c", "host": "n1"})
    assert guarded.rows(asked) == []  # before the job is named
    guarded.rows(Select("job", ALICE))
    times = [int(float(row["time_ms"])) for row in guarded.rows(asked)]
    assert times == list(range(BEGIN_MS, END_MS + 1, STEP_MS))
    assert guarded.rows(Select("cpu", {"cluster": "c", "host": "n3"})) == []
    assert guarded.rows(Select("cpu", {"cluster": "c"})) == []
    assert guarded.rows(Select("cpu", {"cluster": "other", "host": "n1"})) == []
    assert len(guarded.rows(Select("cpu", {"cluster": "c", "host": "n1"}, newest=2))) == 2


def test_naming_another_s_job_opens_no_host(store: LocalStore) -> None:
    guarded = GuardedStore(store, lambda job: job["user"] == "carol")
    guarded.rows(Select("job", ALICE))
    guarded.rows(Select("job", {"cluster": "c"}, newest=1))
    assert guarded.rows(Select("cpu", {"cluster": "c", "host": "n1"})) == []


def test_of_a_shared_host_only_one_s_own_gpus_are_shown(store: LocalStore) -> None:
    guarded = as_alice(store)
    guarded.rows(Select("job", ALICE))
    found = guarded.rows(Select("gpu", {"cluster": "c", "host": ["n1", "n2"]}))
    assert places(list(found)) == {("n1", "0"), ("n2", "0"), ("n2", "1")}
    assert guarded.rows(Select("gpu", {"cluster": "c", "host": "n1", "gpu": "1"})) == []


def windows(measurement: str, field: str, *by: str, **where: tuple[str, ...]) -> Windows:
    everywhere = {"cluster": ("c",), **where}
    times = BEGIN_MS - 1_000_000, END_MS + 1_000_000, STEP_MS
    return Windows(measurement, field, everywhere, by, *times)


def test_windows_follow_the_same_rule(store: LocalStore) -> None:
    guarded = as_alice(store)
    cpu = windows("cpu", "utilization_ratio", "host", host=("n1", "n3"))
    assert guarded.windows(cpu) == []
    guarded.rows(Select("job", ALICE))
    found = guarded.windows(cpu)
    assert {row["host"] for row in found} == {"n1"}
    assert [row["time_ms"] for row in found] == list(range(BEGIN_MS + STEP_MS, END_MS + 1, STEP_MS))
    power = windows("gpu", "power_watts", "host", "gpu", host=("n1", "n2"))
    assert places(list(guarded.windows(power))) == {("n1", "0"), ("n2", "0"), ("n2", "1")}
    cgroup = windows("job_cgroup", "memory_bytes", "host", host=("n1",), jobid=("1", "2"))
    assert as_alice(store).windows(cgroup) == store.windows(
        windows("job_cgroup", "memory_bytes", "host", host=("n1",), jobid=("1",))
    )


def test_windows_that_would_mix_what_was_held_differently_are_refused(store: LocalStore) -> None:
    guarded = as_alice(store)
    guarded.rows(Select("job", ALICE))
    with pytest.raises(StoreRefused, match="gpu and host"):
        guarded.windows(windows("gpu", "power_watts", "gpu", host=("n1", "n2")))
    alone = guarded.windows(windows("gpu", "power_watts", host=("n1",)))
    assert {row["mean"] for row in alone} == {100.0}
    both = guarded.windows(windows("gpu", "power_watts", host=("n2",)))
    assert {row["mean"] for row in both} == {200.0}


def test_each_host_is_shown_for_its_own_time(store: LocalStore) -> None:
    """One of a job's hosts failed early, and has other work since."""
    put_job(store, "5", "alice", BEGIN_MS, BEGIN_MS + STEP_MS, host="n1")
    put_job(store, "5", "alice", BEGIN_MS, END_MS, host="n3")
    guarded = as_alice(store)
    guarded.rows(Select("job", {"cluster": "c", "jobid": "5"}))
    found = guarded.rows(Select("cpu", {"cluster": "c", "host": ["n1", "n3"]}))
    counts = {host: sum(row["host"] == host for row in found) for host in ("n1", "n3")}
    assert counts == {"n1": 2, "n3": 11}
    thin = guarded.windows(windows("cpu", "utilization_ratio", "host", host=("n1", "n3")))
    assert max(float(row["time_ms"]) for row in thin if row["host"] == "n1") <= (
        BEGIN_MS + 2 * STEP_MS
    )


def test_a_run_that_was_lost_ends_where_it_was_last_heard_of(store: LocalStore) -> None:
    start_ms = END_MS + 10 * GRACE_MS
    put_job(store, "7", "alice", start_ms, None)
    later = [start_ms, start_ms + STEP_MS + GRACE_MS, start_ms + STEP_MS + GRACE_MS + 1]
    for time_ms in later:
        put(store, "cpu", time_ms, {}, utilization_ratio=0.5)
    guarded = as_alice(store)
    guarded.rows(Select("job", {"cluster": "c", "jobid": "7"}))
    found = guarded.rows(Select("cpu", {"cluster": "c", "host": "n1"}, since_ms=start_ms))
    assert [row["time_ms"] for row in found] == later[:2]


def test_an_id_that_is_used_anew_ends_the_run_that_was_lost(store: LocalStore) -> None:
    put_job(store, "8", "alice", BEGIN_MS, None)
    put_job(store, "8", "bob", END_MS, END_MS + 10)
    asked = {"cluster": "c", "jobid": "8"}
    for question in (
        Select("job_footprint", asked),
        Select("job_footprint", asked, until_ms=END_MS),
    ):
        guarded = as_alice(store)
        guarded.rows(Select("job", asked, until_ms=BEGIN_MS))
        assert [row["time_ms"] for row in guarded.rows(question)] == [BEGIN_MS]


def test_nothing_is_written_this_way(store: LocalStore) -> None:
    with pytest.raises(StoreRefused, match="reading only"):
        as_alice(store).write(Database.JOBS, b"job,cluster=c,host=n1,jobid=9 nodes_total=1 1\n")
