"""Slurm's list of GPUs: which of them stands at which position."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.slurm.gres import GpuOrder, index_of, parse_capabilities, parse_gres, units
from probes.gpu_device import Place, SeenGpu
from probes.roots import Roots

# Slurm 22.05.8 was given this file, and handed out the device files in this order
REORDERED = """\
# two kinds of nodes
NodeName=bed1 Name=gpu Type=a100 File=/dev/nvidia[4-7]
NodeName=bed[2-3] Name=gpu Type=a100 File=/dev/nvidia3   # on the other socket
NodeName=bed[2-3] Name=gpu Type=a100 File=/dev/nvidia[1-2]
NodeName=bed2 name=GPU File=/nowhere/nvidia9
nodename=bed[2-3] NAME=gpu \\
    Type=a100 file=/dev/nvidia0
NodeName=bed2 Name=shard Count=8 File=/dev/nvidia3
"""


def files(text: str, node: str) -> list[str] | None:
    found = parse_gres(text, node)
    return None if found is None else [",".join(each) for each in found]


def test_positions_follow_the_lines_of_the_file() -> None:
    assert files(REORDERED, "bed1") == [f"/dev/nvidia{n}" for n in (4, 5, 6, 7)]
    assert files(REORDERED, "bed3") == [f"/dev/nvidia{n}" for n in (3, 1, 2, 0)]
    assert files(REORDERED, "elsewhere") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AutoDetect=nvml\n", None),
        ("AutoDetect=nvml\nName=gpu File=/dev/nvidia0\n", None),
        ("AutoDetect=off\nName=gpu File=/dev/nvidia0\n", ["/dev/nvidia0"]),
        (
            "AutoDetect=nvml\nNodeName=n1 AutoDetect=off Name=gpu File=/dev/nvidia1\n",
            ["/dev/nvidia1"],
        ),
        ("NodeName=n1 AutoDetect=nvml\nName=gpu File=/dev/nvidia1\n", None),
        ("NodeName=n2 AutoDetect=nvml\nName=gpu File=/dev/nvidia1\n", ["/dev/nvidia1"]),
        ("Name=gpu Count=4\n", None),
        ("Name=mps Count=100 File=/dev/nvidia0\n", None),
        ("", None),
        ("nonsense = = ###\n\x00\n", None),
    ],
)
def test_without_device_files_the_order_is_nvml_s(text: str, expected: list[str] | None) -> None:
    assert files(text, "n1") == expected


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nvidia\[0-x\] is not understood"):
        parse_gres("Name=gpu File=/dev/nvidia[0-x]\n", "n1")


@given(st.text(alphabet="NameodgpuFil=/vi[]0-9,#\\ \n"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_gres(text, "n1")


def gpus(*minors: int) -> list[SeenGpu]:
    return [SeenGpu(str(i), f"GPU-{i}", Place(minor)) for i, minor in enumerate(minors)]


def order(tmp_path: Path, text: str, capabilities: str = "") -> GpuOrder:
    (tmp_path / "gres.conf").write_text(text)
    (tmp_path / "driver/nvidia-caps").mkdir(parents=True)
    (tmp_path / "driver/nvidia-caps/mig-minors").write_text(capabilities)
    return GpuOrder(tmp_path / "gres.conf", Roots(proc=tmp_path))


def test_a_position_leads_by_the_device_file_s_number_to_nvml_s_index(tmp_path: Path) -> None:
    mapped = order(tmp_path, REORDERED)
    backwards = gpus(3, 2, 1, 0)  # GPU 0 by its PCI address has /dev/nvidia3
    assert mapped.indices("bed3", backwards) == ["0", "2", "1", "3"]
    assert mapped.at(1, "bed3", backwards) == "2"
    assert mapped.at(4, "bed3", backwards) is None
    assert mapped.indices("bed1", gpus(3, 2, 1, 4)) == ["3", None, None, None]


def test_without_minor_numbers_device_files_are_taken_for_indices() -> None:
    unknown = [SeenGpu("0", "GPU-0"), SeenGpu("1", "GPU-1")]
    assert index_of(("/dev/nvidia1",), unknown, {}) == "1"


def test_without_a_file_a_divided_gpu_counts_by_its_instances(tmp_path: Path) -> None:
    divided = [
        *gpus(0),
        SeenGpu("1", "GPU-1", Place(1)),
        SeenGpu("1.0", "MIG-a", Place(1, (1, 0))),
        SeenGpu("1.3", "MIG-b", Place(1, (5, 0))),
        SeenGpu("2", "", Place()),
    ]
    missing = GpuOrder(tmp_path / "none", Roots(proc=tmp_path))
    assert missing.indices("n1", divided) == units(divided) == ["0", "1.0", "1.3", "2"]


# from NVIDIA's MIG User Guide, "Device Nodes and Capabilities"
MIG_MINORS = """\
config 1
monitor 2
gpu0/gi1/access 12
gpu0/gi1/ci0/access 13
gpu0/gi2/access 21
gpu0/gi2/ci0/access 22
gpu0/gi2/ci1/access 23
gpu1/gi1/access 147
gpu1/gi1/ci0/access 148
"""
CAP = "/dev/nvidia-caps/nvidia-cap"
MIG_GRES = f"""\
Name=gpu Type=1g MultipleFiles=/dev/nvidia0,{CAP}[21-22]
Name=gpu Type=1g MultipleFiles=/dev/nvidia0,{CAP}21,{CAP}23
Name=gpu Type=1g MultipleFiles=/dev/nvidia1,{CAP}147,{CAP}148
Name=gpu Type=1g MultipleFiles=/dev/nvidia1,{CAP}999
Name=gpu Type=a100 File=/dev/nvidia2
"""


def instances() -> Sequence[SeenGpu]:
    return [
        *gpus(0, 1, 2),
        SeenGpu("0.0", "MIG-a", Place(0, (1, 0))),
        SeenGpu("0.1", "MIG-b", Place(0, (2, 0))),
        SeenGpu("0.2", "MIG-c", Place(0, (2, 1))),
        SeenGpu("1.0", "MIG-d", Place(1, (1, 0))),
    ]


def test_an_instance_is_known_by_the_driver_s_capability_files(tmp_path: Path) -> None:
    assert parse_capabilities(MIG_MINORS)[23] == (0, 2, 1)
    mapped = order(tmp_path, MIG_GRES, MIG_MINORS)
    assert mapped.indices("n1", instances()) == ["0.1", "0.2", "1.0", None, "2"]
