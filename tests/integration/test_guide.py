"""The site guide, done literally: its commands run in a fresh Debian machine without internet."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.integration import machine

GUIDE = machine.REPOSITORY / "deploy" / "GUIDE.md"
CHECKOUT = "/mnt/checkout"

# the guide's commands stand in a shell of their own each, as if somebody pasted block after block
BEGIN = """\
#!/bin/bash
set -u
export HOME=/root LANG=C.UTF-8
mkdir /root/site
cd /root/site
cp -r /mnt/checkout/deploy /mnt/checkout/*.tar.gz .
"""
BLOCK = """\
cat >/tmp/block <<'END_OF_BLOCK'
{commands}END_OF_BLOCK
if bash -e /tmp/block >/tmp/said 2>&1; then echo "block{number} ok"
else echo "block{number} failed"; cat /tmp/said >&2; journalctl -n 30 --no-pager >&2; exit 1; fi
"""
END = """\
systemctl stop rooflight-agent
echo "agent $(systemctl show rooflight-agent --property=Result --value)"
echo "--- cpu"
python3 - <<'PY'
import json, urllib.parse, urllib.request
def ask(database, query):
    words = urllib.parse.urlencode({"db": database, "q": query})
    answer = json.load(urllib.request.urlopen(f"http://localhost:8086/query?{words}"))
    return answer["results"][0]["series"][0]["values"][0][1]
print(ask("rooflight", 'SELECT count("idle_seconds") FROM "cpu"'))
PY
echo "--- job"
/opt/rooflight/bin/jobinspect last --json
"""

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(400),  # the first run makes the machine
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine with systemd needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="no systemd-nspawn"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="no debootstrap"),
]


def blocks() -> list[str]:
    """Return the guide's commands, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> machine.Told:
    machine.build()
    folder = tmp_path_factory.mktemp("guide")
    checkout = folder / "checkout"
    shutil.copytree(machine.REPOSITORY / "deploy", checkout / "deploy")
    made = {**os.environ, "PYTHON": sys.executable}
    maker = machine.REPOSITORY / "deploy" / "bundle" / "make.sh"
    subprocess.run([maker, checkout], env=made, check=True, timeout=180)
    story = folder / "story.sh"
    commands = [BLOCK.format(number=n, commands=text) for n, text in enumerate(blocks())]
    story.write_text("".join([BEGIN, *commands, END]))
    return machine.run("nspawn", story, {checkout: CHECKOUT}, 240)


def test_every_block_of_the_guide_runs(told: machine.Told) -> None:
    assert len(blocks()) >= 4
    assert [told.facts.get(f"block{number}") for number in range(len(blocks()))] == [
        "ok" for _ in blocks()
    ]
    assert told.facts["agent"] == "success"


def test_what_the_node_did_is_in_the_database(told: machine.Told) -> None:
    assert int(told.sections["cpu"]) >= 1
    assert '"state": "COMPLETED"' in told.sections["job"]
