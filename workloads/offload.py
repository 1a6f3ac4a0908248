"""Weights in host memory, copied to the device module by module for every pass."""

import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call

from workloads.transformer import Transformer


def body(model: Transformer) -> nn.ModuleDict:
    """Return what every pass reads whole: the layers and the head, not the embedding."""
    return nn.ModuleDict({"layers": model.layers, "lm_head": model.lm_head})


def body_bytes(model: Transformer) -> int:
    """Return the bytes of the body's weights."""
    return sum(tensor.nbytes for tensor in body(model).state_dict().values())


def pin(model: Transformer) -> None:
    """Lock the body's weights in host memory, from where a GPU fetches them at full speed."""
    part = body(model)
    for tensor in itertools.chain(part.parameters(), part.buffers()):
        tensor.data = tensor.data.pin_memory()


def stream(model: Transformer, device: torch.device) -> None:
    """Leave the body where it is and make its modules fetch their weights; move the rest."""
    rest = (model.embed_tokens, model.norm)
    for part in rest:
        part.to(device)
    if device.type != "cpu":
        model.layers = nn.ModuleList(Fetching(layer, device) for layer in model.layers)
        model.register_module("lm_head", Fetching(model.lm_head, device))


class Fetching(nn.Module):
    """A module whose weights are copied to the device for each call and dropped after it."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self.device = device

    def forward(self, *inputs: object) -> Tensor:
        """Return what the module does with weights on the device."""
        weights = {
            name: tensor.to(self.device, non_blocking=True)
            for name, tensor in self.module.state_dict().items()
        }
        result: Tensor = functional_call(self.module, weights, inputs)
        return result
