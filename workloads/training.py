"""Train on a toy text: data, forward, backward and optimizer as phases of their own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workloads import counting
from workloads.attention import ATTENTIONS
from workloads.data import data_span, open_batches
from workloads.device import TORCH_DTYPES
from workloads.kvcache import KVCache
from workloads.phase import Recorder, Span
from workloads.setting import Progress, Setting
from workloads.transformer import Transformer, build

LEARNING_RATE = 3e-4
WARMUP = 1


def run_train(setting: Setting, recorder: Recorder, progress: Progress) -> None:
    """Train all weights: one warm-up step and `setting.steps` recorded ones.

    Weights, gradients and both moments of AdamW are kept in the setting's dtype.
    """
    progress(f"train: building {setting.size}")
    spans = training_spans("train", setting, counting.Trained.ALL)
    learner = Learner("train", build_learner(setting), setting, recorder, spans)
    learn(learner, progress)


def build_learner(setting: Setting) -> Transformer:
    """Build the model, with checkpoints around its layers if the setting wants them."""
    device, dtype = torch.device(setting.device), TORCH_DTYPES[setting.dtype]
    model = build(setting.shape, device, dtype, attention=ATTENTIONS[setting.attention])
    if setting.checkpointing:
        model.layers = nn.ModuleList(Checkpointed(layer) for layer in model.layers)
    return model


class Checkpointed(nn.Module):
    """A layer that keeps only its input for the backward pass, which runs the layer again.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, rotation: Tensor, cache: KVCache | None) -> Tensor:
        """Return what the layer does."""
        # No dropout here: the random state need not be kept.
        result: Tensor = checkpoint(
            self.layer, hidden, rotation, cache, use_reentrant=False, preserve_rng_state=False
        )
        return result


class Learner:
    """A model in training, each part of a step recorded as a phase of `workload`."""

    def __init__(
        self,
        workload: str,
        model: nn.Module,
        setting: Setting,
        recorder: Recorder,
        spans: dict[str, Span],
    ) -> None:
        self.workload = workload
        self.model = model
        self.setting = setting
        self.recorder = recorder
        self.optimizer = adamw(model)
        self._spans = spans

    def step(self, batches: Iterator[Tensor]) -> float:
        """Learn from the next `setting.accumulation` batches; return the mean loss before."""
        losses = [self._accumulate(batches) for _ in range(self.setting.accumulation)]
        with self._phase("optimizer"):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return sum(losses) / len(losses)

    def _accumulate(self, batches: Iterator[Tensor]) -> float:
        """Add the gradients of one batch (batch, length + 1), so that the step takes their mean."""
        with self._phase("data"):
            tokens = next(batches)
        with self._phase("forward"):
            loss = next_token_loss(self.model, tokens)
        with self._phase("backward"):
            (loss / self.setting.accumulation).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _phase(self, part: str) -> AbstractContextManager[None]:
        name = f"{self.workload}.{part}"
        return self.recorder.phase(name, self._spans[name])


Batches = Callable[[Setting, int, Path], Iterator[Tensor]]
"""(setting, how many, folder to write the text to) -> batches (batch, prompt + 1)."""


def learn(learner: Learner, progress: Progress, batches_of: Batches = open_batches) -> list[float]:
    """Do one warm-up step and the recorded ones on a toy text; return the loss before each."""
    setting = learner.setting
    steps = WARMUP + setting.steps
    losses = []
    with TemporaryDirectory(prefix="rooflight-") as folder:
        batches = batches_of(setting, steps * setting.accumulation, Path(folder))
        for step in range(steps):
            if step == WARMUP:
                learner.recorder.forget()
            progress(f"{learner.workload}: step {step + 1} of {steps}", step / steps)
            losses.append(learner.step(batches))
    return losses


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the mean cross-entropy of each token given those before it; in nats."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    positions = torch.arange(inputs.shape[1], device=tokens.device)
    logits = model(inputs, positions)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over what trains, as one fused kernel: each of its tensors then moves once."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)


def training_spans(workload: str, setting: Setting, trained: str) -> dict[str, Span]:
    """Count each phase of one step that changes `trained`, a value of `counting.Trained`."""
    tokens = counting.prompt(setting.batch, setting.prompt)
    counts = counting.training_step(
        setting.shape,
        tokens,
        counting.ElementBytes.same(setting.element_bytes),
        trained=trained,
        rank=setting.rank,
        checkpointing=setting.checkpointing,
        attention=setting.attention,
    )
    spans = {
        "data": data_span(setting),
        "forward": Span(counts["forward"], tokens.new, "batch"),
        "backward": Span(counts["backward"], tokens.new, "batch"),
        "optimizer": Span(counts["optimizer"], tokens.new * setting.accumulation, "step"),
    }
    return {f"{workload}.{part}": span for part, span in spans.items()}
