"""The agent may import these; it must never load torch by doing so."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from agent.workload.cli import OLDEST_TORCH


@pytest.mark.parametrize(
    "module",
    [
        "roofline",
        "hardware",
        "shapes",
        "counting",
        "setting",
        "memory",
        "phase",
        "history",
        "plot",
        "exchange",
    ],
)
def test_module_loads_without_torch(module: str) -> None:
    program = f"import sys, workloads.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_missing_torch_is_one_line_and_exit_2() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from agent.workload.cli import workload\n"
        "workload(['run', 'prefill'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == ("Error: torch is not installed here: pip install rooflight[workloads]\n")


def test_an_older_torch_is_one_line_and_exit_2(tmp_path: Path) -> None:
    installed = tmp_path / "torch-2.8.1+cpu.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.8.1+cpu\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from agent.workload.cli import workload\n"
        "workload(['run', 'prefill'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "Error: torch 2.8.1+cpu is installed here and 2.9 or later is needed:"
        " pip install 'torch>=2.9'\n"
    )


def test_the_oldest_torch_is_the_one_that_the_package_asks_for() -> None:
    needed = ".".join(map(str, OLDEST_TORCH))
    asked = importlib.metadata.requires("rooflight") or []
    assert [text for text in asked if text.startswith("torch")] == [
        f"torch>={needed}; extra == 'workloads'"
    ]
