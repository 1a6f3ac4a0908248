"""The table of phases in `jobinspect`: roofs outside the device, variants, ranks, 80 columns."""

from agent.inspect.model import Ceiling, JobHeader, JobReport, Phase
from agent.inspect.text import render


def rendered(phases: list[Phase], ceilings: tuple[Ceiling, ...] = ()) -> str:
    report = JobReport(JobHeader("7", "test", "COMPLETED"), [], phases, ceilings, [])
    return render(report, 80, per_node=False)


def phase(name: str, **fields: object) -> Phase:
    common = {"host": "node1", "workload": "train", "device": "cpu", "bound": "memory"}
    times = {"duration_seconds": 1.5, "start_ms": 0}
    return Phase(phase=name, **{**common, **times, **fields})  # type: ignore[arg-type]


def test_a_link_and_a_disk_show_where_there_are_any() -> None:
    full = phase(
        "finetune.optimizer",
        bound="balanced",
        flops_per_second=1.23e11,
        bytes_per_second=4.56e10,
        intensity_flops_per_byte=0.125,
        compute_ratio=0.11,
        memory_ratio=0.22,
        link_ratio=0.33,
        io_ratio=0.44,
    )
    (line,) = [line for line in rendered([full]).splitlines() if "finetune" in line]
    assert " ".join(line.split()) == (
        "finetune.optimizer 1.50 s 123 G 45.6 G 0.125 11% 22% 33% 44% balanced"
    )
    plain = rendered([phase("decode", compute_ratio=0.1, memory_ratio=0.9)])
    assert "link" not in plain


def test_variants_and_ranks_are_told_apart() -> None:
    text = rendered(
        [
            phase("decode", workload="decode weights=int8"),
            phase("load", workload="user", device="rank 3", bound="unknown"),
        ]
    )
    assert "decode weights=int8" in text
    assert "load rank 3" in text


def test_only_memory_ceilings_are_called_memory() -> None:
    ceilings = tuple(
        Ceiling("node1", "cpu", kind, "byte", bytes_per_second=2e9)
        for kind in ("read", "disk-read")
    )
    text = " ".join(rendered([phase("decode")], ceilings).split())
    assert "memory read 2.00 GB/s, disk-read 2.00 GB/s" in text
