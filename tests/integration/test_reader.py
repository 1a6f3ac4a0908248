"""The reader under a real systemd: users without a credential, each with what is theirs."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration import machine
from tests.integration.test_systemd import pytestmark

__all__ = ["pytestmark"]  # what the machine needs

CONFIGURATION = """
[agent]
state_directory = "/var/lib/rooflight"
socket = "/run/rooflight/agent.sock"
flush_seconds = 0.2

[inspect]
reader = "/run/rooflight-reader.sock"
staff_group = "rooflight-staff"
"""

# it waits a minute otherwise
IMPATIENT = """\
[Service]
ExecStart=
ExecStart=/opt/rooflight/bin/rooflight reader --idle 3
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    """Return what the story said."""
    machine.build()
    folder = tmp_path_factory.mktemp("reader")
    (folder / "rooflight.toml").write_text(CONFIGURATION)
    (folder / "impatient.conf").write_text(IMPATIENT)
    units = Path("/etc/systemd/system")
    placed = {
        **machine.install(folder / "rooflight"),
        folder / "rooflight.toml": "/etc/rooflight/rooflight.toml",
        folder / "impatient.conf": f"{units}/rooflight-reader.service.d/impatient.conf",
        machine.UNITS / "rooflight-reader.service": f"{units}/rooflight-reader.service",
        machine.UNITS / "rooflight-reader.socket": f"{units}/rooflight-reader.socket",
    }
    return machine.run("nspawn", Path(__file__).with_name("reader_story.sh"), placed, 120)


@pytest.fixture
def facts(told: machine.Told) -> Mapping[str, str]:
    """Return what the story said; a failing test shows all of it."""
    print(*(f"{name} {value}" for name, value in told.facts.items()), sep="\n")
    print(told.sections["journal"])
    return told.facts


def shown(jobid: str) -> str:
    return f'0 "jobid": "{jobid}"'


def test_systemd_finds_no_fault_with_the_units(facts: Mapping[str, str]) -> None:
    assert facts["verify"] == "0"
    assert float(facts["exposure"].split()[0]) < 3.0


def test_a_question_starts_the_reader(facts: Mapping[str, str]) -> None:
    assert facts["socket"] == "socket 666"
    assert (facts["before"], facts["after"]) == ("inactive", "active")
    assert facts["user"] == "rooflight"
    assert int(facts["capabilities"], 16) == 0


def test_a_user_sees_own_jobs(facts: Mapping[str, str]) -> None:
    assert facts["own"] == shown("alice-job")
    assert facts["last"] == shown("alice-job")  # bob's is newer
    assert facts["own.words"] == ""


def test_another_s_job_cannot_be_told_from_none(facts: Mapping[str, str]) -> None:
    assert facts["another"].strip() == facts["other_way"].strip() == facts["unknown"].strip() == "1"
    words = [
        facts[f"{name}.words"].replace(jobid, "JOB")
        for name, jobid in {
            "another": "bob-job",
            "other_way": "alice-job",
            "unknown": "eve-job",
        }.items()
    ]
    assert len(set(words)) == 1
    assert words[0].strip().count("\n") == 0
    assert "no job JOB of cluster local" in words[0]


def test_staff_and_root_see_all_jobs(facts: Mapping[str, str]) -> None:
    assert facts["staff"] == shown("alice-job")
    assert facts["staff_too"] == facts["root"] == shown("bob-job")


def test_there_is_no_way_around_the_reader(facts: Mapping[str, str]) -> None:
    assert facts["around"].strip() == "3"
    assert "rooflight.db" in facts["around.words"]
    assert "Permission denied" in facts["file"]


def test_the_reader_comes_back(facts: Mapping[str, str]) -> None:
    assert facts["agent_folder"] == "gone"
    for when in ("without_agent", "killed", "idle"):
        assert facts[when] == shown("alice-job"), when


def test_a_wrong_configuration_is_told_and_costs_no_socket(
    told: machine.Told, facts: Mapping[str, str]
) -> None:
    for name in ("wrong", "wrong_again"):
        assert facts[name].strip() == "3"
        assert "journalctl -u rooflight-reader" in facts[f"{name}.words"]
    assert "inspect.staff_group: no group 'no-such-group' here" in told.sections["journal"]
    assert facts["mended"] == shown("alice-job")


def test_without_the_socket_its_path_is_named(facts: Mapping[str, str]) -> None:
    assert facts["away"].strip() == "3"
    assert "/run/rooflight-reader.sock" in facts["away.words"]
    assert "rooflight-reader.socket" in facts["away.words"]
