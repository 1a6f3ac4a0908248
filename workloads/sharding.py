"""Spread a model over ranks: copies (DDP), shards gathered when needed (FSDP2), tensor parallel."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from workloads.exchange import ROW_WISE
from workloads.ranks import Rank
from workloads.transformer import Transformer


def replicate(model: Transformer, rank: Rank) -> nn.Module:
    """Return the model as DDP: gradients are averaged over the ranks as they are made."""
    del rank
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def shard_fully(model: Transformer, rank: Rank) -> nn.Module:
    """Return the model as FSDP2, each layer gathered and freed by itself."""
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (rank.count,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def shard_layers(model: Transformer, rank: Rank) -> Transformer:
    """Return the model with heads and MLP columns of every layer shared out among the ranks.

    Embedding and head are whole on each rank, as in gpt-fast: no logits need to be gathered.
    """
    for layer in model.layers:
        for name, part in layer.named_children():
            if any(isinstance(module, nn.Linear) for module in part.children()):
                _shard_linears(part, rank)
                setattr(layer, name, Partial(part))
    return model


def _shard_linears(part: nn.Module, rank: Rank) -> None:
    for name, module in part.named_children():
        if isinstance(module, nn.Linear):
            side = 1 if name in ROW_WISE else 0
            own = module.weight.detach().chunk(rank.count, dim=side)[rank.index]
            module.weight = nn.Parameter(own.clone(memory_format=torch.contiguous_format))


class Partial(nn.Module):
    """Attention or MLP of which this rank does a part; the parts are summed over the ranks.

    Shoeybi et al., "Megatron-LM" (arXiv 1909.08053), section 3: their f before, their g after.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: Tensor, *others: object) -> Tensor:
        """Return what the whole module would; shapes as they came."""
        entered = _SumBackward.apply(hidden)  # type: ignore[no-untyped-call]
        whole: Tensor = _SumForward.apply(self.part(entered, *others))  # type: ignore[no-untyped-call]
        return whole


class _SumBackward(torch.autograd.Function):
    """Pass values on; sum gradients over the ranks, for each has seen its own part alone."""

    @staticmethod
    def forward(_context: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
        return hidden.view_as(hidden)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _SumForward(torch.autograd.Function):
    """Sum values over the ranks; pass gradients on."""

    @staticmethod
    def forward(context: Any, partial: Tensor) -> Tensor:  # noqa: ANN401
        context.mark_dirty(partial)
        dist.all_reduce(partial)
        return partial

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gradient
