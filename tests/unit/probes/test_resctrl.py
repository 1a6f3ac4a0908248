"""Memory traffic by cache; the fixture machine's golden file has the sums over groups."""

from pathlib import Path

import pytest

from probes.probe import ProbeUnavailable
from probes.resctrl import ResctrlProbe
from tests.unit.probes.files import BareMachine

GROUP = "sys/fs/resctrl/mon_data/mon_L3_00"


@pytest.fixture
def machine(tmp_path: Path) -> BareMachine:
    made = BareMachine(tmp_path)
    made.write(f"{GROUP}/mbm_total_bytes", "1000\n")
    made.write(f"{GROUP}/llc_occupancy", "64\n")
    return made


def fields(machine: BareMachine) -> dict[str, object]:
    return {
        dict(each.tags)["cache"]: each.fields for each in ResctrlProbe(machine.context).sample()
    }


def test_without_the_mount_it_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ProbeUnavailable, match="mount -t resctrl"):
        ResctrlProbe(BareMachine(tmp_path).context)


def test_a_cache_without_bandwidth_counters_tells_the_rest(machine: BareMachine) -> None:
    assert fields(machine) == {"L3_00": {"moved_bytes": 1000.0, "cache_bytes": 64.0}}


@pytest.mark.parametrize("word", ["Unavailable", "Error", "Unassigned", ""])
def test_a_word_instead_of_a_number_leaves_the_sum_out(machine: BareMachine, word: str) -> None:
    """A sum without one of its groups would go back, and look like a counter begun anew."""
    machine.write("sys/fs/resctrl/group/mon_data/mon_L3_00/mbm_total_bytes", f"{word}\n")
    machine.write("sys/fs/resctrl/group/mon_data/mon_L3_00/llc_occupancy", "1\n")
    assert fields(machine) == {"L3_00": {"cache_bytes": 65.0}}


def test_a_monitoring_group_is_in_its_control_group_already(machine: BareMachine) -> None:
    machine.write("sys/fs/resctrl/mon_groups/job7/mon_data/mon_L3_00/mbm_total_bytes", "900\n")
    machine.write("sys/fs/resctrl/info/L3_MON/num_rmids", "255\n")
    assert fields(machine) == {"L3_00": {"moved_bytes": 1000.0, "cache_bytes": 64.0}}


def test_a_group_that_comes_later_is_counted(machine: BareMachine) -> None:
    probe = ResctrlProbe(machine.context)
    machine.write("sys/fs/resctrl/group/mon_data/mon_L3_00/mbm_total_bytes", "5\n")
    machine.write("sys/fs/resctrl/group/mon_data/mon_L3_00/llc_occupancy", "6\n")
    (sample,) = probe.sample()
    assert sample.fields == {"moved_bytes": 1005.0, "cache_bytes": 70.0}
