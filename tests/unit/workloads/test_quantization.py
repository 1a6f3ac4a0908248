"""Quantized weights: what is stored, what comes out, how far from the weights they stand for."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.counting import Tokens
from workloads.flopcounter import count_flops
from workloads.inference import new_cache, open_model, pass_count
from workloads.matvec import kernels
from workloads.quantization import (
    Format,
    QuantizedLinear,
    dequantize,
    pack,
    product,
    quantize,
    unpack,
    weight_bytes,
)
from workloads.setting import Setting, SettingError
from workloads.shapes import SIZES, Shape

pytestmark = pytest.mark.workloads

FORMATS = [Format(8), Format(4, 32), Format(4, 64)]
INT8_ERROR, INT4_ERROR = 0.02, 0.3
"""Error of the logits over their standard deviation, stated in workloads/README.md."""


@pytest.mark.parametrize("form", FORMATS)
def test_no_weight_is_off_by_more_than_half_a_step(form: Format) -> None:
    weight = torch.randn(24, 256)
    weight[0] = 0.0
    integers, scales = quantize(weight, form)
    assert integers.abs().max() == form.largest
    back = dequantize(pack(integers, form), scales, form, torch.float32)
    steps = scales.repeat_interleave(256 // scales.shape[1], dim=1)
    assert ((weight - back).abs() <= 0.5001 * steps).all()


@pytest.mark.parametrize("form", FORMATS)
def test_packing_keeps_every_integer_and_takes_its_bits_alone(form: Format) -> None:
    integers = torch.randint(-form.largest - 1, form.largest + 1, (5, 256), dtype=torch.int32)
    packed = pack(integers, form)
    assert torch.equal(unpack(packed, form), integers)
    assert packed.nbytes == 5 * 256 * form.bits // 8
    first = packed[0, 0, 3].item() & (2**form.bits - 1)
    assert first == integers[0, 3].item() % 2**form.bits


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("vectors", [1, 4, 9])
def test_all_ways_to_multiply_agree(form: Format, vectors: int) -> None:
    linear = QuantizedLinear(torch.randn(40, 384), form)
    inputs = torch.randn(vectors, 1, 384)
    expected = F.linear(inputs, dequantize(linear.packed, linear.scales, form, torch.float32))
    with torch.inference_mode():
        torch.testing.assert_close(linear(inputs), expected, atol=1e-4, rtol=1e-4)
        assert count_flops(lambda: linear(inputs)) == 2 * vectors * 40 * 384
    compiled = product(linear.packed, linear.scales, inputs, form)
    torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=1e-4)


def logits(setting: Setting) -> Tensor:
    """Return logits of a prompt's last token and of one decoded after it: (2, vocabulary)."""
    tokens = torch.arange(33)[None] % setting.shape.vocabulary
    cache = new_cache(setting, 33)
    with torch.inference_mode(), open_model(setting) as (model, _):
        whole = model(tokens[:, :32], torch.arange(32), cache, last_only=True)
        one = model(tokens[:, 32:], torch.arange(32, 33), cache, last_only=True)
    return torch.cat((whole, one), dim=1)[0]


@pytest.mark.parametrize(("weights", "most"), [("int8", INT8_ERROR), ("int4", INT4_ERROR)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_logits_stay_within_the_stated_error(weights: str, most: float, dtype: str) -> None:
    native = logits(Setting("tiny"))
    rounded = logits(Setting("tiny", dtype=dtype, weights=weights)).float()
    error = (rounded - native).square().mean().sqrt() / native.std()
    assert most / 10 < error < most


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_bytes_are_those_of_the_tensors_in_the_model(weights: str) -> None:
    setting = Setting("tiny", dtype="bf16", weights=weights)
    with open_model(setting) as (model, _):
        held = sum(buffer.nbytes for buffer in model.buffers())
        assert all(parameter.dtype is torch.bfloat16 for parameter in model.parameters())
    shape = setting.shape
    assert weight_bytes(shape, weights, 2) * shape.linear_parameters == pytest.approx(held)
    native = pass_count(replace(setting, weights="native"), Tokens(1, 1, 9))
    saved = native.bytes - pass_count(setting, Tokens(1, 1, 9)).bytes
    assert saved == pytest.approx(2 * shape.linear_parameters - held)


@pytest.mark.parametrize("size", ["small", "1b", "7b", "8b"])
def test_int8_decode_moves_at_least_1_7_times_fewer_bytes_than_bf16(size: str) -> None:
    setting = Setting(size, dtype="bf16")
    tokens = Tokens(1, 1, 257)
    native = pass_count(setting, tokens)
    int8 = pass_count(replace(setting, weights="int8"), tokens)
    int4 = pass_count(replace(setting, weights="int4"), tokens)
    assert native.flops == int8.flops == int4.flops
    assert native.bytes / int8.bytes > 1.7
    assert native.bytes / int4.bytes > 2.7


def test_the_flops_of_a_quantized_pass_are_those_counted() -> None:
    setting = Setting("tiny", weights="int8")
    cache = new_cache(setting, 1)
    with torch.inference_mode(), open_model(setting) as (model, _):
        one = torch.zeros(1, 1, dtype=torch.int64)
        flops = count_flops(lambda: model(one, torch.zeros(1), cache, last_only=True))
    assert flops == pass_count(setting, Tokens(1, 1, 1)).flops


def test_widths_that_do_not_fill_blocks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Shape(vocabulary=64, hidden=64, layers=1, heads=2, kv_heads=1, mlp=96)
    monkeypatch.setitem(SIZES, "odd", odd)
    with pytest.raises(SettingError, match="int8 needs widths in multiples of 64, not 96"):
        open_model(Setting("odd", weights="int8")).__enter__()


@pytest.mark.skipif(kernels() is None, reason="no C compiler here")
def test_the_kernel_is_what_few_vectors_take() -> None:
    linear = QuantizedLinear(torch.randn(8, 128), Format(8))
    with torch.inference_mode(), torch.profiler.profile() as seen:
        linear(torch.randn(1, 128))
    assert "rooflight::matvec_packed" in {event.key for event in seen.key_averages()}
