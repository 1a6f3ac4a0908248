"""Few vectors go through our own kernels, with the results and the count of torch's products."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from workloads import matvec
from workloads.flopcounter import count_flops
from workloads.linear import Linear

pytestmark = [
    pytest.mark.workloads,
    pytest.mark.skipif(matvec.kernels() is None, reason="no C compiler here"),
]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("inputs", [1, 63, 64, 100, 384])
@pytest.mark.parametrize("outputs", [1, 33])
def test_any_width_gives_what_torch_gives(
    dtype: torch.dtype, within: float, inputs: int, outputs: int
) -> None:
    torch.manual_seed(inputs)
    weight = torch.randn(outputs, inputs).to(dtype)
    vectors = torch.randn(2, 1, inputs).to(dtype)
    exact = F.linear(vectors.double(), weight.double())
    result = matvec.matvec(weight, vectors)
    assert result.dtype == dtype
    assert result.shape == (2, 1, outputs)
    assert (result.double() - exact).abs().max() <= within * max(1.0, exact.abs().max().item())


def test_weights_and_vectors_need_not_be_contiguous() -> None:
    weight, vector = torch.randn(96, 40).T, torch.randn(96, 2).T
    torch.testing.assert_close(matvec.matvec(weight, vector), vector @ weight.T)


def test_the_model_takes_the_kernel_for_few_vectors_that_need_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr("workloads.linear.matvec", lambda _, inputs: taken.append(len(inputs)))
    linear = Linear(64, 8)
    linear(torch.randn(1, 64))
    with torch.inference_mode():
        for count in (1, 4, 5):
            linear(torch.randn(count, 64))
        linear.half()(torch.randn(1, 64).half())
    assert taken == [1, 4]


def test_flops_are_counted_as_those_of_the_product() -> None:
    linear = Linear(64, 8)
    with torch.inference_mode():
        assert count_flops(lambda: linear(torch.randn(3, 64))) == 2 * 3 * 64 * 8


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="no fp32 kernel"):
        matvec.matvec(torch.randn(8, 64), torch.randn(1, 32))


@pytest.fixture
def built_again() -> Iterator[None]:
    """Build the kernels in this test, and again after it."""
    matvec.build.cache_clear()
    yield
    matvec.build.cache_clear()


@pytest.mark.parametrize(
    ("script", "why"),
    [(None, "no C compiler here"), ("#!/bin/sh\nexit 1\n", "cannot build matvec.c here")],
)
@pytest.mark.usefixtures("built_again")
def test_without_a_working_compiler_torch_computes_and_the_note_says_so(
    script: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "cc").write_text(script)
        (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert matvec.kernels() is None
    assert matvec.build().note.startswith("products by torch: ")
    assert why in matvec.build().note
    linear, vector = Linear(64, 8), torch.randn(1, 64)
    with torch.inference_mode():
        torch.testing.assert_close(linear(vector), F.linear(vector, linear.weight))


@pytest.mark.usefixtures("built_again")
def test_a_compiler_that_does_not_know_this_cpu_builds_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'case "$*" in *native*) exit 1;; esac; exec {shutil.which("cc")} "$@"'
    (tmp_path / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "for any CPU" in matvec.build().note
    weight, vector = torch.randn(8, 64), torch.randn(1, 64)
    torch.testing.assert_close(matvec.matvec(weight, vector), vector @ weight.T)


@pytest.mark.usefixtures("built_again")
def test_cflags_limit_the_kernels_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", " -O2   -fno-math-errno ")
    library, note = matvec.build()
    assert library is not None
    assert note == "products built with CFLAGS=-O2 -fno-math-errno"


@pytest.mark.usefixtures("built_again")
def test_cflags_that_no_compiler_knows_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-march=abacus")
    library, note = matvec.build()
    assert library is None
    assert note.endswith("cannot build matvec.c here with CFLAGS=-march=abacus")
