"""Products of weights with few vectors at memory speed on the CPU: one token of decoding is those.

torch's own matrix-vector products read memory at 0.3 to 0.7 of what it yields; `matvec.c` reaches
it. It is compiled on first use, in about a second, for the CPU it runs on or as $CFLAGS say; where
that does not work torch's products remain, and `build` says why. Each is an operator of torch, so
that profilers and FLOP counters see it.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

SOURCE = Path(__file__).with_name("matvec.c")
FLAGS = ("-O3", "-fopenmp", "-shared", "-fPIC")
COMPILE_SECONDS = 60.0

MOST_VECTORS = 4
"""From more vectors on, a matrix product that blocks for the cache is the faster one."""

FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""Unpacked formats that a kernel reads; fp16 is left to torch."""

WORDS = 16
"""Words of 32 bits in a block of packed integers."""


class Build(NamedTuple):
    """The kernels, None where torch computes; `note` is empty when they are as usual."""

    library: ctypes.CDLL | None
    note: str


@functools.cache
def build() -> Build:
    """Compile the kernels for this CPU, with $CFLAGS last; for any of its kind if that fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return Build(None, "products by torch: no C compiler here to build faster ones")
    asked = os.environ.get("CFLAGS", "").split()
    told = f" with CFLAGS={' '.join(asked)}" if asked else ""
    for machine in (["-march=native"], []):
        library = _compiled(compiler, [*machine, *asked])
        if library is not None:
            other = "" if machine else f" for any CPU: {compiler} knows no -march=native"
            return Build(library, f"products built{other}{told}" if other or told else "")
    return Build(None, f"products by torch: {compiler} cannot build {SOURCE.name} here{told}")


def _compiled(compiler: str, flags: Sequence[str]) -> ctypes.CDLL | None:
    """Return the kernels as the compiler builds them; None if it cannot, or lacks OpenMP."""
    with tempfile.TemporaryDirectory(prefix="rooflight-") as folder:
        library = Path(folder) / "matvec.so"
        command = [compiler, *FLAGS, *flags, "-o", str(library), str(SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
            return ctypes.CDLL(str(library))
        except (subprocess.SubprocessError, OSError):
            return None


def kernels() -> ctypes.CDLL | None:
    """Return the kernels; None where torch's products remain."""
    return build().library


def is_fast(inputs: Tensor) -> bool:
    """Tell whether `inputs` (..., in) are few enough vectors, here, for these kernels."""
    vectors = inputs.numel() // inputs.shape[-1]
    few = inputs.device.type == "cpu" and vectors <= MOST_VECTORS
    return few and not torch.is_grad_enabled() and kernels() is not None


def matvec(weight: Tensor, inputs: Tensor) -> Tensor:
    """Return inputs W^T: weight (out, in) fp32 or bf16, inputs (..., in)."""
    results: Tensor = torch.ops.rooflight.matvec(weight, inputs)
    return results


def matvec_packed(packed: Tensor, scales: Tensor, inputs: Tensor) -> Tensor:
    """Return inputs W^T for integers packed in words (out, blocks, 16), inputs (..., in).

    Scales are fp32, (out, 1) for int8 and (out, in / 32) or (out, in / 64) for int4.
    """
    results: Tensor = torch.ops.rooflight.matvec_packed(packed, scales, inputs)
    return results


def _matvec(weight: Tensor, inputs: Tensor) -> Tensor:
    return _call(FORMATS[weight.dtype], [weight], inputs, weight.shape[1])


def _matvec_packed(packed: Tensor, scales: Tensor, inputs: Tensor) -> Tensor:
    width = inputs.shape[-1]
    per_row = packed[0].numel()
    form = "int8" if per_row == width // 4 else f"int4_{width // scales.shape[1]}"
    return _call(form, [packed, scales], inputs, 32 * per_row // (8 if form == "int8" else 4))


def _call(form: str, weights: list[Tensor], inputs: Tensor, width: int) -> Tensor:
    """Call a kernel; the inputs' vectors become fp32 for it and its results their dtype."""
    library = kernels()
    if library is None or inputs.shape[-1] != width:
        raise ValueError(f"no {form} kernel for inputs {tuple(inputs.shape)} of {width}")
    vectors = inputs.float().contiguous()
    outputs, count = weights[0].shape[0], vectors.numel() // width
    results = torch.empty(*inputs.shape[:-1], outputs)
    whole = [array.contiguous() for array in (*weights, vectors, results)]
    arrays = [ctypes.c_void_p(array.data_ptr()) for array in whole]
    sizes = [ctypes.c_long(size) for size in (count, outputs, width)]
    getattr(library, f"matvec_{form}")(*arrays, *sizes)
    return results.to(inputs.dtype)


_library = torch.library.Library("rooflight", "DEF")  # type: ignore[no-untyped-call]
_library.define("matvec(Tensor weight, Tensor inputs) -> Tensor")  # type: ignore[no-untyped-call]
_library.define("matvec_packed(Tensor packed, Tensor scales, Tensor inputs) -> Tensor")  # type: ignore[no-untyped-call]
_library.impl("matvec", _matvec, "CPU")  # type: ignore[no-untyped-call]
_library.impl("matvec_packed", _matvec_packed, "CPU")  # type: ignore[no-untyped-call]


@register_flop_formula(torch.ops.rooflight.matvec)
def _matvec_flops(weight: torch.Size, inputs: torch.Size, *_: object, **__: object) -> int:
    return 2 * weight[0] * inputs.numel()


@register_flop_formula(torch.ops.rooflight.matvec_packed)
def _packed_flops(
    packed: torch.Size, _: torch.Size, inputs: torch.Size, *__: object, **___: object
) -> int:
    return 2 * packed[0] * inputs.numel()
