"""The site guide, done literally: its commands run in a fresh Debian machine without internet."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dashboards.causes import FITS, LACKS
from tests.integration import machine
from tests.integration.commands import usage

DEPLOY = machine.REPOSITORY / "deploy"
STORY = Path(__file__).with_name("guide_story.sh")
FOLDER = "/mnt/guide"

FROM_THE_CHECKOUT = "deploy/influxdb/rooflight.conf"
"""All that the guide's machine has of it: what else is installed there comes from the bundle."""

INSTALLED = {
    "/etc/systemd/system/rooflight-agent.service": "systemd/rooflight-agent.service",
    "/etc/sysusers.d/rooflight.conf": "systemd/rooflight.sysusers",
    "/etc/modulefiles/rooflight": "modules/rooflight",
    "/etc/slurm/prolog.d/50-rooflight.sh": "slurm/prolog.sh",
    "/etc/slurm/epilog.d/50-rooflight.sh": "slurm/epilog.sh",
    "/etc/slurm/rooflight-healthcheck.sh": "slurm/healthcheck.sh",
    "/etc/slurm/rooflight.slurm.conf": "slurm/slurm.conf",
}
"""What is rendered, and from what; where rooflight is in its usual place, the two are the same."""

# the minutes that a reader takes from block to block are seconds here
IMPATIENT = """\
[Service]
Environment=ROOFLIGHT_CONFIG=/etc/rooflight/impatient.toml
"""
OFTEN = """\
[agent]
interval_seconds = 1.0
heartbeat_seconds = 3.0
flush_seconds = 1.0
"""

OF_PROBE = {
    "gpu": "gpu",
    "infiniband": "infiniband",
    "filesystem": "filesystem",
    "power": "power",
    "resctrl": "memory_traffic",
    "blockdisk": "blockdisk",
}
"""Probe -> what nobody has without it."""

OF_TORCH = {
    LACKS["ceiling"].words,
    FITS["\"workload\" <> 'user'"].words,
    FITS['"compute_ratio" > 0'].words,
}
"""What is said of all that reference workloads measure, which nobody can run here."""

OF_A_MACHINE = {
    "tempdisk.read_bytes",  # this one's temp disk is no block device
    "job_cgroup.read_bytes",  # Slurm leaves v1's controller blkio alone
}

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(400),  # the first run makes the machine
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine with systemd needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="no systemd-nspawn"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap"),
]


def blocks() -> dict[str, str]:
    """Return the guide's commands, block by block."""
    guide = (DEPLOY / "GUIDE.md").read_text()
    found = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    return {f"block{number:02}": commands for number, commands in enumerate(found)}


@pytest.fixture(scope="module")
def told(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    machine.build()
    folder = tmp_path_factory.mktemp("guide")
    site = folder / "guide" / "site"
    (site / FROM_THE_CHECKOUT).parent.mkdir(parents=True)
    shutil.copy(bundle, site)
    shutil.copy(machine.REPOSITORY / FROM_THE_CHECKOUT, site / FROM_THE_CHECKOUT)
    for name, commands in blocks().items():
        (folder / "guide" / name).write_text(commands)
    (folder / "guide" / "installed").write_text("\n".join(INSTALLED))
    impatient, often = folder / "impatient.conf", folder / "impatient.toml"
    impatient.write_text(IMPATIENT)
    often.write_text(OFTEN)
    placed = {
        folder / "guide": FOLDER,
        impatient: "/etc/systemd/system/rooflight-agent.service.d/impatient.conf",
        often: "/etc/rooflight/impatient.toml",
    }
    return machine.run("nspawn", STORY, placed, 240)


def said(told: machine.Told, command: str) -> str:
    """Return what the block with this command printed."""
    (name,) = (name for name, commands in blocks().items() if command in commands)
    return told.sections[name]


def read(told: machine.Told, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told.sections[name])
    return found


def test_every_block_of_the_guide_runs(told: machine.Told) -> None:
    assert len(blocks()) == 8
    assert [told.facts.get(name) for name in blocks()] == ["ok" for _ in blocks()]
    assert told.facts["agent"] == "success"


def test_what_the_node_did_is_in_the_database(told: machine.Told) -> None:
    assert read(told, "cpu")["count"] >= 30
    assert "\nState    COMPLETED, exit code 0\n" in said(told, "rooflight run")


def test_what_is_installed_is_what_the_bundle_renders(told: machine.Told) -> None:
    lines = [line.split() for line in told.sections["sums"].splitlines()]
    sums = {place: digest for digest, place in lines}
    assert sums == {
        place: hashlib.sha256((DEPLOY / source).read_bytes()).hexdigest()
        for place, source in INSTALLED.items()
    }
    assert told.facts["unit"] == "/etc/systemd/system/rooflight-agent.service rooflight"
    assert told.facts["prolog"] == "/etc/slurm/prolog.d/*"
    assert told.facts["epilog"] == "/etc/slurm/epilog.d/*"


def test_prolog_and_epilog_were_heard(told: machine.Told) -> None:
    """The control group alone tells neither a partition nor an exit code."""
    row, header = read(told, "row"), read(told, "job")["job"]
    assert (row["source"], row["user"], row["partition"]) == ("slurm", "root", "main")
    assert (row["node"], row["state"], row["exit_code_total"]) == ("machine", "COMPLETED", 0)
    # the store has milliseconds, of the hooks; Slurm has whole seconds
    for which in ("start", "end"):
        late = row[f"{which}_epoch_milliseconds"] - header[f"{which}_ms"]
        assert -100 <= late <= 5000
    journal = told.sections["journal"]
    assert "was not told" not in journal
    assert not re.findall(r"^.*(?i:prolog|epilog|health).*(?:fail|error|kill).*$", journal, re.M)


def test_the_health_check_ran_and_drained_nothing(told: machine.Told) -> None:
    """Without torch it cannot measure, which is no verdict."""
    assert told.facts["check_by_slurm"] == "ran"
    assert told.facts["check_by_hand"] == "0 ran"
    assert "torch is not installed" in told.facts["measured"]
    assert told.facts["node"] == "idle"


def test_jobinspect_tells_what_the_job_did(told: machine.Told) -> None:
    report = read(told, "job")
    header, (node,) = report["job"], report["nodes"]
    assert (header["state"], header["exit_code"]) == ("COMPLETED", 0)
    assert (header["user"], header["partition"], header["hosts"]) == ("root", "main", ["machine"])
    assert node["source"] in ("cgroup1", "cgroup2")
    words = re.findall(r"(\d+)m([\d.]+)s", told.sections["times"])
    expected = sum(60 * int(minutes) + float(seconds) for minutes, seconds in words)
    assert usage(report, "cpu time")["total"] == pytest.approx(expected, rel=0.02, abs=0.5)
    assert expected > 5
    found = [(phase["workload"], phase["phase"]) for phase in report["phases"]]
    assert found == [("user", "checksum"), ("user", "signature")]
    assert "\nState    COMPLETED, exit code 0\n" in said(told, 'jobinspect "$job"')


def excuses(told: machine.Told) -> set[str]:
    """Return what may be said of a panel: by the probes that see nothing here, and by the machine.

    It is the beginning of a cause, or what it names.
    """
    checked = said(told, "bin/rooflight check")
    blind = re.findall(r"^off +(\w+)|^on +(\w+) +0 values ", checked, re.MULTILINE)
    off = {OF_PROBE.get(probe) for pair in blind for probe in pair}
    absent = {LACKS[measurement].words for measurement in off if measurement}
    return {words.rstrip(".") for words in absent | OF_TORCH} | OF_A_MACHINE


def test_every_panel_has_data_or_says_what_is_lacking(told: machine.Told) -> None:
    checked = said(told, "dashboards check")
    numbers = re.findall(r"^(\d+) ok, (\d+) empty.*, (\d+) failed;", checked, re.MULTILINE)
    ok, empty, failed = map(int, numbers[0])
    assert (failed, "look" in re.findall(r"^\w+", checked, re.MULTILINE)) == (0, False)
    assert ok > 60
    causes = re.findall(r"^empty ([\w ,]+): (.+)$", checked, re.MULTILINE)
    assert (
        sum(int(number) for things, _ in causes for number in re.findall(r"\d+", things)) == empty
    )
    excused = excuses(told)
    assert [words for _, words in causes if not any(each in words for each in excused)] == []
