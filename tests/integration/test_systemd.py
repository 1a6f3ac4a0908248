"""The agent's unit under a real systemd: it starts, stops, and is restarted when it hangs."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration import machine

# the real one is longer than a test has patience
IMPATIENT = """\
[Service]
WatchdogSec=10
RestartSec=1
"""

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(900),  # the first run makes the machine
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine with systemd needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="no systemd-nspawn"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    """Return what the story said."""
    machine.build()
    folder = tmp_path_factory.mktemp("machine")
    impatient = folder / "impatient.conf"
    impatient.write_text(IMPATIENT)
    placed = {
        **machine.install(folder / "rooflight"),
        impatient: "/etc/systemd/system/rooflight-agent.service.d/impatient.conf",
        machine.UNITS / "rooflight.toml": "/etc/rooflight/rooflight.toml",
    }
    return machine.run("nspawn", Path(__file__).with_name("systemd_story.sh"), placed, 120)


@pytest.fixture
def facts(told: machine.Told) -> Mapping[str, str]:
    """Return the story's facts; a failing test shows the journal."""
    print(told.sections["journal"])
    return told.facts


def test_systemd_finds_no_fault_with_the_unit(facts: Mapping[str, str]) -> None:
    assert facts["verify"] == "0"
    assert float(facts["exposure"].split()[0]) <= 2.5  # 9.6 is a unit without any protection


def test_ready_is_told_and_the_agent_is_active(facts: Mapping[str, str]) -> None:
    assert facts["started"] == "active"
    assert facts["socket"] == "socket"


def test_the_agent_has_no_privileges(facts: Mapping[str, str]) -> None:
    assert facts["user"] == "rooflight"
    assert facts["no_new_privileges"] == "1"
    assert int(facts["capabilities"], 16) == 0
    assert facts["state_directory"] == "rooflight:750"


def test_a_job_s_owner_has_a_socket_that_nobody_else_may_write_to(
    facts: Mapping[str, str],
) -> None:
    """The agent may not give files away: the kernel heeds an access control list."""
    assert facts["own_socket"] == "yes no yes"  # owner, another user, root
    assert facts["root_socket"] == "no yes"
    assert facts["public_socket"] == "yes"
    assert facts["own_socket_later"] == "gone"


def test_sigterm_stops_it_cleanly_within_ten_seconds(facts: Mapping[str, str]) -> None:
    assert int(facts["stop_milliseconds"]) < 10_000
    assert facts["stop_result"] == "success"
    assert facts["stop_code"] == "1:0"  # CLD_EXITED with status 0, not CLD_KILLED


def test_a_hung_agent_is_restarted_and_the_journal_says_why(facts: Mapping[str, str]) -> None:
    assert facts["after_hang"] == "active"
    assert facts["hung_process"] == "gone"
    assert int(facts["watchdog_lines"]) >= 1


def test_a_spool_that_another_agent_still_has_is_waited_for(facts: Mapping[str, str]) -> None:
    words = "activating waiting: /var/lib/rooflight/spool is in use by another agent"
    assert facts["while_locked"].startswith(words)
    assert facts["once_free"] == "active 0"
    assert facts["waiting_lines"] == "1"


def test_a_wrong_configuration_is_said_once_and_not_retried(facts: Mapping[str, str]) -> None:
    assert facts["wrong_config"] == "failed"
    assert facts["wrong_config_status"] == "2"
    assert facts["wrong_config_restarts"] == "0"
    assert int(facts["wrong_config_lines"]) == 1
