"""Bytes as dispatched: what the operators that torch really runs read and write.

Beside the stated model of `workloads.counting` this shows what fusion saves: naive attention
dispatches its scores several times, SDPA never; RMSNorm is five operators where one would do.
Kernels that torch.compile makes are no operators of torch and stay unseen: count the model as it
is before it is compiled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
MOVE_NOTHING = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten._unsafe_view}
"""Operators that touch no element, though torch does not call them views."""

OVERWRITE = {_aten.copy_, _aten.fill_, _aten.zero_, _aten.normal_}
"""Operators in place that do not read what they write."""

GATHER = {_aten.embedding, _aten.index, _aten.index_select, _aten.gather}
"""Operators that read as much of their first argument as they give."""


def dispatched_bytes(run: Callable[[], object]) -> int:
    """Return the bytes that the operators of `run()` read and write, backward passes included.

    Each operator counts every tensor that it takes and every one that it gives; a tensor changed
    in place counts as both. Views count nothing, and a repeated (expanded) dimension counts once.
    """
    counter = _Counter()
    with counter:
        run()
    return counter.bytes


class _Counter(TorchDispatchMode):
    """Adds up the traffic of the operators that pass by."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        named = kwargs or {}
        result = func(*args, **named)
        if not (func.is_view or func.overloadpacket in MOVE_NOTHING):
            self.bytes += _traffic(func, args, named, result)
        return result


def _traffic(
    operator: OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    result: object,
) -> int:
    """Return the bytes that one call read and wrote."""
    schema, packet = operator._schema, operator.overloadpacket
    names = [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    changed = [given.get(each.name) for each in schema.arguments if _is_written(each)]
    fresh = None if any(each.alias_info for each in schema.returns) else result
    written = _size(changed) + _size(fresh)
    read = _size(given)
    if packet in OVERWRITE or operator._overloadname.endswith("out"):
        read -= _size(changed)
    elif packet in GATHER:
        read += _size(result) - _size(args[0])
    return read + written


def _is_written(argument: torch.Argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _size(nested: object) -> int:
    return sum(map(_distinct_bytes, _tensors(nested)))


def _tensors(nested: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor))


def _distinct_bytes(tensor: Tensor) -> int:
    """Return the size of a tensor in memory: dimensions of stride 0 repeat the same elements."""
    elements = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= 1 if stride == 0 and length > 0 else length
    return elements
