"""A real agent whose store means harm: it stays small, keeps all it has, and ends in time."""

import re
import signal
import time
from pathlib import Path

import pytest

from probes.catalogue import Database
from tests.hostile import Hostile
from tests.integration.commands import Site

MEBIBYTE = 1 << 20
AGENT = "interval_seconds = 0.1\n"
ANSWERS = 4
"""So many times the agent has asked when it is looked at."""

LARGEST_BYTES = 60 * MEBIBYTE


def highest_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize(
    ("api", "mode"),
    [
        *(
            ("v1", mode)
            for mode in ("endless", "endless_error", "endless_headers", "bomb", "large")
        ),
        *(("v2", mode) for mode in ("endless", "bomb")),
        *(("v1", mode) for mode in ("endless_headers", "slow_headers", "html", "half_body")),
    ],
)
def test_an_agent_stays_small_and_keeps_what_no_database_took(
    tmp_path: Path, api: str, mode: str
) -> None:
    server = Hostile()
    server.mode = mode
    influx = f'[influx]\nurl = "{server.url}"\napi = "{api}"\ntimeout_seconds = 0.5'
    site = Site(tmp_path, f'store = "influx"\n{influx}', AGENT)
    agent = site.start("rooflight", "agent")
    try:
        deadline = time.monotonic() + 60
        while len(server.seen) < ANSWERS and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(server.seen) >= ANSWERS
        assert highest_bytes(agent.pid) < LARGEST_BYTES
        begun = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        _, words = agent.communicate(timeout=60)
    finally:
        agent.kill()
        agent.communicate()
        server.close()
    assert agent.returncode == 0
    assert time.monotonic() - begun < 20
    said = re.findall(rf"rooflight: .* the data is kept: {server.url}.*", words)
    assert len(said) == len(set(said)) <= len(Database)  # each is refused in its own name, once
    assert said
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state" / "spool").glob("*.lp"))
    assert kept.count(b"\ncpu,") > 3
