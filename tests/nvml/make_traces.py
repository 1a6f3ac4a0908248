"""Make the traces that the label check replays: `python -m tests.nvml.make_traces`.

Each trace is one H100 SXM for two minutes, a row per second, every value the mean over its second,
as GPM, the energy counter and a power sensor that averages over a second give it. Phases last 5 s
give or take 0.3 s and so end within seconds, which then hold a bit of both. "# truth BEGIN END
BOUND" says what most of those seconds were. The seed is fixed: the same traces come out again.

Levels by phase, all as seconds would show them:
- prefill, training: tensor pipes 70 to 85 % and board power at its limit, with the clock lowered to
  keep it (mamf-finder: H100 SXM reaches 80 % of its peak; POLCA, arXiv 2308.12908: prompts draw
  peak power). The weights and activations that pass keep memory at about 35 %.
- decode: memory 78 to 85 %, tensor pipes a few percent, and yet 88 % of the cycles with a resident
  warp: waiting for memory is residency too. Power far below the limit (137 to 300 W of 700 on an
  H200, "Illusion of Power Capping in LLM Decode"; Splitwise, arXiv 2311.18677).
- offload: weights stream over PCIe at 45 to 50 GB/s (nvbandwidth on PCIe 5.0 x16: about 52) while
  the kernels wait for them.
- held: memory taken and a context open, clocks up, nothing running: 110 to 120 W.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests.nvml.build import TRACES

SEED = 20
SECONDS = 120
PHASE_SECONDS = 5.0
PHASE_JITTER = 0.3
STEPS = 20
"""Parts of a second that are averaged: phases end to a twentieth of one."""

HICCUPS = 0.02
"""Share of seconds in which the host is slow to launch: 30 to 60 % of the activity is missing."""

DRIFT = 0.9
"""How much of a deviation is still there a second later."""

GPU = (
    "# device 0 uuid=GPU-55555555-0000-0000-0000-00000000000{number} memory_mib=81559"
    " power_limit_mw=700000 sm_max_mhz=1980 name=NVIDIA H100 80GB HBM3"
)


class Level(NamedTuple):
    """Means of one kind of work; percent unless the name says otherwise.

    Attributes:
        deviation: of all activities, relative.

    """

    bound: str
    utilization: float
    memory_utilization: float
    watts: float
    megahertz: float
    graphics: float
    sm: float
    occupancy: float
    integer: float
    tensor: float
    dram: float
    fp32: float
    fp16: float
    receive_gigabytes: float
    transmit_gigabytes: float
    deviation: float


TRAINING = Level("compute", 100, 42, 690, 1560, 99, 96, 24, 11, 78, 36, 9, 2, 0.4, 0.2, 0.06)
PREFILL = Level("compute", 100, 40, 680, 1620, 98.5, 95, 25, 12, 80, 34, 9, 2, 1.5, 0.3, 0.05)
DECODE = Level("memory", 100, 88, 310, 1980, 97, 88, 31, 17, 4.5, 81, 14, 6, 0.1, 0.1, 0.04)
OFFLOAD = Level("link", 99, 14, 205, 1980, 92, 27, 9, 5, 8, 15, 4, 1, 47.5, 1.2, 0.05)
HELD = Level("idle", 0, 0, 115, 1980, 0.1, 0.1, 0, 0, 0, 0, 0, 0, 0, 0, 0.03)

COLUMNS = (
    "t_seconds,gpu,utilization_percent,memory_utilization_percent,memory_used_mib,power_mw,"
    "energy_mj,temperature_celsius,sm_mhz,memory_mhz,throttle_reasons,pcie_tx_bytes,pcie_rx_bytes,"
    "nvlink_tx_kib,nvlink_rx_kib,processes,gpm_graphics_percent,gpm_sm_percent,"
    "gpm_occupancy_percent,gpm_integer_percent,gpm_tensor_percent,gpm_dfma_percent,"
    "gpm_hmma_percent,gpm_imma_percent,gpm_dram_percent,gpm_fp64_percent,gpm_fp32_percent,"
    "gpm_fp16_percent"
)


@dataclass(slots=True)
class Totals:
    """Counters of the GPU."""

    millijoules: float = 5e8
    received: float = 6e10
    sent: float = 5e10


def phases(kinds: Iterable[Level], chance: random.Random) -> Iterator[tuple[float, Level]]:
    """Yield when each phase ends, the kinds in turn."""
    end = 0.0
    choices = tuple(kinds)
    while end < SECONDS:
        for kind in choices:
            end += PHASE_SECONDS + chance.uniform(-PHASE_JITTER, PHASE_JITTER)
            yield end, kind


def parts(second: int, ends: list[tuple[float, Level]]) -> list[Level]:
    """Return the kind of work in each part of a second."""
    moments = (second + (step + 0.5) / STEPS for step in range(STEPS))
    return [next(kind for end, kind in ends if moment < end) for moment in moments]


def mixed(kinds: list[Level], name: str) -> float:
    """Return the mean of one level over the parts of a second."""
    values: list[float] = [getattr(kind, name) for kind in kinds]
    return sum(values) / len(values)


def row(second: int, kinds: list[Level], scale: float, totals: Totals) -> str:
    """Return a second's row, its activities scaled, and take it into the counters."""

    def activity(name: str) -> float:
        return round(min(99.8, mixed(kinds, name) * scale), 2)

    tensor, milliwatts = activity("tensor"), round(mixed(kinds, "watts") * 1000 * (0.5 + scale / 2))
    milliwatts = min(milliwatts, 702_000)
    cells = (
        f"{second},0,{round(mixed(kinds, 'utilization'))},"
        f"{round(min(100, mixed(kinds, 'memory_utilization') * scale))},61440,{milliwatts},"
        f"{totals.millijoules:.0f},{40 + milliwatts // 25_000},"
        f"{round(mixed(kinds, 'megahertz'))},2619,{4 if milliwatts > 660_000 else 0},"
        f"{totals.sent:.0f},{totals.received:.0f},0,0,1,{activity('graphics')},{activity('sm')},"
        f"{activity('occupancy')},{activity('integer')},{tensor},0,{tensor},0,{activity('dram')},0,"
        f"{activity('fp32')},{activity('fp16')}"
    )
    totals.millijoules += milliwatts
    totals.received += mixed(kinds, "receive_gigabytes") * 1e9 * scale
    totals.sent += mixed(kinds, "transmit_gigabytes") * 1e9 * scale
    return cells


def trace(number: int, meaning: str, kinds: Iterable[Level]) -> str:
    """Return a whole trace."""
    chance = random.Random(SEED + number)
    ends = list(phases(kinds, chance))
    totals, drift, rows, truths = Totals(), 0.0, [], []
    for second in range(SECONDS):
        now = parts(second, ends)
        drift = DRIFT * drift + (1 - DRIFT**2) ** 0.5 * chance.gauss(0, 0.5)
        scale = 1.0 + mixed(now, "deviation") * (drift + chance.gauss(0, 0.85))
        if chance.random() < HICCUPS:
            scale *= chance.uniform(0.4, 0.7)
        rows.append(row(second, now, scale, totals))
        bounds = [kind.bound for kind in now]
        truths.append(max(sorted(set(bounds)), key=bounds.count))
    head = [f"# {meaning}", "# Made by make_traces.py, which says where its levels come from."]
    device = GPU.format(number=number)
    return "\n".join([*head, *truth_lines(truths), device, COLUMNS, *rows]) + "\n"


def truth_lines(truths: Iterable[str]) -> Iterator[str]:
    """Yield a line for each stretch of seconds with the same bound."""
    for bound, stretch in groupby(enumerate(truths), key=lambda pair: pair[1]):
        seconds = [second for second, _ in stretch]
        yield f"# truth {seconds[0]} {seconds[-1] + 1} {bound}"


WHAT = {
    "compute_bound.csv": ("Training: under the compute roof, at the power limit.", (TRAINING,)),
    "memory_bound.csv": ("Decode: under the memory roof, at less than half the power.", (DECODE,)),
    "alternating.csv": (
        "A language model serves: prefill and decode, 5 s each.",
        (PREFILL, DECODE),
    ),
    "link_bound.csv": ("Weights stream from the host's memory over PCIe.", (OFFLOAD,)),
    "idle_held.csv": ("A notebook holds the GPU and does nothing with it.", (HELD,)),
}


def main(folder: Path = TRACES) -> None:
    """Write all traces."""
    for number, (name, (meaning, kinds)) in enumerate(WHAT.items()):
        (folder / name).write_text(trace(number, meaning, kinds))


if __name__ == "__main__":
    main()
