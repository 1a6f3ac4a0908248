"""Whose a GPU is: MIG instances, minor numbers and processes, and what GPM showed between samples.

Through the real binding, against traces that the replay library plays.
"""

from pathlib import Path

import pytest

from probes import gpm
from probes.gpu_device import MOST_MOMENTS, Place
from tests.nvml.replay import StartReplay

pytestmark = pytest.mark.cc

MEBI = 2.0**20


def test_mig_instances_have_samples_of_their_own(replay: StartReplay) -> None:
    mig = replay("mig_h100.csv")
    mig.at(0)
    gpus = mig.at(10)
    assert set(gpus) == {"0", "0.0", "0.2"}
    assert gpus["0"]["power_watts"] == 350.0
    assert gpus["0.0"]["memory_used_bytes"] == 20000 * MEBI
    assert gpus["0.0"]["memory_total_bytes"] == 40448 * MEBI
    assert gpus["0.0"]["tensor_active_ratio"] == pytest.approx(0.40)
    assert gpus["0.2"]["dram_active_ratio"] == pytest.approx(0.05)
    for fields in gpus.values():
        assert "utilization_ratio" not in fields
    assert "power_watts" not in gpus["0.2"]
    # looked for again each minute; those known keep their GPM sample
    refreshed = mig.at(75)
    assert refreshed.keys() == gpus.keys()
    assert "tensor_active_ratio" in refreshed["0.0"]


def test_an_instance_is_known_by_its_ids_and_its_gpu_s_device_file(replay: StartReplay) -> None:
    seen = replay("mig_h100.csv").seen(0)
    assert {index: gpu.place for index, gpu in seen.items()} == {
        "0": Place(minor=0),
        "0.0": Place(0, instance=(2, 0)),
        "0.2": Place(0, instance=(9, 0)),
    }
    assert seen["0.2"].uuid == "MIG-33333333-0000-0000-0000-000000000002"


def test_a_gpu_lists_the_processes_of_all_its_instances(replay: StartReplay) -> None:
    seen = replay("mig_h100.csv", pids="0.0:41 0.2:42 0.2:43").seen(0)
    pids = {index: gpu.pids for index, gpu in seen.items()}
    assert pids == {"0": (41, 42, 43), "0.0": (41,), "0.2": (42, 43)}


CUT_ANEW = """\
# device 0 uuid=GPU-1
# device 0.0 uuid=MIG-before instance=1/0 until=30
# device 0.1 uuid=MIG-after instance=5/0 from=30
t_seconds,gpu,memory_used_mib,power_mw,gpm_sm_percent
0,0,100,350000,50
0,0.0,1,,50
0,0.1,2,,50
"""


def test_a_gpu_that_is_cut_anew_shows_its_new_instances_within_a_minute(
    replay: StartReplay, tmp_path: Path
) -> None:
    trace = tmp_path / "anew.csv"
    trace.write_text(CUT_ANEW)
    mig = replay(trace)
    assert list(mig.seen(10)) == ["0", "0.0"]
    later = mig.seen(65)
    assert {index: gpu.uuid for index, gpu in later.items()} == {"0": "GPU-1", "0.1": "MIG-after"}
    assert later["0.1"].place == Place(0, instance=(5, 0))


def test_device_files_need_not_be_in_nvml_s_order(replay: StartReplay, tmp_path: Path) -> None:
    trace = tmp_path / "order.csv"
    heads = "".join(f"# device {index} minor={3 - index}\n" for index in range(3))
    rows = "".join(f"0,{index},1000\n" for index in range(3))
    trace.write_text(f"{heads}t_seconds,gpu,power_mw\n{rows}")
    seen = replay(trace).seen(0)
    assert {index: gpu.place.minor for index, gpu in seen.items()} == {"0": 3, "1": 2, "2": 1}


def test_a_gpu_that_does_not_answer_keeps_its_place_in_the_list(replay: StartReplay) -> None:
    seen = replay("failing.csv").seen(0)
    assert list(seen) == ["0", "1", "2", "3"]
    assert (seen["3"].uuid, seen["3"].pids) == ("", None)


def test_processes_are_those_of_the_last_sample(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv", pids="0:4711 1:4712 0:4713")
    assert h100.at(0)["0"]["processes_total"] == 2.0
    assert {gpu.index: gpu.pids for gpu in h100.probe.seen} == {"0": (4711, 4713), "1": (4712,)}


def test_glances_between_samples_are_kept_as_moments_and_change_no_mean(
    replay: StartReplay,
) -> None:
    # prefill until 10 s, decode until 20 s
    h100 = replay("two_h100.csv")
    h100.at(4)
    for second in (6, 8, 10, 12):
        h100.move_to(second)
        h100.probe.glance()
    fields = h100.at(13)["0"]
    assert fields["tensor_active_ratio"] == pytest.approx((6 * 0.835 + 3 * 0.045) / 9)
    assert fields["pcie_receive_bytes"] == pytest.approx((6 * 2 + 3 / 8) * 2**30)
    moments = h100.probe.seen[0].moments
    assert [moment.seconds for moment in moments] == pytest.approx([2, 2, 2, 2, 1])
    tensor = [moment.fields["tensor_active_ratio"] for moment in moments]
    assert tensor == pytest.approx([0.835, 0.835, 0.835, 0.045, 0.045])
    h100.at(14)
    assert len(h100.probe.seen[0].moments) == 1


def test_an_endless_interval_fills_no_memory_and_loses_no_time(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv", loop="1")
    h100.at(0)
    for second in range(1, 600):
        h100.move_to(second)
        h100.probe.glance()
    h100.at(600)
    moments = h100.probe.seen[0].moments
    assert len(moments) <= MOST_MOMENTS + 1
    assert sum(moment.seconds for moment in moments) == pytest.approx(600)


def test_a_sample_just_after_a_glance_still_tells_the_activity(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv")
    h100.at(4)
    h100.move_to(6)
    h100.probe.glance()
    assert h100.at(6.05)["0"]["tensor_active_ratio"] == pytest.approx(0.835)


def test_only_gpus_with_gpm_are_glanced_at(replay: StartReplay) -> None:
    a100 = replay("four_a100.csv")
    assert a100.probe.glance_seconds() is None
    a100.close()
    assert replay("two_h100.csv").probe.glance_seconds() == pytest.approx(0.5)


def test_samples_that_come_often_need_no_glances_between_them(replay: StartReplay) -> None:
    h100 = replay("two_h100.csv")
    wanted = []
    for second in (0, 10, 10.5, 11, 12, 13, 23):
        h100.at(second)
        wanted.append(h100.probe.glance_seconds() is not None)
    assert wanted == [True, True, True, True, False, False, True]


def test_the_mean_of_readings_is_weighted_by_their_length() -> None:
    readings = [
        gpm.Reading(1.0, {"dram_active_ratio": 0.2, "sm_active_ratio": 0.5}),
        gpm.Reading(3.0, {"dram_active_ratio": 0.6}),
    ]
    assert gpm.mean(readings) == pytest.approx({"dram_active_ratio": 0.5, "sm_active_ratio": 0.5})
    assert gpm.mean([]) == {}
