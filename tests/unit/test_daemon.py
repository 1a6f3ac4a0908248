"""The daemon as a process among others."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from agent.daemon import allow_many_files
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [(256, 2048, (2048, 2048)), (300, 300, (300, 300))],
)
def test_a_node_with_hundreds_of_jobs_needs_more_files_than_a_service_has(
    soft: int, hard: int, after: tuple[int, int]
) -> None:
    script = SCRIPT.format(soft=soft, hard=hard)
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert tuple(map(int, said.stdout.split())) == after
