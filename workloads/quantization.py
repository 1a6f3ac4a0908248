"""Weight-only quantization: linear maps keep int8 or int4 and multiply as if they had floats.

Symmetric and to nearest: int8 with one scale per output channel, int4 with one per group of 32
inputs (as Frantar et al., GPTQ, arXiv 2210.17323, without its error correction), or of 64.
Embedding and norms stay as they are.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.counting import Count, ElementBytes, Tokens
from workloads.matvec import MOST_VECTORS, WORDS, is_fast, matvec_packed
from workloads.setting import Setting, SettingError
from workloads.shapes import Shape
from workloads.transformer import Transformer

SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Format:
    """Signed integers of `bits` bits; one fp32 scale per `group` of inputs, per row without one."""

    bits: int
    group: int | None = None

    @property
    def fields(self) -> int:
        """Integers in a word of 32 bits."""
        return 32 // self.bits

    @property
    def block(self) -> int:
        """Integers in a block of words; a row must be a multiple of it."""
        return WORDS * self.fields

    @property
    def largest(self) -> int:
        """The largest integer used; the smallest is its negative."""
        return (1 << (self.bits - 1)) - 1

    def row_bytes(self, inputs: int) -> float:
        """Return the bytes of a row of `inputs` weights with its scales."""
        return inputs * self.bits / 8 + SCALE_BYTES * inputs // (self.group or inputs)


WEIGHTS: Mapping[str, Format | None] = {"native": None, "int8": Format(8), "int4": Format(4, 32)}
"""Formats of the weights, by the name in `Setting.weights`; None leaves them as they are."""


class QuantizedLinear(nn.Module):
    """A linear map whose weights are packed integers; wide products unpack them first."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, form: Format) -> None:
        super().__init__()
        self.form = form
        integers, scales = quantize(weight, form)
        self.register_buffer("packed", pack(integers, form))
        self.register_buffer("scales", scales)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if is_fast(inputs):
            return matvec_packed(self.packed, self.scales, inputs)
        if inputs.is_cuda and inputs.numel() <= MOST_VECTORS * inputs.shape[-1]:
            return _compiled()(self.packed, self.scales, inputs, self.form)
        return F.linear(inputs, dequantize(self.packed, self.scales, self.form, inputs.dtype))


def quantize(weight: Tensor, form: Format) -> tuple[Tensor, Tensor]:
    """Return integers (out, in) int32 and scales (out, groups) fp32 of a weight (out, in)."""
    outputs, inputs = weight.shape
    grouped = weight.detach().float().view(outputs, -1, form.group or inputs)
    scales = grouped.abs().amax(dim=-1).clamp(min=torch.finfo(torch.float32).tiny) / form.largest
    integers = (grouped / scales[..., None]).round().int()
    return integers.flatten(1), scales


def pack(integers: Tensor, form: Format) -> Tensor:
    """Return integers (out, in) as words (out, blocks, 16) int32.

    Field k of word w of a block is its integer 16 k + w, in two's complement.
    """
    blocks = integers.view(len(integers), -1, form.fields, WORDS) & ((1 << form.bits) - 1)
    return (blocks << _shifts(form, integers.device)).sum(dim=2, dtype=torch.int32)


def unpack(packed: Tensor, form: Format) -> Tensor:
    """Return the integers (out, in) int32 that `pack` made words of."""
    top = packed[:, :, None] << (32 - form.bits - _shifts(form, packed.device))
    return (top >> (32 - form.bits)).flatten(1)


def _shifts(form: Format, device: torch.device) -> Tensor:
    """Return where each field begins in a word: (fields, 1)."""
    return torch.arange(0, 32, form.bits, dtype=torch.int32, device=device)[:, None]


def dequantize(packed: Tensor, scales: Tensor, form: Format, dtype: torch.dtype) -> Tensor:
    """Return the weights (out, in) that packed integers and scales stand for."""
    integers = unpack(packed, form).view(*scales.shape, -1)
    return (integers * scales[..., None]).flatten(1).to(dtype)


def product(packed: Tensor, scales: Tensor, inputs: Tensor, form: Format) -> Tensor:
    """Return inputs W^T as a sum that a compiler fuses with unpacking, as in gpt-fast."""
    weight = dequantize(packed, scales, form, torch.float32)
    return (weight * inputs[..., None, :]).sum(dim=-1).to(inputs.dtype)


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor, Format], Tensor]:
    return torch.compile(product, dynamic=False)


def quantize_linears(model: Transformer, setting: Setting) -> None:
    """Replace the weights of all linear maps, the head's included, as the setting says.

    Raises:
        SettingError: widths that do not fill blocks of packed integers.

    """
    form = WEIGHTS[setting.weights]
    if form is None:
        return
    for inputs in (setting.shape.hidden, setting.shape.mlp):
        if inputs % form.block:
            message = f"{setting.weights} needs widths in multiples of {form.block}, not {inputs}"
            raise SettingError(message)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                module.register_module(name, QuantizedLinear(child.weight, form))


def weight_bytes(shape: Shape, weights: str, native: float) -> float:
    """Return the mean bytes per weight of all linear maps, scales included."""
    form = WEIGHTS[weights]
    if form is None:
        return native
    layer = sum(form.row_bytes(inputs) * outputs for inputs, outputs in shape.linears.values())
    head = form.row_bytes(shape.hidden) * shape.vocabulary
    return (shape.layers * layer + head) / shape.linear_parameters


def element_bytes(setting: Setting) -> ElementBytes:
    """Return the bytes per element of a pass with the setting's weights."""
    native = setting.element_bytes
    return ElementBytes(weight_bytes(setting.shape, setting.weights, native), native, native)


def native_embedding(setting: Setting, tokens: Tokens) -> Count:
    """Count what the embedding's rows weigh beyond rows in the format of the linear maps."""
    native = setting.element_bytes
    more = native - weight_bytes(setting.shape, setting.weights, native)
    return Count(0, tokens.new * setting.shape.hidden * more)
