"""The agent may import these; it must never load torch by doing so."""

import subprocess
import sys

import pytest


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
