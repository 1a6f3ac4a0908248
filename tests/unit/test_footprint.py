import msgspec
import pytest

from agent.footprint import GPU_RULES, NODE_RULES, Rule, Totals
from probes.catalogue import (
    CATALOGUE,
    JOB_FOOTPRINT,
    JOB_GPU_FOOTPRINT,
    Kind,
    Measurement,
)
from probes.sample import Sample, tags


def network(interface: str, received: float) -> Sample:
    return Sample("network", tags(interface=interface), {"receive_bytes": received})


def cgroup(**fields: float) -> Sample:
    return Sample("job_cgroup", tags(jobid="1"), fields)


def test_totals_are_sums_of_differences_over_all_interfaces_but_loopback() -> None:
    totals = Totals()
    totals.fold(NODE_RULES, [network("eth0", 100), network("ib0", 7), network("lo", 1)], 0)
    totals.fold(NODE_RULES, [network("eth0", 150), network("ib0", 10), network("lo", 900)], 10)
    assert totals.fields()["node_network_receive_bytes"] == 53.0


def test_a_counter_that_starts_anew_adds_nothing_and_goes_on() -> None:
    totals = Totals()
    for value in (1000.0, 1100.0, 5.0, 25.0):
        totals.fold(NODE_RULES, [network("eth0", value)], 1)
    assert totals.fields()["node_network_receive_bytes"] == 120.0


def test_an_interface_that_appears_later_adds_only_what_it_grew_by() -> None:
    totals = Totals()
    totals.fold(NODE_RULES, [network("eth0", 5)], 0)
    totals.fold(NODE_RULES, [network("eth0", 5), network("eth1", 10**9)], 1)
    totals.fold(NODE_RULES, [network("eth0", 5), network("eth1", 10**9 + 3)], 1)
    assert totals.fields()["node_network_receive_bytes"] == 3.0


def test_the_job_s_own_counters_count_from_zero() -> None:
    totals = Totals()
    totals.fold(NODE_RULES, [cgroup(cpu_seconds=2.5)], 0)
    totals.fold(NODE_RULES, [cgroup(cpu_seconds=4.0)], 10)
    assert totals.fields()["cpu_seconds"] == 4.0


def test_means_are_weighted_with_time_and_the_first_sample_weighs_nothing() -> None:
    totals = Totals()
    for memory, seconds in ((9000.0, 0.0), (100.0, 1.0), (200.0, 3.0)):
        totals.fold(NODE_RULES, [cgroup(memory_bytes=memory)], seconds)
    assert totals.fields()["memory_mean_bytes"] == pytest.approx((100 * 1 + 200 * 3) / 4)
    assert totals.fields()["memory_peak_bytes"] == 200.0


def test_state_survives_a_restart() -> None:
    whole, first = Totals(), Totals()
    ticks = [[network("eth0", float(value)), cgroup(memory_bytes=value)] for value in (10, 20, 50)]
    for tick in ticks:
        whole.fold(NODE_RULES, tick, 1)
    first.fold(NODE_RULES, ticks[0], 1)
    second = msgspec.json.decode(msgspec.json.encode(first), type=Totals)
    for tick in ticks[1:]:
        second.fold(NODE_RULES, tick, 1)
    assert second.fields() == whole.fields()


@pytest.mark.parametrize(
    ("rules", "footprint"), [(NODE_RULES, JOB_FOOTPRINT), (GPU_RULES, JOB_GPU_FOOTPRINT)]
)
def test_every_rule_fits_the_catalogue(rules: tuple[Rule, ...], footprint: Measurement) -> None:
    for rule in rules:
        source = CATALOGUE[rule.measurement].fields[rule.field]
        counts = rule.reducer == "count" or (rule.reducer, source.unit) == ("sum", "0 or 1")
        unit = "count" if counts else source.unit
        assert unit == footprint.fields[rule.target].unit, rule
        if rule.busiest:
            assert footprint.fields[rule.busiest].unit == f"{source.unit}/s", rule
        if rule.reducer in ("total", "whole"):
            assert source.kind is Kind.COUNTER, rule


def test_the_busiest_interval_sums_what_all_interfaces_moved_per_second() -> None:
    totals = Totals()
    totals.fold(NODE_RULES, [network("eth0", 0), network("eth1", 0)], 0)
    totals.fold(NODE_RULES, [network("eth0", 300), network("eth1", 500)], 2)
    totals.fold(NODE_RULES, [network("eth0", 400), network("eth1", 600), network("lo", 9e9)], 1)
    assert totals.fields()["node_network_receive_peak_bytes_per_second"] == 400.0


def test_an_interval_of_no_length_has_no_rate() -> None:
    totals = Totals()
    for value in (0.0, 1e12):
        totals.fold(NODE_RULES, [network("eth0", value)], 0)
    assert "node_network_receive_peak_bytes_per_second" not in totals.fields()


def test_speeds_of_links_add_up_and_the_highest_sum_stays() -> None:
    totals = Totals()
    port = {"rate_bits_per_second": 2e11, "link_up_state": 1.0}
    ports = [Sample("infiniband", tags(device=f"mlx5_{n}", port="1"), port) for n in range(2)]
    totals.fold(NODE_RULES, ports, 0)
    totals.fold(NODE_RULES, ports[:1], 1)
    fields = totals.fields()
    assert fields["node_infiniband_rate_bits_per_second"] == 4e11
    assert fields["node_infiniband_ports_total"] == 2.0


def test_errors_of_all_kinds_and_ports_add_up_from_the_job_s_start() -> None:
    totals = Totals()
    for symbol, downed in ((7.0, 1.0), (9.0, 1.0), (9.0, 2.0)):
        errors = {"symbol_errors_total": symbol, "link_downed_total": downed}
        totals.fold(NODE_RULES, [Sample("infiniband", tags(device="mlx5_0", port="1"), errors)], 1)
    assert totals.fields()["node_infiniband_errors_total"] == 3.0


def test_samples_with_activity_are_counted() -> None:
    totals = Totals()
    gpu = tags(gpu="0", uuid="u", model="m")
    for fields in ({"dram_active_ratio": 0.5}, {}, {"dram_active_ratio": 0.0}):
        totals.fold(GPU_RULES, [Sample("gpu", gpu, fields)], 1)
    assert totals.fields()["activity_samples_total"] == 2.0
