"""What to run, at which size, on what: the options that all workloads share. No torch."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from workloads.shapes import SIZES, Shape

DTYPES: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Number formats that the model runs in, with bytes per element."""

TOKENS_PER_STEP = 16
"""Tokens per sequence that one recorded run of decode makes."""

LONGEST_ANSWER = 3 * TOKENS_PER_STEP
"""Tokens of the longest answer that serve gives; the shortest has a third of them."""


class Progress(Protocol):
    """Called with what begins now, in a few words, and how much of the workload is done (0..1)."""

    def __call__(self, words: str, done: float = 0.0, /) -> None:
        """Show it."""


def silent(words: str, done: float = 0.0, /) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Options of a run; the command line has one for each, with these words as its help.

    Attributes:
        size: of the model.
        device: "cpu", "cuda" or "cuda:N".
        dtype: number format of weights, activations and cache.
        batch: sequences at once.
        prompt: tokens per sequence: the length of a training sequence, and of a prompt.
        steps: timed repetitions of training step and prefill; decode makes several tokens in each
            (`TOKENS_PER_STEP`).
        attention: fused (sdpa), or with its scores in memory (naive).
        cache: layout of the KV cache in prefill and decode; serve, where sequences come and go,
            always pages.
        placement: where prefill, decode and serve keep the weights: "device"; "host", copied to the
            GPU layer by layer; "mapped" from a safetensors file; "cold": the same, out of the page
            cache before each run.
        finetune: what `finetune` trains: "lora", or "last": the last layer and the head.
        rank: of the LoRA matrices.
        checkpointing: keep only the input of each layer for the backward pass.
        accumulation: batches per training step.
        weights: of linear maps in prefill, decode and serve: "native" in `dtype`; "int8", or
            "int4" in groups of 32, multiplied as floats.

    """

    size: str = "small"
    device: str = "cpu"
    dtype: str = "fp32"
    batch: int = 1
    prompt: int = 512
    steps: int = 4
    attention: str = "sdpa"
    cache: str = "contiguous"
    placement: str = "device"
    finetune: str = "lora"
    rank: int = 8
    checkpointing: bool = False
    accumulation: int = 1
    weights: str = "native"

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return SIZES[self.size]

    @property
    def element_bytes(self) -> int:
        """Bytes per weight and activation."""
        return DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Outline:
    """A workload in words."""

    name: str
    phases: tuple[str, ...]
    meaning: str


OUTLINES: Mapping[str, Outline] = {
    outline.name: outline
    for outline in (
        Outline(
            "train",
            ("train.data", "train.forward", "train.backward", "train.optimizer"),
            "next-token training of all weights with AdamW",
        ),
        Outline(
            "finetune",
            ("finetune.data", "finetune.forward", "finetune.backward", "finetune.optimizer"),
            "LoRA beside frozen weights, or the last layer and the head alone",
        ),
        Outline("prefill", ("prefill",), "whole prompts in parallel, into the KV cache"),
        Outline("decode", ("decode",), "one token at a time from the KV cache"),
        Outline(
            "serve",
            ("serve.prefill", "serve.decode"),
            "prompts that come in while others are answered, from a paged cache",
        ),
    )
}


def default_prompt(device: str) -> int:
    """Return enough tokens to clear the device's ridge, few enough for a demonstration."""
    return 2048 if device.startswith("cuda") else 512


class SettingError(ValueError):
    """An option that cannot be had here; the message is one line for the user."""


CHOICES: Mapping[str, Collection[str]] = {
    "size": SIZES,
    "dtype": DTYPES,
    "attention": ("sdpa", "naive"),
    "cache": ("contiguous", "paged"),
    "placement": ("device", "host", "mapped", "cold"),
    "finetune": ("lora", "last"),
    "weights": ("native", "int8", "int4"),
}
"""What a field of `Setting` may be, where that is a name."""


def check_names(setting: Setting, workloads: Iterable[str]) -> None:
    """Refuse unknown names and counts below one with a `SettingError`."""
    chosen = [(field, getattr(setting, field), known) for field, known in CHOICES.items()]
    asked = [("workload", workload, OUTLINES) for workload in workloads]
    for kind, name, known in (*chosen, *asked):
        if name not in known:
            raise SettingError(f"unknown {kind} {name!r}: one of {', '.join(known)}")
    for field in fields(Setting):
        count = getattr(setting, field.name)
        if field.type is int and count < 1:
            raise SettingError(f"{field.name} must be at least 1, not {count}")
    if setting.placement == "host" and setting.device == "cpu":
        raise SettingError("placement host needs a GPU: the CPU has its weights there anyway")
