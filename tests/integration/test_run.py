"""`rooflight run` and `jobinspect` against independent readings of the same things."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.integration.commands import Site, usage

MEBIBYTE = 1 << 20

BURN = """
import json, os, resource, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
if os.fork() == 0:                       # a child that is waited for
    burn(0.4); os._exit(0)
os.wait()
burn(0.6)
usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
total = sum(usage.ru_utime + usage.ru_stime for usage in usages)
json.dump(total, open(sys.argv[1], "w"))
"""

ORPHAN = """
import os, sys, time
if os.fork() == 0:
    if os.fork() == 0:                   # an orphan in a session of its own
        os.setsid()
        end = time.process_time() + 0.8
        while time.process_time() < end:
            sum(range(1000))
        open(sys.argv[1], "w").write("done")
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
time.sleep(0.1)
"""

LOOPBACK = """
import json, socket, sys, threading
def sent():
    lines = [line.split(":") for line in open("/proc/net/dev") if ":" in line]
    return next(int(rest.split()[8]) for name, rest in lines if name.strip() == "lo")
before = sent()
size, listener = 512 << 20, socket.create_server(("127.0.0.1", 0))
def serve():
    peer, _ = listener.accept()
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        peer.sendall(block)
    peer.close()
thread = threading.Thread(target=serve); thread.start()
client = socket.create_connection(listener.getsockname())
while client.recv(1 << 20):
    pass
thread.join()
json.dump(sent() - before, open(sys.argv[1], "w"))
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def run_python(site: Site, program: str, *arguments: str) -> dict[str, object]:
    site.call(
        "rooflight", "run", "--interval", "0.2", "--", sys.executable, "-c", program, *arguments
    )
    return site.report()


def test_cpu_seconds_agree_with_getrusage(site: Site) -> None:
    result = site.folder / "seconds.json"
    report = run_python(site, BURN, str(result))
    expected = json.loads(result.read_text())
    assert usage(report, "cpu time")["total"] == pytest.approx(expected, rel=0.02, abs=0.02)


def test_cpu_seconds_of_an_orphan_in_another_session_count(site: Site) -> None:
    report = run_python(site, ORPHAN, str(site.folder / "done"))
    assert usage(report, "cpu time")["total"] == pytest.approx(0.8, rel=0.15)


def test_written_bytes_agree_with_dd(site: Site) -> None:
    target = site.folder / "zeros"
    dd = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=96", "conv=fsync"]
    site.call("rooflight", "run", "--interval", "0.2", "--", *dd)
    written = usage(site.report(), "disk written")
    assert written["total"] == pytest.approx(96 * MEBIBYTE, rel=0.02)
    assert written["scope"] == "job"


def test_loopback_bytes_agree_with_a_known_transfer(site: Site) -> None:
    """Loopback is the whole machine's: other programs' bytes are in both readings."""
    result = site.folder / "bytes.json"
    total = usage(run_python(site, LOOPBACK, str(result)), "loopback")["total"]
    assert total >= 512 * MEBIBYTE
    assert total == pytest.approx(json.loads(result.read_text()), rel=0.02)


def test_memory_peak_shows_what_the_job_held(site: Site) -> None:
    report = run_python(site, "import time; held = bytearray(200 << 20); time.sleep(1.0)")
    memory = usage(report, "memory")
    assert memory["peak"] == pytest.approx(200 * MEBIBYTE, rel=0.15)
    assert memory["available"] >= memory["peak"]


def test_the_exit_code_is_the_command_s(site: Site) -> None:
    done = site.complete("rooflight", "run", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7
    job = site.report()["job"]
    assert (job["state"], job["exit_code"]) == ("FAILED", 7)


def test_a_command_killed_by_a_signal_ends_with_128_and_its_number(site: Site) -> None:
    done = site.complete("rooflight", "run", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137
    assert site.report()["job"]["exit_code"] == 137


def test_a_command_that_is_not_there_is_one_line(site: Site) -> None:
    done = site.complete("rooflight", "run", "--quiet", "--", "no-such-command")
    assert done.returncode == 127
    assert "rooflight: no-such-command: No such file or directory" in done.stderr


def test_the_command_s_output_and_input_are_its_own(site: Site) -> None:
    done = site.complete("rooflight", "run", "--quiet", "--", "echo", "hello")
    assert done.stdout == "hello\n"
    assert re.fullmatch(r"rooflight: job run-\d{8}-\d{6}-\d+\n", done.stderr)


def test_names_and_times_stand_in_the_report(site: Site) -> None:
    site.call("rooflight", "run", "--interval", "0.1", "--name", "nap", "--", "sleep", "0.5")
    report = site.report()
    job, node = report["job"], report["nodes"][0]
    assert report["schema"] == "rooflight.jobinspect/1"
    assert (job["name"], job["command"], job["cluster"]) == ("nap", "sleep 0.5", "test")
    assert job["hosts"] == ["node1"]
    assert job["cpus"] == len(os.sched_getaffinity(0))
    assert job["elapsed_seconds"] == pytest.approx(0.5, abs=0.3)
    assert node["final"]
    assert abs(node["samples"] - node["samples_expected"]) <= 1
    text = site.call("jobinspect", job["jobid"])
    assert "COMPLETED, exit code 0" in text
    assert "sleep 0.5" in text


def test_an_unknown_job_says_what_was_asked_where(site: Site) -> None:
    site.call("rooflight", "run", "--quiet", "--", "true")
    done = site.complete("jobinspect", "4711")
    assert done.returncode == 1
    assert done.stderr.startswith("rooflight: no job 4711 of cluster test in the local store; ")
    assert done.stderr.count("\n") == 1


def test_no_store_yet_is_one_line_with_a_remedy(site: Site) -> None:
    done = site.complete("jobinspect", "4711")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "rooflight.db" in done.stderr


def test_hostile_names_stay_text(site: Site) -> None:
    name = "a,b=c d\"e'f[bold]\\ \t;DROP TABLE job"
    site.call("rooflight", "run", "--name", name, "--", "true")
    assert site.report()["job"]["name"] == name


def test_a_name_that_commands_a_terminal_or_is_no_text_is_shown_as_text(tmp_path: Path) -> None:
    site = Site(tmp_path, 'store = "local"')
    name = os.fsdecode(b"\x1b]0;owned\x07 \xc2\x9b31m \xe2\x80\xae \xff")
    shown = site.call("rooflight", "run", "--interval", "0.1", "--name", name, "--", "true", name)
    told = site.call("jobinspect", "last", "--json")
    for text in (shown, told):
        assert text.replace("\n", "").isprintable()
    assert json.loads(told)["job"]["name"] == "\x1b]0;owned\x07 \x9b31m \u202e ?"
    missing = site.complete("jobinspect", os.fsdecode(b"\xff\x1b[2J"))
    assert missing.returncode == 1
    assert (
        missing.stderr == "rooflight: no job \\udcff\\x1b[2J of cluster test in the local store\n"
    )
