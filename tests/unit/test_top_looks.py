"""What `rooflight top` makes of values: readings, bounds over time, notices."""

from dataclasses import replace

import pytest

from agent.top.history import HISTORY_MS, History, always, strip
from agent.top.model import Flow, Frame, Gpu, Host, Span
from agent.top.notices import notices
from agent.top.readings import WANTED, Growth, Readings, host_of, with_job
from probes.catalogue import CATALOGUE
from probes.gpu import LOST
from probes.sample import Sample, Value, tags
from tests.unit.top_frames import BUSY, FOUR_HOSTS, HELD, NODE, NOW, job, node

IDLE = (Span(NOW - HISTORY_MS, NOW, "idle"),)
COOL = replace(BUSY, history=(Span(NOW - 9000, NOW, "compute"),))
QUIET = Host("gpu07", gpus=[COOL])


def test_every_field_that_is_shown_is_in_the_catalogue() -> None:
    for measurement, names in WANTED.items():
        assert set(names) <= set(CATALOGUE[measurement].fields), measurement


def sample(measurement: str, fields: dict[str, Value], **own: str) -> Sample:
    return Sample(measurement, tags(**own), fields)


def traffic(receive: float, transmit: float, interface: str = "eth0") -> Sample:
    fields: dict[str, Value] = {"receive_bytes": receive, "transmit_bytes": transmit}
    return sample("network", fields, interface=interface)


def test_counters_become_growth_per_second_and_gauges_stay() -> None:
    growth = Growth()
    memory = sample("memory", {"used_bytes": 5.0, "slab_bytes": 1.0})
    first = host_of("n", growth.read([traffic(1000.0, 50.0), memory], 10.0), {})
    assert (first.network, first.memory_used) == (None, 5.0)
    second = host_of("n", growth.read([traffic(1400.0, 50.0)], 12.0), {})
    assert second.network == Flow(200.0, 0.0)
    assert second.memory_used is None


def test_a_counter_that_begins_anew_has_no_rate_once() -> None:
    growth = Growth()
    growth.read([traffic(1000.0, 1000.0)], 0.0)
    again = host_of("n", growth.read([traffic(10.0, 1500.0)], 1.0), {})
    assert again.network == Flow(0.0, 500.0)
    after = host_of("n", growth.read([traffic(30.0, 1500.0)], 2.0), {})
    assert after.network == Flow(20.0, 0.0)


def test_interfaces_are_added_up_and_loopback_is_not_the_network() -> None:
    growth = Growth()
    for now, count in ((0.0, 0.0), (1.0, 10.0)):
        samples = [traffic(count, count, name) for name in ("lo", "eth0", "ib0")]
        host = host_of("n", growth.read(samples, now), {})
    assert host.network == Flow(20.0, 20.0)


def test_a_disk_is_as_full_as_df_says() -> None:
    fields: dict[str, Value] = {"used_bytes": 60.0, "available_bytes": 15.0, "total_bytes": 80.0}
    host = host_of("n", Growth().read([sample("tempdisk", fields, path="/tmp")], 0.0), {})
    assert host.disks[0].share == pytest.approx(0.8)


def test_a_gpu_that_was_there_is_not_forgotten_and_all_stand_in_their_order() -> None:
    samples = [
        sample("gpu", {"utilization_ratio": 0.5}, gpu=index, model="H100", uuid=index)
        for index in ("10", "2", "0.1", "0")
    ]
    host = host_of("n", Growth().read(samples, 0.0), {"1": IDLE, "2": IDLE})
    assert [gpu.index for gpu in host.gpus] == ["0", "0.1", "1", "2", "10"]
    assert [gpu.answers for gpu in host.gpus] == [True, True, False, True, True]
    assert host.gpus[3].bound == "idle"
    assert host.gpus[0].bound == "unknown"


def test_errors_since_the_driver_was_loaded_are_shown_as_they_stand() -> None:
    sick = sample("gpu", {"ecc_uncorrected_total": 3.0}, gpu="0", model="", uuid="")
    well = sample("gpu", {"ecc_uncorrected_total": 0.0}, gpu="1", model="", uuid="")
    gpus = host_of("n", Growth().read([sick, well], 0.0), {}).gpus
    assert [gpu.errors for gpu in gpus] == [True, False]


def of_job(**own: float) -> Host:
    readings = Readings()
    for name, value in own.items():
        readings.put("job_cgroup", (), name, value)
    host = Host("n", cpu=0.9, memory_used=8.0, memory_total=10.0, gpus=[Gpu("0")])
    return with_job(host, readings, cpus=4.0)


def test_a_job_is_held_against_its_own_share() -> None:
    host = of_job(cpu_seconds=2.0, memory_bytes=3.0, memory_limit_bytes=6.0)
    assert host.of_job
    assert (host.cpu, host.memory_used, host.memory_total) == (0.5, 3.0, 6.0)
    assert host.gpus[0].held


def test_without_a_limit_a_job_may_use_the_memory_of_the_node() -> None:
    host = of_job(cpu_seconds=2.0, memory_bytes=3.0)
    assert (host.memory_used, host.memory_total) == (3.0, 10.0)


def test_of_a_job_that_is_not_known_the_node_is_shown() -> None:
    host = of_job()
    assert not host.of_job
    assert (host.cpu, host.memory_used) == (0.9, 8.0)


def history(*labels: tuple[float, float, str]) -> History:
    kept = History()
    for begin, end, bound in labels:
        kept.add(NOW - round(1000 * begin), NOW - round(1000 * end), bound)
    return kept


def test_neighbours_with_one_bound_are_one_span() -> None:
    kept = history((3, 2, "compute"), (2, 1, "compute"), (1, 0, "memory"))
    assert kept.until(NOW) == (
        Span(NOW - 3000, NOW - 1000, "compute"),
        Span(NOW - 1000, NOW, "memory"),
    )


def test_a_label_tells_of_the_time_since_the_one_before_unless_that_is_long_ago() -> None:
    kept = history((50, 45, "compute"), (25, 20, "memory"))
    assert kept.until(NOW)[1] == Span(NOW - 45_000, NOW - 20_000, "memory")
    apart = history((200, 195, "compute"), (25, 20, "compute"))
    assert len(apart.until(NOW)) == 2


def test_what_is_older_than_the_strip_is_forgotten() -> None:
    kept = history((400, 301, "compute"), (301, 100, "memory"))
    assert [span.bound for span in kept.until(NOW)] == ["memory"]


def test_a_cell_shows_what_held_longest_in_it() -> None:
    spans = history((120, 80, "compute"), (80, 0, "memory")).until(NOW)
    # five cells of a minute
    assert strip(spans, NOW, 5) == ["", "", "", "compute", "memory"]
    assert strip(spans, NOW, 1) == ["memory"]
    assert strip(spans, NOW, 0) == []
    assert strip((), NOW, 3) == ["", "", ""]
    assert strip(spans, NOW + 240_000, 5) == ["memory", "", "", "", ""]


def test_idle_for_as_long_as_the_strip_is() -> None:
    assert always(IDLE, "idle")
    assert not always(IDLE, "compute")
    assert not always(history((100, 0, "idle")).until(NOW), "idle")
    assert not always(
        history((300, 200, "idle"), (200, 199, "memory"), (199, 0, "idle")).until(NOW), "idle"
    )
    assert not always((), "idle")


def words(frame: Frame) -> list[str]:
    return [notice.words for notice in notices(frame)]


def test_a_quiet_node_has_no_notices() -> None:
    assert words(node(QUIET)) == []


def test_power_at_its_limit_is_no_trouble_and_heat_is() -> None:
    assert words(node(replace(QUIET, gpus=[replace(COOL, watts=700.0)]))) == []
    hot = [replace(COOL, index=str(index), slowed_for_heat=0.6) for index in range(4)]
    assert words(node(replace(QUIET, gpus=hot))) == ["!! GPU 0-3: slowed for heat"]


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (
            replace(QUIET, gpus=[replace(COOL, slowed_by_brake=0.5)]),
            "!! GPU 0: slowed by the chassis",
        ),
        (replace(QUIET, gpus=[replace(COOL, errors=True)]), "!! GPU 0: memory errors"),
        (replace(QUIET, gpus=[replace(COOL, answers=False)]), "!! GPU 0: does not answer"),
        (replace(QUIET, gpus=[replace(HELD, history=IDLE)]), "!  GPU 1: held, and idle"),
        (replace(QUIET, memory_used=96.0, memory_total=100.0), "!! memory is 96% full"),
        (replace(QUIET, waits=[("memory", 0.3)]), "!  work waits for memory 30%"),
        (replace(QUIET, waits=[("io", 0.6)]), "!  work waits for disk 60%"),
        (replace(QUIET, fabric_errors=["mlx5_0 port 1"]), "!  InfiniBand mlx5_0 port 1"),
        (replace(QUIET, disks=NODE.disks), "!! temp disk /local/scratch is 96% full"),
        (replace(QUIET, silent_seconds=130.0), "!! nothing heard for 2:10"),
    ],
)
def test_what_stands_out_is_told(host: Host, told: str) -> None:
    (notice,) = words(node(host))
    assert notice.startswith(told)
    (with_name,) = words(job(host))
    assert with_name.startswith(f"{told[:3]}gpu07: {told[3:]}")


def test_a_gpu_that_idles_in_nobody_s_hands_is_no_trouble() -> None:
    assert words(node(replace(QUIET, gpus=[replace(HELD, history=IDLE, held=False)]))) == []


def test_the_worst_comes_first_and_limits_last_unless_they_are_bad() -> None:
    limits = ["GPU 0 (A100): no GPM counters before Hopper", f"GPU 3 (A100): {LOST}"]
    host = replace(QUIET, waits=[("memory", 0.5)])
    told = words(Frame(NOW, [host], trouble="the store does not answer: no", limits=limits))
    assert [each[:25] for each in told] == [
        "!! the store does not ans",
        f"!! GPU 3 (A100): {LOST}"[:25],
        "!  work waits for memory ",
        limits[0][:25],
    ]


def test_a_lost_gpu_is_told_of_once() -> None:
    gone = replace(QUIET, gpus=[replace(COOL, answers=False)])
    told = words(Frame(NOW, [gone], limits=[f"GPU 0 (H100): {LOST}"]))
    assert told == [f"!! GPU 0 (H100): {LOST}"]


def test_hosts_of_a_job_are_named() -> None:
    assert "!! gpu9: memory is 96% full" in words(FOUR_HOSTS)
