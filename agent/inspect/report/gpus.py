"""The job's GPUs side by side: which figures are shown, and which GPU is unlike the others."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.inspect.model import JobReport, Node, Outlier, place

COLUMNS = (
    *("utilization", "memory", "power", "energy", "temperature", "sm clock"),
    *("sm active", "tensor active", "fp32 active", "dram active"),
)
ONLY_IF_ANY = ("throttled", "memory errors", "xid errors")
"""Columns that are there where they have something to tell."""


class Cell(NamedTuple):
    """A number with its unit, and the GPU's being unlike the others in it."""

    value: float
    unit: str
    outlier: Outlier | None = None


class GpuRow(NamedTuple):
    """One GPU: what it was under for most of the time, and its cells by column."""

    name: str
    bound: str
    cells: Mapping[str, Cell]

    def stands_out(self) -> bool:
        """Tell whether anything of it is unlike the others."""
        return any(cell.outlier for cell in self.cells.values())


def gpu_rows(report: JobReport) -> list[GpuRow]:
    """Return a row for each GPU that is known."""
    outliers = {(each.host, each.gpu, each.what): each for each in report.outliers}
    found = []
    for node in report.nodes:
        for gpu in node.gpus:
            lines = {what: node.line(what, gpu.gpu) for what in (*COLUMNS, *ONLY_IF_ANY)}
            cells = {
                what: Cell(line.figure, line.unit, outliers.get((node.host, gpu.gpu, what)))
                for what, line in lines.items()
                if line is not None and line.figure is not None
            }
            found.append(GpuRow(place(node.name, gpu.gpu), _mostly(node, gpu.gpu), cells))
    return found


def columns(rows: Sequence[GpuRow]) -> list[str]:
    """Return the columns that have something to show."""
    known = {what for row in rows for what in row.cells}
    any_of = {what for row in rows for what, cell in row.cells.items() if cell.value}
    shown = [what for what in COLUMNS if what in known]
    return shown + [what for what in ONLY_IF_ANY if what in any_of]


def _mostly(node: Node, gpu: str) -> str:
    """Return the bound that a GPU was under longest."""
    held = {each.gpu: each.seconds for each in node.bounds}.get(gpu, {})
    return max(held, key=held.__getitem__, default="")
