"""The kernels compile without a warning for every kind of CPU, and compute the same on each.

Weights and vectors are small integers and scales are powers of two, so that every product and sum
is exact in fp32 (below 2^18, in steps of 2^-3: 21 bits of 24) whatever the order of summation: the
results of any CPU are held against Python's integers to the last bit.
"""

import platform
import random
import shutil
import subprocess
from array import array
from fractions import Fraction
from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("torch")

from workloads.matvec import FLAGS, SOURCE, WORDS

pytestmark = [pytest.mark.workloads, pytest.mark.cc]

MAIN = Path(__file__).with_name("matvec_main.c")
HERE = platform.machine()
LEVELS = {  # what /proc/cpuinfo calls that which each level of x86-64 adds
    "x86-64": set[str](),
    "x86-64-v2": {"cx16", "popcnt", "ssse3", "sse4_2"},
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
"""https://gitlab.com/x86-psABIs/x86-64-ABI, "Micro-Architecture Levels"."""

COUNT, OUTPUTS = 2, 3
FORMATS = {"fp32": 100, "bf16": 100, "int8": 192, "int4_32": 256, "int4_64": 256}
"""Inputs by format: no multiple of what a vector holds where the kernel takes any number."""

GROUPS = {"int8": 1, "int4_32": 256 // 32, "int4_64": 256 // 64}
"""Scales of a row."""

LARGEST = {"fp32": 128, "bf16": 128, "int8": 128, "int4_32": 8, "int4_64": 8}


def compiler(machine: str) -> list[str]:
    """Return the command that compiles for a machine; skips the test where there is none."""
    kind = "aarch64" if machine == "aarch64" else "x86_64"
    name = "cc" if kind == HERE else f"{kind}-linux-gnu-gcc"
    if shutil.which(name) is None:
        pytest.skip(f"no compiler for {kind} here ({name})")
    return [name, *([] if kind == machine else [f"-march={machine}"])]


def runner(machine: str) -> list[str]:
    """Return what runs a program of a machine here; skips the test where nothing does."""
    if machine == HERE:
        return []
    if machine == "aarch64":
        return emulator("aarch64", "-L", "/usr/aarch64-linux-gnu")
    levels = list(LEVELS)[: list(LEVELS).index(machine) + 1]
    needed = set().union(*(LEVELS[level] for level in levels))
    if HERE == "x86_64" and needed <= set(Path("/proc/cpuinfo").read_text().split()):
        return []
    if machine == "x86-64-v4":
        pytest.skip("neither this CPU nor QEMU's has AVX-512")
    return emulator("x86_64", "-cpu", "max")


def emulator(kind: str, *options: str) -> list[str]:
    if shutil.which(f"qemu-{kind}") is None:
        pytest.skip(f"nothing here runs programs of {kind} (qemu-{kind})")
    return [f"qemu-{kind}", *options]


@pytest.fixture(scope="module", params=[*LEVELS, "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def program(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program around the kernels, compiled as the product does it, every warning an error."""
    path = tmp_path_factory.mktemp(machine) / "main"
    flags = [flag for flag in FLAGS if flag != "-shared"]
    strict = ["-Wall", "-Wextra", "-Werror"]
    command = [*compiler(machine), *flags, *strict, "-o", str(path), str(MAIN), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def packed(row: list[int], bits: int) -> list[int]:
    """Return words of a row: field k of word w of a block is its integer 16 k + w."""
    block = WORDS * 32 // bits
    return [
        sum((row[start + WORDS * k + w] % 2**bits) << (bits * k) for k in range(32 // bits))
        for start in range(0, len(row), block)
        for w in range(WORDS)
    ]


def stored(form: str, rows: list[list[int]]) -> bytes:
    """Return weights as a kernel reads them; bf16 is the upper half of an fp32."""
    if form == "fp32":
        return array("f", chain.from_iterable(rows)).tobytes()
    if form == "bf16":
        fp32 = array("I", array("f", chain.from_iterable(rows)).tobytes())
        return array("H", [bits >> 16 for bits in fp32]).tobytes()
    bits = 8 if form == "int8" else 4
    return array("I", [word for row in rows for word in packed(row, bits)]).tobytes()


def result(row: list[int], vector: list[int], powers: list[int]) -> float:
    """Return the sum of products, each group's divided by 2 to its power; exactly."""
    width = len(row) // len(powers)
    products = (weight * factor for weight, factor in zip(row, vector, strict=True))
    return float(sum(Fraction(each, 2 ** powers[i // width]) for i, each in enumerate(products)))


@pytest.mark.parametrize("form", FORMATS)
def test_the_kernels_compute_the_same_to_the_last_bit(
    form: str, machine: str, program: Path
) -> None:
    run, inputs, draw = runner(machine), FORMATS[form], random.Random(form)
    largest, groups = LARGEST[form], GROUPS.get(form, 0)
    rows = [[draw.randrange(-largest, largest) for _ in range(inputs)] for _ in range(OUTPUTS)]
    rows[0][0] = -largest
    vectors = [[draw.randrange(-8, 9) for _ in range(inputs)] for _ in range(COUNT)]
    powers = [[draw.randrange(4) for _ in range(groups)] for _ in range(OUTPUTS)]
    scales = array("f", [2.0**-power for power in chain.from_iterable(powers)])
    arrays = stored(form, rows), scales, array("f", chain.from_iterable(vectors))
    sizes = map(str, (COUNT, OUTPUTS, inputs, len(scales)))
    done = subprocess.run(
        [*run, program, form, *sizes], input=b"".join(arrays), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    expected = [
        result(row, vector, of_row or [0])
        for vector in vectors
        for row, of_row in zip(rows, powers, strict=True)
    ]
    assert list(array("f", done.stdout)) == expected
    assert any(expected)
