"""A whole run on the CPU, tiny: measured ceilings, labelled phases, samples, command line."""

import json
import math
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch")

from click.testing import CliRunner

from agent.workload.cli import workload
from probes.catalogue import CATALOGUE
from probes.roots import Roots
from workloads import ceilings
from workloads import runner as running
from workloads.ceilings import MIB, Sweep
from workloads.runner import Runner, RunReport
from workloads.samples import report_samples
from workloads.setting import OUTLINES, Setting, SettingError, silent

pytestmark = pytest.mark.workloads

SWEEP = Sweep(((128, 128, 128),), 4 * MIB, repeats=3)
PHASES = [phase for outline in OUTLINES.values() for phase in outline.phases]


def run_tiny(names: tuple[str, ...], **options: object) -> RunReport:
    setting = Setting("tiny", prompt=32, steps=2, **options)  # type: ignore[arg-type]
    return Runner(setting, progress=silent, sweep=SWEEP).run(names)


@cache
def whole_run(dtype: str) -> RunReport:
    """Return the report on a run of all workloads, which takes several seconds."""
    return run_tiny(tuple(OUTLINES), dtype=dtype)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_all_workloads_run_and_every_phase_is_measured(dtype: str) -> None:
    report = whole_run(dtype)
    assert [item.phase.name for item in report.phases] == PHASES
    assert not report.partial
    for item in report.phases:
        assert item.phase.seconds > 0
        assert item.phase.calls >= 2
        if item.phase.flops:
            assert item.label.intensity == pytest.approx(item.phase.flops / item.phase.bytes)
    kinds = [ceiling.kind for ceiling in report.ceilings]
    assert kinds[:5] == ["matmul", "copy", "triad", "update", "read"]
    assert set(kinds[5:]) <= {"disk-read", "disk-write"}  # a file system may refuse the test file
    assert all(ceiling.rounds == len(OUTLINES) + 1 for ceiling in report.ceilings[:5])


def test_samples_are_as_the_catalogue_says() -> None:
    report = whole_run("fp32")
    samples = report_samples(report, "4711")
    assert len(samples) == len(PHASES) + len(report.ceilings)
    for sample, time_ms in samples:
        measurement = CATALOGUE[sample.measurement]
        assert tuple(name for name, _ in sample.tags) == tuple(sorted(measurement.tags))
        assert time_ms <= report.finished * 1000
        for name, value in sample.fields.items():
            field = measurement.fields[name]
            if isinstance(value, float):
                assert math.isfinite(value)
                assert field.low <= value
            else:
                assert value


def test_an_interrupt_leaves_a_partial_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "RUNS", {**running.RUNS, "decode": interrupted})
    report = run_tiny(("prefill", "decode"))
    assert report.partial
    assert [item.phase.name for item in report.phases] == ["prefill"]
    assert report.phases[0].label.explanation


def test_what_does_not_fit_is_refused_with_the_sum(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 1024 kB\n")
    tight = Runner(Setting("7b"), progress=silent, roots=Roots(proc=tmp_path), sweep=SWEEP)
    with pytest.raises(SettingError, match=r"train 7b needs 1\d\d GB \(weights 27 GB \+ .* free"):
        tight.run(("train",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "unknown workload 'nothing': one of train, finetune, prefill"),
        (["run", "prefill", "--size", "huge"], "unknown size 'huge'"),
        (["run", "prefill", "--dtype", "fp4"], "unknown dtype 'fp4'"),
        (["run", "prefill", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "prefill", "--steps", "0"], "steps must be at least 1"),
        (["run", "train", "--rank", "0"], "rank must be at least 1"),
        (["run", "prefill", "--csv", "/nowhere/x.csv"], "/nowhere/x.csv cannot be written"),
        (["run", "prefill", "--trace", "/proc"], "/proc cannot be written"),
        (["run", "serve", "--parallel", "ddp"], "serve does not run with ddp, only: train"),
        (["run", "train", "--parallel", "pp"], "unknown way to run in parallel 'pp'"),
        (["run", "train", "--parallel", "tp", "--trace", "x"], "--trace shows one process"),
        (["ceilings", "--device", "cuda:999"], "device cuda:999 is not here"),
        (["compare", "nothing", "--vary", "dtype"], "unknown workload 'nothing'"),
        (["compare", "decode", "--vary", "colour"], "unknown option 'colour': one of size, "),
        (["compare", "decode", "--vary", "batch", "--values", "1,x"], "batch cannot be 'x'"),
        (["compare", "decode", "--vary", "device"], "which values of device? say --values A,B"),
        (["sweep", "decode", "--batches", "1,0"], "'1,0' is no list of numbers such as 1,2,4"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(workload, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_the_command_prints_json_that_carries_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "default_sweep", lambda *_: SWEEP)
    arguments = ["run", "prefill", "--size", "tiny", "--prompt", "16", "--steps", "1", "--json"]
    result = CliRunner().invoke(workload, arguments)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["phases"][0]["phase"] == "prefill"
    assert data["phases"][0]["bound"] in {"compute", "memory", "balanced", "latency"}
    assert {row["kind"] for row in data["ceilings"]} >= {"matmul", "read"}


def test_the_tables_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "default_sweep", lambda *_: SWEEP)
    arguments = ["run", "all", "--size", "tiny", "--prompt", "16", "--steps", "1"]
    result = CliRunner().invoke(workload, arguments)
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    for name in PHASES:
        assert name in result.stdout


def test_list_names_every_workload_without_torch_having_to_be_there() -> None:
    result = CliRunner().invoke(workload, ["list"])
    assert result.exit_code == 0
    for name in OUTLINES:
        assert name in result.stdout
