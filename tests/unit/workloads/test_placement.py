"""Weights in a mapped file or in host memory: the same logits, and counts of what moves."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from workloads import pagecache
from workloads.decode import run_decode
from workloads.inference import open_model
from workloads.mapped import mapped_file
from workloads.memory import required_bytes, required_host_bytes
from workloads.offload import Fetching, body_bytes
from workloads.phase import Recorder
from workloads.placement import Streamed
from workloads.prefill import prefill_span, run_prefill
from workloads.setting import TOKENS_PER_STEP, Setting, SettingError, check_names, silent
from workloads.shapes import SIZES
from workloads.transformer import build

pytestmark = [pytest.mark.workloads, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
TINY = SIZES["tiny"]
PLACES = torch.arange(12)
BODY = 4 * (TINY.parameters - TINY.vocabulary * TINY.hidden - TINY.hidden)
"""Bytes of all weights in fp32 but the embedding and the last norm."""


def mapped_files() -> set[str]:
    """Return the files of weights that this process has mapped (proc_pid_maps(5))."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "weights.safetensors" in line}


def storage_read_bytes() -> int | None:
    """Return what this process has had read from storage (proc_pid_io(5)); None if untold."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return None
    found = re.search(r"^read_bytes: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("placement", ["mapped", "cold"])
@torch.inference_mode()
def test_mapped_weights_give_the_same_logits(placement: str, dtype: str) -> None:
    plain = Setting("tiny", dtype=dtype)
    with open_model(plain) as (model, _):
        expected = model(PLACES[None], PLACES)
    with open_model(Setting("tiny", dtype=dtype, placement=placement)) as (model, where):
        assert len(mapped_files()) == 1
        where.begin()
        assert torch.equal(model(PLACES[None], PLACES), expected)
        (path,) = mapped_files()
        assert model.lm_head.weight.dtype == expected.dtype
    assert not Path(path).exists()


def test_an_evicted_file_is_read_from_storage_again(disk: Path) -> None:
    path = disk / "file"
    path.write_bytes(bytes(16 << 20))
    assert pagecache.cached_ratio(path) > 0.9  # a machine short of memory evicts pages by itself
    pagecache.evict(path)
    assert pagecache.cached_ratio(path) == 0
    with path.open("rb") as file:
        file.read(1)
    assert 0 < pagecache.cached_ratio(path) < 1
    path.read_bytes()
    assert pagecache.cached_ratio(path) > 0.9


@pytest.mark.usefixtures("disk")
@torch.inference_mode()
def test_cold_weights_are_read_from_storage_once_per_run() -> None:
    if storage_read_bytes() is None:
        pytest.skip("this kernel does not tell what a process reads from storage")
    with open_model(Setting("tiny", placement="cold")) as (model, where):
        readings = [storage_read_bytes()]
        where.begin()  # a tiny file is read ahead as a whole, when its header is read
        for _ in range(2):
            model(PLACES[None], PLACES)
            readings.append(storage_read_bytes())
    before, once, twice = (reading or 0 for reading in readings)
    assert once - before == pytest.approx(BODY, rel=0.05)
    assert twice == once


def recorded(setting: Setting, name: str) -> Recorder:
    recorder = Recorder(name, "fp32", lambda: None, clock=lambda: 0.0, wall=lambda: 0.0)
    {"prefill": run_prefill, "decode": run_decode}[name](setting, recorder, silent)
    return recorder


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("name", ["prefill", "decode"])
def test_cold_weights_count_as_storage_once_per_run_and_warm_ones_do_not(name: str) -> None:
    cold, warm, plain = (
        recorded(Setting("tiny", prompt=8, steps=2, placement=where), name).phases[name]
        for where in ("cold", "mapped", "device")
    )
    assert (cold.io_bytes, warm.io_bytes, plain.io_bytes) == (2 * BODY, 0, 0)
    assert cold.bytes == warm.bytes == plain.bytes
    assert cold.link_bytes == 0


def test_a_file_system_in_memory_has_no_cold_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("no file system in memory here")
    monkeypatch.setattr("tempfile.tempdir", str(memory))
    model = build(TINY, CPU, torch.float32)
    with (
        mapped_file(model) as file,
        pytest.raises(SettingError, match="files in /dev/shm stay in memory; set TMPDIR"),
    ):
        file.evict()


@torch.inference_mode()
def test_fetched_weights_give_the_same_logits_and_leave_none_behind() -> None:
    plain = build(TINY, CPU, torch.float32)
    expected = plain(PLACES[None], PLACES)
    weights = {id(weight) for weight in plain.parameters()}
    plain.layers = nn.ModuleList(Fetching(layer, CPU) for layer in plain.layers)
    plain.register_module("lm_head", Fetching(plain.lm_head, CPU))
    assert torch.equal(plain(PLACES[None], PLACES), expected)
    assert {id(weight) for weight in plain.parameters()} == weights


def test_offloaded_weights_cross_the_link_in_every_pass() -> None:
    size = body_bytes(build(TINY, CPU, torch.float32))
    assert size == BODY
    span = prefill_span(Setting("tiny"))
    assert Streamed(size, torch.device("cuda")).span(span, 16).link_bytes == 16 * BODY
    assert Streamed(size, CPU).span(span, TOKENS_PER_STEP) == span


def test_offloading_needs_a_gpu() -> None:
    with pytest.raises(SettingError, match="placement host needs a GPU"):
        check_names(Setting(placement="host"), ["prefill"])
    check_names(Setting(placement="host", device="cuda"), ["prefill"])


def test_offloaded_weights_need_host_memory_and_little_of_the_device() -> None:
    there = Setting("7b", "cuda", "bf16", placement="host")
    here = Setting("7b", "cuda", "bf16")
    assert required_host_bytes("decode", here) == 0
    assert required_host_bytes("train", there) == 0
    assert required_host_bytes("decode", there) == 2 * SIZES["7b"].parameters
    assert required_bytes("decode", there).weights < 0.1 * required_bytes("decode", here).weights


def test_needs_grow_with_the_variant() -> None:
    def need(workload: str, **options: object) -> float:
        return required_bytes(workload, Setting("small", **options)).total  # type: ignore[arg-type]

    assert need("train", batch=16, checkpointing=True) < 0.9 * need("train", batch=16)
    assert need("train", attention="naive") > need("train")
    assert need("finetune", finetune="lora") < need("train")
    assert need("finetune", finetune="last") < need("train")
    extra = need("decode", cache="paged") - need("decode")
    assert 0 < extra <= 2 * 512 * 4 * (3 * 16 + 512 + 64)  # rounding, and one layer gathered
    assert need("prefill") < need("serve")
