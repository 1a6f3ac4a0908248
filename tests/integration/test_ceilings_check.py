"""A device against its peers: ceilings that other hosts stored in a real InfluxDB."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from agent.config import Config, load
from agent.encoder import Encoder
from agent.stores.opening import open_store
from agent.workload.check import Standing, standing
from tests.integration.services import Service
from tests.integration.test_influx_job import influx_site
from workloads.ceilings import Ceiling
from workloads.history import Reading
from workloads.samples import ceiling_sample

pytestmark = [pytest.mark.influxd, pytest.mark.workloads]

MATMUL = Ceiling("matmul", "bf16", 700e12, 0.01, 8, "8192x8192x8192", 15)


def reading(per_second: float) -> Reading:
    where = ("node1", "GPU-1", "NVIDIA H200", "550.54.15")
    return Reading(*where, MATMUL.kind, MATMUL.dtype, per_second, time.time())


def store_peer(config: Config, host: str, per_second: float) -> None:
    """Write a ceiling as the agent of another host does."""
    sample = ceiling_sample(replace(MATMUL, per_second=per_second), "cuda", "NVIDIA H200")
    store = open_store(config)
    for database, lines in Encoder("test", host).lines([sample], int(time.time() * 1000)).items():
        store.write(database, lines)
    store.close()


def stand(config: Config, per_second: float) -> Standing:
    time.sleep(0.01)  # a peer counts once it is in the past
    return standing([reading(per_second)], config)


def test_a_device_is_held_against_the_same_model_on_other_hosts(
    tmp_path: Path, influxd: Service
) -> None:
    config = load(influx_site(tmp_path / "site", influxd, "peers").file).config
    assert "datasheet" not in str(stand(config, 600e12).comparisons)
    for host, reached in (("node1", 1.0), ("node2", 690e12), ("node3", 710e12)):
        store_peer(config, host, reached)  # node1 is this host: no peer of itself
    (short,) = stand(config, 600e12).shortfalls(0.1)
    assert short.expected == pytest.approx(700e12)
    assert "the median of 2 peers (NVIDIA H200)" in str(short)
    assert stand(config, 640e12).shortfalls(0.1) == []


def test_a_store_that_is_away_leaves_the_host_s_own_past(tmp_path: Path) -> None:
    file = tmp_path / "rooflight.toml"
    file.write_text(
        'store = "influx"\n[influx]\nurl = "http://127.0.0.1:9"\ntimeout_seconds = 1\n'
        '[agent]\nstate_directory = "state"\n'
    )
    found = stand(load(file).config, 600e12)
    assert "127.0.0.1" in found.missing
    assert found.comparisons == []
