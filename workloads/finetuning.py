"""Fine-tune: low-rank updates beside frozen weights, or the last layer and the head alone."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from workloads.phase import Recorder
from workloads.setting import Progress, Setting
from workloads.training import Learner, build_learner, learn, training_spans
from workloads.transformer import Transformer

SCALE = 2.0
"""Factor of the update: alpha / rank with the usual alpha = 2 rank."""


def run_finetune(setting: Setting, recorder: Recorder, progress: Progress) -> None:
    """Train what `setting.finetune` names: one warm-up step and `setting.steps` recorded ones."""
    progress(f"finetune: building {setting.size}")
    model = build_learner(setting)
    FINETUNES[setting.finetune](model, setting)
    spans = training_spans("finetune", setting, setting.finetune)
    learn(Learner("finetune", model, setting, recorder, spans), progress)


def add_lora(model: Transformer, setting: Setting) -> None:
    """Freeze the model and add low-rank updates to every linear map of every layer, not the head.

    Hu et al., "LoRA" (arXiv 2106.09685); to all maps as in QLoRA (arXiv 2305.14314).
    """
    model.requires_grad_(requires_grad=False)
    for module in list(model.layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child, setting.rank))


class LowRank(nn.Module):
    """A frozen linear map W and a trained update: y = W x + s B (A x), B zero at first."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        weight = base.weight
        linear = partial(nn.Linear, bias=False, device=weight.device, dtype=weight.dtype)
        self.base = base
        self.lora_a = linear(base.in_features, rank)
        self.lora_b = linear(rank, base.out_features)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return torch.add(self.base(inputs), self.lora_b(self.lora_a(inputs)), alpha=SCALE)


def train_last(model: Transformer, setting: Setting) -> None:
    """Freeze all but the last layer, the norm after it and the head."""
    model.requires_grad_(requires_grad=False)
    for part in (model.layers[-1], model.norm, model.lm_head):
        part.requires_grad_(requires_grad=True)


FINETUNES: Mapping[str, Callable[[Transformer, Setting], None]] = {
    "lora": add_lora,
    "last": train_last,
}
"""What makes a model train only a part of itself, by the name in `Setting.finetune`."""
