"""How much memory a workload will need, summed beforehand. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from workloads.counting import Trained, trained_parameters
from workloads.paging import BLOCK, blocks_for
from workloads.roofline import scaled
from workloads.setting import LONGEST_ANSWER, TOKENS_PER_STEP, Setting

SAVED_PER_LAYER = 10
"""Activations of width `hidden` that a layer keeps for its backward pass, about; no MLP."""

SCORES = 3
"""Tensors of the size of the scores that naive attention holds: bare, masked, as probabilities."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes by what holds them."""

    weights: float
    gradients_and_moments: float
    activations: float
    cache: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients_and_moments + self.activations + self.cache

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients and moments": self.gradients_and_moments,
            "activations": self.activations,
            "KV cache": self.cache,
        }
        terms = " + ".join(f"{name} {scaled(size, 'B')}" for name, size in parts.items() if size)
        return f"{scaled(self.total, 'B')} ({terms})"


def required_bytes(workload: str, setting: Setting) -> Need:
    """Return what a workload will hold in the device's memory; activations are an estimate."""
    return NEEDS[workload](setting)


def required_host_bytes(workload: str, setting: Setting) -> float:
    """Return the weights that a workload on a GPU keeps in the host's memory; 0 on a CPU."""
    infers = workload in ("prefill", "decode", "serve")
    offloads = setting.placement != "device" and setting.device != "cpu"
    return _weights(setting) if infers and offloads else 0.0


def _train(setting: Setting) -> Need:
    return _learn(setting, Trained.ALL)


def _finetune(setting: Setting) -> Need:
    return _learn(setting, Trained(setting.finetune))


def _learn(setting: Setting, trained: Trained) -> Need:
    """Sum up weights, what is added to them, and what the trained ones of them carry."""
    shape, size = setting.shape, setting.element_bytes
    added = shape.lora_parameters(setting.rank) if trained is Trained.LORA else 0
    carried = 3 * trained_parameters(shape, trained, setting.rank)
    reached = 1 if trained is Trained.LAST else shape.layers
    activations = _training_activations(setting, reached)
    return Need(_weights(setting) + added * size, carried * size, activations, 0)


def _prefill(setting: Setting) -> Need:
    return _infer(setting, setting.prompt)


def _decode(setting: Setting) -> Need:
    return _infer(setting, setting.prompt + (setting.steps + 1) * TOKENS_PER_STEP)


def _serve(setting: Setting) -> Need:
    paged = replace(setting, cache="paged")
    return _infer(paged, setting.prompt + LONGEST_ANSWER)


NEEDS: Mapping[str, Callable[[Setting], Need]] = {
    "train": _train,
    "finetune": _finetune,
    "prefill": _prefill,
    "decode": _decode,
    "serve": _serve,
}


def _infer(setting: Setting, capacity: int) -> Need:
    offloads = setting.placement != "device" and setting.device != "cpu"
    weights = _passing_weights(setting) if offloads else _weights(setting)
    return Need(weights, 0, _layer_activations(setting), _cache(setting, capacity))


def _weights(setting: Setting) -> float:
    return setting.shape.parameters * setting.element_bytes


def _passing_weights(setting: Setting) -> float:
    """Return the embedding, which stays on the device, and the two largest parts that pass by."""
    shape = setting.shape
    embedding = shape.vocabulary * shape.hidden
    return (embedding + 2 * max(embedding, shape.layer_linear_parameters)) * setting.element_bytes


def _cache(setting: Setting, capacity: int) -> float:
    """Return the bytes of the cache; a paged one has whole blocks and a gathered layer."""
    layers = setting.shape.layers
    if setting.cache == "paged":
        capacity, layers = blocks_for(capacity) * BLOCK, layers + 1
    return 2 * layers * setting.batch * capacity * setting.shape.kv_hidden * setting.element_bytes


def _training_activations(setting: Setting, layers: int) -> float:
    logits = 3 * setting.batch * setting.prompt * setting.shape.vocabulary * 4
    if not setting.checkpointing:
        return layers * _layer_activations(setting) + logits
    inputs = setting.batch * setting.prompt * setting.shape.hidden * setting.element_bytes
    return layers * inputs + _layer_activations(setting) + logits


def _layer_activations(setting: Setting) -> float:
    shape = setting.shape
    width = SAVED_PER_LAYER * shape.hidden + 4 * shape.mlp
    if setting.attention == "naive":
        width += SCORES * shape.heads * setting.prompt
    return setting.batch * setting.prompt * width * setting.element_bytes
