"""Count the FLOPs that torch dispatches, with the formulas that torch lacks."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Sizes = torch.Size


def _attention_forward(query: Sizes, key: Sizes, value: Sizes, *_: Any, **__: Any) -> int:  # noqa: ANN401
    keys, values = _for_each_head(query, key), _for_each_head(query, value)
    flops = sdpa_flop_count(query, keys, values)  # type: ignore[no-untyped-call]
    return int(flops)


def _attention_backward(
    gradient: Sizes,
    query: Sizes,
    key: Sizes,
    value: Sizes,
    *_: Any,  # noqa: ANN401
    **__: Any,  # noqa: ANN401
) -> int:
    keys, values = _for_each_head(query, key), _for_each_head(query, value)
    flops = sdpa_backward_flop_count(gradient, query, keys, values)  # type: ignore[no-untyped-call]
    return int(flops)


def _for_each_head(query: Sizes, shared: Sizes) -> Sizes:
    """Return the sizes of keys or values as if no heads shared them; torch 2.9 asks for that."""
    return torch.Size((shared[0], query[1], *shared[2:]))


def _product(left: Sizes, right: Sizes, *_: Any, **__: Any) -> int:  # noqa: ANN401
    """Count (m, k) by (k, n)."""
    return 2 * left[0] * left[1] * right[1]


def _quantized_linear(
    activations: Sizes,
    *_: Any,  # noqa: ANN401
    out_shape: Sizes,
    **__: Any,  # noqa: ANN401
) -> int:
    """Count (m, k) by k columns of weights packed anyhow: the result (m, n) tells how many."""
    return 2 * activations[0] * activations[1] * out_shape[1]


_aten = torch.ops.aten
MISSING_FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten._int_mm: _product,
    _aten._weight_int8pack_mm: _quantized_linear,
    _aten._weight_int4pack_mm: _quantized_linear,
    _aten._weight_int4pack_mm_for_cpu: _quantized_linear,
}
"""torch (2.13) has no formula for these and would count them as nothing."""


def count_flops(run: Callable[[], object]) -> int:
    """Return the FLOPs of the products that `run()` dispatches, backward passes included."""
    with FlopCounterMode(display=False, custom_mapping=MISSING_FORMULAS) as counter:
        run()
    return int(counter.get_total_flops())
