"""`rooflight workload` as a user has it: side by side, traced, as CSV, checked, interrupted."""

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from click.testing import CliRunner, Result

from agent.workload.cli import workload
from tests.integration.commands import BIN
from tests.listening import Listener
from tests.weather import PATIENCE
from workloads import ceilings, history, runner, trace
from workloads.ceilings import MIB, Sweep
from workloads.setting import Setting

pytestmark = pytest.mark.workloads

TINY = ("--size", "tiny", "--prompt", "16", "--steps", "1")
SWEEP = Sweep(((128, 128, 128),), 4 * MIB, repeats=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Measure small ceilings, keep the state in a folder of the test, compute with one thread."""
    monkeypatch.setattr(ceilings, "default_sweep", lambda *_: SWEEP)
    monkeypatch.setattr(runner, "measure_disk", lambda *_: [])
    config = tmp_path / "rooflight.toml"
    config.write_text('host = "node1"\n[agent]\nstate_directory = "state"\n')
    monkeypatch.setenv("ROOFLIGHT_CONFIG", str(config))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(workload, arguments)
    assert result.exit_code == code, result.output
    return result


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_variants_stand_side_by_side() -> None:
    lines = call("compare", "decode", "--vary", "attention", *TINY).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    heading, sdpa, naive = (line.split() for line in lines[1:4])
    assert heading == ["attention", "phase", "bytes", "FLOP/B", "time", "speed", "bound"]
    assert sdpa[:2] == ["sdpa", "decode"]
    assert "1.00x" in sdpa
    assert naive[:2] == ["naive", "decode"]


def test_a_refused_variant_has_its_reason_in_its_row() -> None:
    result = call("compare", "decode", "--vary", "dtype", "--values", "fp32,fp3", *TINY)
    assert "fp3    refused: unknown dtype 'fp3'" in result.stdout


def test_fewer_bits_move_fewer_bytes() -> None:
    arguments = ("compare", "decode", "--vary", "dtype", "--values", "fp32,bf16", *TINY)
    data = json.loads(call(*arguments, "--json").stdout)
    moved = {each["value"]: each["phases"][0]["moved_bytes"] for each in data["variants"]}
    assert (data["workload"], data["vary"]) == ("decode", "dtype")
    assert moved["fp32"] == 2 * moved["bf16"]


def test_csv_has_a_row_per_variant_and_phase_with_every_option() -> None:
    arguments = ("compare", "train", "--vary", "checkpointing", "--values", "false,true", *TINY)
    rows = rows_of(call(*arguments, "--csv", "-").stdout)
    assert {row["checkpointing"] for row in rows} == {"False", "True"}
    assert all(field.name in row for field in fields(Setting) for row in rows)
    backward = [float(row["flops_total"]) for row in rows if row["phase"] == "train.backward"]
    assert backward[1] > backward[0]  # checkpointing computes the forward pass again


def test_csv_goes_to_a_file_beside_the_table(tmp_path: Path) -> None:
    file = tmp_path / "phases.csv"
    result = call("run", "prefill", *TINY, "--csv", str(file))
    assert "prefill" in result.stdout
    (row,) = rows_of(file.read_text())
    assert (row["phase"], row["size"], row["partial"]) == ("prefill", "tiny", "False")


def test_a_job_s_agent_hears_which_variant_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(tmp_path / "agent.sock")
    monkeypatch.setenv("ROOFLIGHT_SOCKET", str(tmp_path / "agent.sock"))
    monkeypatch.setenv("ROOFLIGHT_JOBID", "run-7")
    result = call("compare", "prefill", "--vary", "dtype", "--values", "fp32,bf16", *TINY)
    told = [point.tags for point in listener.received() if point.measurement == "phase"]
    listener.close()
    assert "nothing was stored" not in result.stdout
    assert told == [
        {"jobid": "run-7", "workload": f"prefill dtype={name}", "phase": "prefill", "device": "cpu"}
        for name in ("fp32", "bf16")
    ]


def test_a_trace_shows_one_step_with_its_phases(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    assert call("run", "train", "decode", *TINY, "--trace", str(file)).stderr == ""
    events = json.loads(file.read_bytes())["traceEvents"]
    phases = ["train.forward", "train.backward", "train.optimizer", "decode"]
    spans = {each["name"]: each for each in events if each.get("cat") == "user_annotation"}
    assert [name for name in spans if name in phases] == phases
    assert all(spans[name]["dur"] > 0 for name in phases)
    assert sum(each["name"] == "train.forward" for each in events) == 1
    inside = spans["train.forward"]
    products = [each for each in events if each["name"] == "aten::mm"]
    assert any(0 <= each["ts"] - inside["ts"] <= inside["dur"] for each in products)


def test_on_cuda_phases_are_nvtx_ranges() -> None:
    assert trace.range_marker(torch.device("cuda")) is torch.cuda.nvtx.range


def test_a_sweep_shows_what_a_batch_changes() -> None:
    arguments = ("sweep", "decode", *TINY, "--batches", "1,4,64", "--measure", "1,4")
    data = json.loads(call(*arguments, "--json").stdout)["batches"]
    assert [row["batch"] for row in data] == [1, 4, 64]
    assert ["bound" in row for row in data] == [True, True, False]
    intensities = [row["intensity_flops_per_byte"] for row in data]
    assert intensities == sorted(intensities)
    assert len({row["attention_intensity_flops_per_byte"] for row in data}) == 1
    text = call(*arguments).stdout
    assert "ridge" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def ceilings_of_this_host(tmp_path: Path) -> list[history.Reading]:
    return history.load(tmp_path / "state" / "ceilings.jsonl")


def test_a_device_below_its_own_past_fails_the_check(tmp_path: Path) -> None:
    first = call("ceilings", "--check")
    assert "this is the first measurement" in first.stderr
    past = ceilings_of_this_host(tmp_path)
    assert {reading.host for reading in past} == {"node1"}
    better = [_scaled(reading, 1000.0) for reading in past]
    history.append(tmp_path / "state" / "ceilings.jsonl", better)
    second = call("ceilings", "--check", "--no-plot", code=1)
    assert second.stderr.count("its own best") == len(past)
    assert len(ceilings_of_this_host(tmp_path)) == 3 * len(past)
    call("ceilings", "--no-plot", code=0)  # without --check it only measures


def _scaled(reading: history.Reading, factor: float) -> history.Reading:
    return replace(reading, per_second=reading.per_second * factor)


def test_a_device_as_good_as_ever_passes_the_check(tmp_path: Path) -> None:
    call("ceilings")
    path = tmp_path / "state" / "ceilings.jsonl"
    slow = [_scaled(reading, 0.001) for reading in history.load(path)]
    path.unlink()
    history.append(path, slow)
    result = call("ceilings", "--check")
    assert f"{len(slow)} comparisons, none below by more than 10%" in result.stderr


def test_ceilings_are_a_table_and_a_roofline() -> None:
    text = call("ceilings").stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "FLOP/byte" in text
    assert "////" in text
    assert "////" not in call("ceilings", "--no-plot").stdout
    rows = rows_of(call("ceilings", "--csv", "-").stdout)
    assert {row["kind"] for row in rows} >= {"matmul", "read", "copy"}


def test_progress_runs_from_nought_to_one_and_names_what_runs() -> None:
    told: list[tuple[str, float]] = []

    def progress(words: str, done: float = 0.0, /) -> None:
        told.append((words, done))

    setting = Setting("tiny", prompt=16, steps=4)
    runner.Runner(setting, progress=progress, sweep=SWEEP).run(("prefill", "decode"))
    fractions = [done for _, done in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert 0.75 <= fractions[-1] < 1.0
    assert "prefill: prompt 3 of 5" in dict(told)


def test_nothing_but_the_table_is_said_when_stderr_is_no_terminal() -> None:
    assert call("run", "prefill", *TINY).stderr == ""


def test_an_interrupt_leaves_the_variants_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    real = runner.RUNS["prefill"]

    def interrupted(setting: Setting, *rest: object) -> None:
        if setting.dtype == "bf16":
            raise KeyboardInterrupt
        real(setting, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "RUNS", {"prefill": interrupted})
    result = call("compare", "prefill", "--vary", "dtype", *TINY, code=130)
    assert "fp32   prefill" in result.stdout
    assert "fp16" not in result.stdout
    assert "partial: interrupted before the end" in result.stdout


def read(terminal: int) -> bytes:
    """Return what was written to a terminal; nothing once its other end is closed."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_ctrl_c_on_a_terminal_leaves_a_partial_report() -> None:
    """The progress bar, which a terminal gets, says when the run has begun."""
    command = f"{BIN}/rooflight workload run prefill --size tiny --prompt 16 --steps 1000000"
    terminal, theirs = pty.openpty()
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([*command.split(), "--json"], stdout=subprocess.PIPE, stderr=theirs)
        )
        stack.callback(process.kill)
        os.close(theirs)
        shown = iter(lambda: read(terminal), b"")
        assert any(re.search(rb"prompt \d\d+ of 1000001", part) for part in shown)
        process.send_signal(signal.SIGINT)
        assert b"prompt 1000001" not in b"".join(shown)  # to the end: it waits for its terminal
        os.close(terminal)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    report = json.loads(output)
    assert report["partial"] is True
    assert report["phases"][0]["phase"] == "prefill"
