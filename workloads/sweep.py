"""Decode over batch sizes: the linear maps gain intensity with every sequence, attention never.

A step reads each weight once for all sequences, so its FLOPs per weight byte grow with the batch;
each sequence has keys and values of its own, so attention's do not. In all, B sequences do f B
FLOPs over w + a B bytes: the intensity grows towards f / a, and only a ridge below that is crossed.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from workloads import counting
from workloads.compare import Variant, compare
from workloads.counting import Count, Tokens
from workloads.inference import pass_count
from workloads.paging import MOVED
from workloads.quantization import element_bytes
from workloads.roofline import Bound, Ceilings, Work, label
from workloads.runner import LabelledPhase, RunReport
from workloads.setting import Setting

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One step of decode at one batch size, right after the prompt.

    Attributes:
        batch: sequences, and tokens that the step makes.
        step: all FLOPs and bytes.
        attention: those of attention, its cache included.
        predicted: the label of a step that reaches a roof; None without ceilings.
        measured: the phase that was run; None where none was.
        refused: why it was not, if it was wanted.

    """

    batch: int
    step: Count
    attention: Count
    predicted: Bound | None = None
    measured: LabelledPhase | None = None
    refused: str = ""

    @property
    def intensity(self) -> float:
        """FLOP per byte of the whole step."""
        return self.step.flops / self.step.bytes

    @property
    def attention_intensity(self) -> float:
        """FLOP per byte of attention: the same for every batch."""
        return self.attention.flops / self.attention.bytes

    @property
    def linear_intensity(self) -> float:
        """FLOP per byte of all but attention."""
        rest = self.step - self.attention
        return rest.flops / rest.bytes


def decode_rows(
    setting: Setting,
    batches: Sequence[int] = BATCHES,
    *,
    ceilings: Ceilings | None = None,
    measure: Callable[[Setting], RunReport] | None = None,
    measured: Collection[int] = (),
) -> list[DecodeRow]:
    """Count decode at each batch size; run it with `measure` at those that are in `measured` too.

    `ceilings` predict labels. A size that is refused says why in its row; an interrupt ends the
    measuring, and the counts remain.
    """
    wanted = {str(size): replace(setting, batch=size) for size in batches if size in measured}
    ran = {} if measure is None else {each.value: each for each in compare(wanted, measure)}
    rows = [_counted(replace(setting, batch=size), ceilings) for size in batches]
    return [_with_measurement(row, ran.get(str(row.batch))) for row in rows]


def crossing(setting: Setting, ridge: float) -> int | None:
    """Return the smallest batch whose step has the ridge's intensity; None if none ever has.

    From f B = ridge (w + a B).
    """
    one = _count(replace(setting, batch=1))
    two = _count(replace(setting, batch=2))
    each = two - one
    shared_bytes = one.bytes - each.bytes
    gain = each.flops - ridge * each.bytes
    return math.ceil(ridge * shared_bytes / gain) if gain > 0 else None


def _counted(setting: Setting, ceilings: Ceilings | None) -> DecodeRow:
    step = _count(setting)
    bound = None if ceilings is None else _predicted(step, setting.dtype, ceilings)
    return DecodeRow(setting.batch, step, _attention(setting), bound)


def _with_measurement(row: DecodeRow, ran: Variant | None) -> DecodeRow:
    if ran is None or ran.report is None:
        return replace(row, refused=ran.refused if ran else "")
    phases = {item.phase.name: item for item in ran.report.phases}
    return replace(row, measured=phases.get("decode"))


def _predicted(step: Count, dtype: str, ceilings: Ceilings) -> Bound:
    """Label a step that takes the time its nearer roof asks for."""
    work = Work(step.flops, step.bytes, 1.0, dtype, mostly_reads=True)
    peak, bandwidth = ceilings.flops_per_second.get(dtype, 0.0), ceilings.memory(work) or 0.0
    if not (peak > 0 and bandwidth > 0):
        return Bound.UNKNOWN
    seconds = max(step.flops / peak, step.bytes / bandwidth)
    return label(replace(work, seconds=seconds), ceilings).bound


def _tokens(setting: Setting) -> Tokens:
    return Tokens(setting.batch, 1, setting.prompt + 1)


def _count(setting: Setting) -> Count:
    return pass_count(setting, _tokens(setting))


def _attention(setting: Setting) -> Count:
    shape, tokens = setting.shape, _tokens(setting)
    size = element_bytes(setting)
    layer = counting.total(counting.ATTENTIONS[setting.attention](shape, tokens, size))
    return layer * shape.layers + MOVED[setting.cache](shape, tokens, size.cache)
