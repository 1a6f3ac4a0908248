"""See what torch really exchanges, to check `exchange.py` against."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workloads.exchange import all_reduced, gathered

Cost = Callable[[Sequence[Any], int], float]


def _reduce(arguments: Sequence[Any], ranks: int) -> float:
    return all_reduced(sum(tensor.nbytes for tensor in arguments[0]), ranks)


def _gather(arguments: Sequence[Any], ranks: int) -> float:
    output: Tensor = arguments[0]
    return gathered(output.nbytes, ranks)


def _scatter(arguments: Sequence[Any], ranks: int) -> float:
    whole: Tensor = arguments[1]
    return gathered(whole.nbytes, ranks)


COSTS: Mapping[str, Cost] = {
    "c10d::allreduce_": _reduce,
    "c10d::_allgather_base_": _gather,
    "c10d::_reduce_scatter_base_": _scatter,
}
"""Bytes on the bus by operator, from its arguments and the number of ranks."""


class CollectiveCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that collectives dispatched within it put on this rank's link.

    Attributes:
        bytes: sum so far.
        unknown: names of collectives seen that `COSTS` lacks.

    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0.0
        self.unknown: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator overload, which torch gives no type
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Count `func` if it is a collective, and run it."""
        if func.namespace == "c10d":
            self._count(func.name().partition(".")[0], args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, arguments: Sequence[Any]) -> None:
        cost = COSTS.get(name)
        if cost is None:
            self.unknown.add(name)
        else:
            self.bytes += cost(arguments, dist.get_world_size())
