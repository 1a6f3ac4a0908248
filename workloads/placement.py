"""Where the weights live while prefill, decode and serve run, and what moving them costs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Protocol

import torch

from workloads.mapped import MappedFile, mapped_file
from workloads.offload import body_bytes, pin, stream
from workloads.phase import Span
from workloads.setting import Setting
from workloads.transformer import Transformer


class Placement(Protocol):
    """Where the weights of a model are."""

    def begin(self) -> None:
        """Put the weights to where a run is to find them; called before each, unrecorded."""

    def span(self, span: Span, passes: int) -> Span:
        """Add what the weights move, but between device memory and processor, in a run."""


class Resident:
    """All weights in the device's memory."""

    def begin(self) -> None:
        """Leave them there."""

    def span(self, span: Span, passes: int) -> Span:
        """Add nothing."""
        return span


class Streamed:
    """Weights in host memory, sent to a GPU in every pass; to the CPU there is no link."""

    def __init__(self, weight_bytes: int, device: torch.device) -> None:
        self._per_pass = 0 if device.type == "cpu" else weight_bytes

    def begin(self) -> None:
        """Leave them there."""

    def span(self, span: Span, passes: int) -> Span:
        """Add the weights once per pass to what crosses the link."""
        return replace(span, link_bytes=span.link_bytes + passes * self._per_pass)


class Cold(Streamed):
    """Weights in a mapped file that is out of the page cache when a run begins."""

    def __init__(self, file: MappedFile, weight_bytes: int, device: torch.device) -> None:
        super().__init__(weight_bytes, device)
        self._file = file
        self._weight_bytes = weight_bytes

    def begin(self) -> None:
        """Evict the file."""
        self._file.evict()

    def span(self, span: Span, passes: int) -> Span:
        """Add the file once: the first pass reads it, the others find it in memory."""
        sent = super().span(span, passes)
        return replace(sent, io_bytes=sent.io_bytes + self._weight_bytes)


@contextmanager
def _device(model: Transformer, device: torch.device) -> Iterator[Placement]:
    model.to(device)
    yield Resident()


@contextmanager
def _host(model: Transformer, device: torch.device) -> Iterator[Placement]:
    size = body_bytes(model)
    pin(model)
    stream(model, device)
    yield Streamed(size, device)


@contextmanager
def _mapped(model: Transformer, device: torch.device) -> Iterator[Placement]:
    size = body_bytes(model)
    with mapped_file(model):
        stream(model, device)
        yield Streamed(size, device)


@contextmanager
def _cold(model: Transformer, device: torch.device) -> Iterator[Placement]:
    size = body_bytes(model)
    with mapped_file(model) as file:
        stream(model, device)
        yield Cold(file, size, device)


PLACEMENTS: Mapping[
    str, Callable[[Transformer, torch.device], AbstractContextManager[Placement]]
] = {"device": _device, "host": _host, "mapped": _mapped, "cold": _cold}


def birthplace(setting: Setting) -> torch.device:
    """Return where to build the model: in host memory if its weights are to live there."""
    return torch.device(setting.device if setting.placement == "device" else "cpu")


def placed(model: Transformer, setting: Setting) -> AbstractContextManager[Placement]:
    """Move a model's weights to where the setting wants them, as long as the context lasts."""
    return PLACEMENTS[setting.placement](model, torch.device(setting.device))
