r"""Run workloads on several devices or nodes: DDP, FSDP2, tensor parallel; gloo or NCCL.

python -m workloads.distributed train --parallel ddp --ranks 2        on this machine
torchrun --nproc-per-node=4 -m workloads.distributed train --parallel fsdp --device cuda
srun --ntasks-per-node=4 python -m workloads.distributed decode --parallel tp --device cuda

Each rank computes and measures; all at the same time, so that ranks which share a machine share its
roofs too. What the first rank found is reported, with what one rank's link carries.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
import torch.distributed as dist
from torch import Tensor, nn

from workloads import ceilings as measuring
from workloads import counting, exchange, sharding
from workloads.attention import ATTENTIONS
from workloads.ceilings import Ceiling, Sweep
from workloads.counting import Count, ElementBytes, Tokens
from workloads.data import data_span, open_batches
from workloads.decode import WARMUP, EagerDecoding, decode_span, next_token
from workloads.device import TORCH_DTYPES
from workloads.kinds import unit
from workloads.kvcache import ContiguousCache
from workloads.linkceiling import measure_all_reduce
from workloads.phase import Recorder, Span
from workloads.prefill import random_prompt
from workloads.ranks import Rank, joined, rank_of, spawn
from workloads.roofline import scaled
from workloads.runner import Runner, RunReport
from workloads.setting import TOKENS_PER_STEP, Progress, Setting, SettingError, silent
from workloads.training import Learner, build_learner, learn, training_spans
from workloads.transformer import Transformer, build


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to share out training.

    Attributes:
        spread: makes of a whole model this rank's part.
        spans: counts each phase of one rank, from the setting and the number of ranks.
        splits_batch: each rank trains on `Setting.batch` sequences of its own; else all on the
            same.
        splits_weights: a rank holds its share of weights and moments only.

    """

    spread: Callable[[Transformer, Rank], nn.Module]
    spans: Callable[[Setting, int], dict[str, Span]]
    splits_batch: bool
    splits_weights: bool


def launch(
    setting: Setting,
    names: Sequence[str],
    mode: str,
    ranks: int,
    progress: Progress = silent,
    sweep: Sweep | None = None,
) -> RunReport | None:
    """Run workloads on `ranks` new processes of this machine and return what the first found.

    Where torchrun or srun started this process, it joins the others of them instead, `ranks` is
    theirs, and all but the first return None.

    Raises:
        SettingError: a mode, workload, number of ranks or size that cannot be had.

    """
    rank = rank_of(os.environ)
    count = rank.count if rank else ranks
    check(setting, names, mode, count)
    what = (setting, tuple(names), mode, sweep)
    if rank:
        with joined(rank, setting.device):
            report = run_rank(rank, progress, *what)
        return report if rank.index == 0 else None
    if setting.device.startswith("cuda") and count > torch.cuda.device_count():
        raise SettingError(f"{count} ranks need as many GPUs, not {torch.cuda.device_count()}")
    here = Rank(0, count, 0, count)
    first = replace(setting, device=here.device(setting.device))
    _runner(here, first, mode, silent, sweep).check(names)
    return spawn(run_rank, count, setting.device, what, progress)[0]


def check(setting: Setting, names: Sequence[str], mode: str, ranks: int) -> None:
    """Refuse with a `SettingError` what cannot be run on so many ranks."""
    if mode not in MODES:
        raise SettingError(f"unknown way to run in parallel {mode!r}: one of {', '.join(MODES)}")
    if ranks < 1:
        raise SettingError(f"ranks must be at least 1, not {ranks}")
    missing = [name for name in names if name not in RUNS[mode]]
    if missing:
        offered = ", ".join(RUNS[mode])
        raise SettingError(f"{missing[0]} does not run with {mode}, only: {offered}")
    for field, value in ONLY.items():
        if getattr(setting, field) != value:
            raise SettingError(f"several ranks run with {field} {value} only")
    if mode == "tp":
        exchange.check_divisible(setting.shape, ranks)


def run_rank(
    rank: Rank,
    progress: Progress,
    setting: Setting,
    names: Sequence[str],
    mode: str,
    sweep: Sweep | None,
) -> RunReport:
    """Run workloads as one rank of a process group that has been set up."""
    own = replace(setting, device=rank.device(setting.device))
    return _runner(rank, own, mode, progress, sweep).run(names)


def _runner(
    rank: Rank, setting: Setting, mode: str, progress: Progress, sweep: Sweep | None
) -> Runner:
    """Return a runner of this rank's share of the work and of its device's memory."""
    on_device = 1 if setting.device.startswith("cuda") else rank.local_count
    return Runner(
        setting,
        progress=progress,
        sweep=sweep,
        runs={name: partial(run, rank) for name, run in RUNS[mode].items()},
        measure=measure_together,
        memory_share=on_device / (rank.count if MODES[mode].splits_weights else 1),
        again_seconds=math.inf,  # measuring is done together, and ranks do not agree on times
    )


def measure_together(device: torch.device, dtypes: Sequence[str], sweep: Sweep) -> list[Ceiling]:
    """Measure the ceilings of all ranks at the same time, then the link between them."""
    dist.barrier()
    found = measuring.measure(device, dtypes, sweep)
    return [*found, *measure_all_reduce(device, sweep)]


def run_training(
    mode: Mode, rank: Rank, setting: Setting, recorder: Recorder, progress: Progress
) -> list[float]:
    """Train all weights on all ranks as `run_train` does on one; return this rank's losses."""
    progress(f"train: building {setting.size} on {rank.count} ranks")
    model = mode.spread(build_learner(setting), rank)
    learner = Learner("train", model, setting, recorder, mode.spans(setting, rank.count))
    batches = partial(_own_batches, rank) if mode.splits_batch else open_batches
    return learn(learner, progress, batches)


def _own_batches(rank: Rank, setting: Setting, count: int, folder: Path) -> Iterator[Tensor]:
    """Return this rank's rows of `count` batches for all ranks."""
    whole = open_batches(_for_all(setting, rank.count), count, folder)
    return (batch.chunk(rank.count)[rank.index] for batch in whole)


def _for_all(setting: Setting, ranks: int) -> Setting:
    return replace(setting, batch=setting.batch * ranks)


@torch.inference_mode()
def run_decode(rank: Rank, setting: Setting, recorder: Recorder, progress: Progress) -> Tensor:
    """Decode tensor-parallel as `workloads.decode.run_decode` does on one rank, without graphs.

    Returns the last token of each sequence (batch, 1), the same on all ranks.
    """
    device, dtype = torch.device(setting.device), TORCH_DTYPES[setting.dtype]
    progress(f"decode: building {setting.size} on {rank.count} ranks")
    model = build(setting.shape, device, dtype, attention=ATTENTIONS[setting.attention])
    sharding.shard_layers(model, rank)
    capacity = setting.prompt + TOKENS_PER_STEP
    own = exchange.narrowed(setting.shape, rank.count)
    cache = ContiguousCache(own, setting.batch, capacity, device, dtype)
    positions = torch.arange(capacity, device=device)
    first = next_token(model, random_prompt(setting), positions[: setting.prompt], cache)
    decoding = EagerDecoding(model, first, positions, cache)
    span = sharded_decode_span(setting, rank.count)
    steps = WARMUP + setting.steps
    for step in range(steps):
        if step == WARMUP:
            recorder.forget()
        progress(f"decode: run {step + 1} of {steps}", step / steps)
        with recorder.phase("decode", span):
            token = decoding.run()
    return token


def sharded_decode_span(setting: Setting, ranks: int) -> Span:
    """Count what one rank does of a run of `TOKENS_PER_STEP` tokens after the prompt."""
    whole = decode_span(setting, setting.prompt)
    contexts = range(setting.prompt + 1, setting.prompt + 1 + TOKENS_PER_STEP)
    passes = (_forward(setting, Tokens(setting.batch, 1, context), ranks) for context in contexts)
    link = exchange.tensor_parallel(setting, whole.tokens, ranks)
    return replace(whole, count=sum(passes, Count(0, 0.0)), link_bytes=link)


def _forward(setting: Setting, tokens: Tokens, ranks: int) -> Count:
    """Count what one rank does of a pass that makes the logits of all new tokens."""
    size = ElementBytes.same(setting.element_bytes)
    layer = exchange.sharded_layer(setting.shape, tokens, size, setting.attention, ranks)
    outer = counting.outer_operators(setting.shape, tokens, size, tokens.new)
    return counting.total(layer) * setting.shape.layers + counting.total(outer)


def replicated_spans(setting: Setting, ranks: int) -> dict[str, Span]:
    """Count DDP: each rank does what one does alone, and all sum their gradients."""
    alone = training_spans("train", setting, counting.Trained.ALL)
    return _exchanging(alone, setting, ranks, exchange.data_parallel(setting, ranks))


def fully_sharded_spans(setting: Setting, ranks: int) -> dict[str, Span]:
    """Count FSDP2: as DDP, but each rank updates its share of the weights alone."""
    spans = training_spans("train", setting, counting.Trained.ALL)
    update = counting.adamw_step(setting.shape.parameters // ranks, setting.element_bytes)
    spans["train.optimizer"] = replace(spans["train.optimizer"], count=update)
    return _exchanging(spans, setting, ranks, exchange.fully_sharded(setting, ranks))


def _exchanging(
    spans: dict[str, Span], setting: Setting, ranks: int, exchanged: Mapping[str, float]
) -> dict[str, Span]:
    """Add what is exchanged, and that each rank reads the whole batch to take its rows."""
    for part, size in exchanged.items():
        spans[f"train.{part}"] = replace(spans[f"train.{part}"], link_bytes=size)
    return spans | {"train.data": data_span(_for_all(setting, ranks))}


def tensor_parallel_spans(setting: Setting, ranks: int) -> dict[str, Span]:
    """Count tensor-parallel training: a share of every layer, embedding and head whole."""
    shape, size = setting.shape, ElementBytes.same(setting.element_bytes)
    tokens = counting.prompt(setting.batch, setting.prompt)
    layer = exchange.sharded_layer(shape, tokens, size, setting.attention, ranks)
    outer = counting.outer_operators(shape, tokens, size, tokens.new)
    counts = {
        "forward": _forward(setting, tokens, ranks),
        "backward": counting.gradients(layer) * shape.layers + counting.gradients(outer),
        "optimizer": counting.adamw_step(exchange.held_weights(shape, ranks), size.weight),
    }
    link = exchange.tensor_parallel(setting, tokens.new, ranks)
    spans = training_spans("train", setting, counting.Trained.ALL)
    for part, count in counts.items():
        exchanged = 0.0 if part == "optimizer" else link
        name = f"train.{part}"
        spans[name] = replace(spans[name], count=count, link_bytes=exchanged)
    return spans


MODES: Mapping[str, Mode] = {
    "ddp": Mode(sharding.replicate, replicated_spans, splits_batch=True, splits_weights=False),
    "fsdp": Mode(sharding.shard_fully, fully_sharded_spans, splits_batch=True, splits_weights=True),
    "tp": Mode(
        sharding.shard_layers, tensor_parallel_spans, splits_batch=False, splits_weights=True
    ),
}

RUNS: Mapping[str, Mapping[str, Callable[[Rank, Setting, Recorder, Progress], object]]] = {
    "ddp": {"train": partial(run_training, MODES["ddp"])},
    "fsdp": {"train": partial(run_training, MODES["fsdp"])},
    "tp": {"train": partial(run_training, MODES["tp"]), "decode": run_decode},
}

ONLY: Mapping[str, object] = {
    "cache": "contiguous",
    "placement": "device",
    "weights": "native",
    "checkpointing": False,
}
"""Fields of `Setting` that must be so on several ranks."""


@click.command()
@click.argument("names", metavar="WORKLOAD...", nargs=-1, required=True)
@click.option("--parallel", "mode", required=True, type=click.Choice(list(MODES)))
@click.option("--ranks", default=2, help="Processes, unless torchrun or srun says.")
@click.option("--size", default="small", help="Model.")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--dtype", default="fp32", help="Number format.")
@click.option("--batch", default=1, help="Sequences per rank; with tp, of all ranks together.")
@click.option("--prompt", default=256, help="Tokens per sequence.")
@click.option("--steps", default=3, help="Recorded repetitions.")
def main(names: tuple[str, ...], mode: str, ranks: int, **options: object) -> None:
    """Run WORKLOAD... on several ranks and print what the first found."""
    try:
        report = launch(Setting(**options), names, mode, ranks)  # type: ignore[arg-type]
    except SettingError as problem:
        raise click.UsageError(str(problem)) from problem
    if report:
        click.echo("\n".join(lines(report)))


def lines(report: RunReport) -> Iterator[str]:
    """Yield a line per ceiling and per phase."""
    for ceiling in report.ceilings:
        reached = scaled(ceiling.per_second, unit(ceiling.kind))
        yield f"{ceiling.kind:<16} {reached:>13}  {ceiling.size}"
    for item in report.phases:
        phase, label = item.phase, item.label
        seconds = f"{phase.seconds / phase.calls:.4f} s"
        words = f"{label.bound}, link {label.fractions.link or 0:.0%}: {label.explanation}"
        yield f"{phase.name:<16} {seconds:>13}  {words}"


if __name__ == "__main__":
    main()
