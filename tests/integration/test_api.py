"""`import rooflight` in users' own Pythons: what it sends, and that it disturbs nothing."""

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import pythons
from tests.integration.commands import Site
from tests.listening import Listener

THIS = Path(sys.executable)

EVERY_WAY = """
import asyncio, threading
import rooflight

with rooflight.phase("with"):
    pass
try:
    with rooflight.phase("raises"):
        raise KeyError
except KeyError:
    pass

@rooflight.phase("function")
def factorial(number, *, one=1):
    "Words."
    return number * factorial(number - 1) if number > one else one

assert (factorial(3), factorial.__name__, factorial.__doc__) == (6, "factorial", "Words.")

@rooflight.phase("coroutine")
async def nap():
    await asyncio.sleep(0.2)
    return 7

async def naps():
    return await asyncio.gather(nap(), nap())

assert asyncio.run(naps()) == [7, 7]

twice = rooflight.phase("again")
with twice, twice:
    pass
threads = [threading.Thread(target=factorial, args=(50,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(tmp_path / "agent.sock")
    yield listening
    listening.close()


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    return {"ROOFLIGHT_SOCKET": str(tmp_path / "agent.sock"), "ROOFLIGHT_JOBID": "run-1"}


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_every_way_to_mark_works_in_every_python(
    version: str, job: dict[str, str], agent: Listener
) -> None:
    done = pythons.run(pythons.python(version), job, "-W", "error", "-c", EVERY_WAY)
    assert (done.returncode, done.stderr) == (0, "")
    found = agent.phases()
    assert {name: point.fields["calls_total"] for name, point in found.items()} == {
        "with": 1, "raises": 1, "function": 3 + 4 * 50, "coroutine": 2, "again": 2,
    }  # fmt: skip
    assert 0.4 <= float(found["coroutine"].fields["duration_seconds"]) < 20
    assert found["with"].tags == {
        "jobid": "run-1", "workload": "user", "phase": "with", "device": "",
    }  # fmt: skip


LOADED = """
import sys
before = set(sys.modules)
import rooflight
print(*set(sys.modules) - before)
"""
OWN = {"rooflight", "rooflight._marks", "rooflight._wire"}


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_it_is_quick_to_import(version: str, job: dict[str, str]) -> None:
    """Under 15 ms where the user may write no byte-code; the machine may be busy now and then."""
    interpreter, variables = pythons.python(version), {**job, "PYTHONPYCACHEPREFIX": "/proc/none"}
    milliseconds: list[float] = []
    while len(milliseconds) < 50 and min(milliseconds, default=99) >= 15:
        done = pythons.run(interpreter, variables, "-X", "importtime", "-c", LOADED)
        assert done.returncode == 0, done.stderr
        (taken,) = re.findall(r"\| +(\d+) \| rooflight$", done.stderr, re.MULTILINE)
        milliseconds.append(int(taken) / 1000)
    assert min(milliseconds) < 15
    assert OWN <= set(done.stdout.split()) <= OWN | {"__future__", "errno", "atexit"}


NOTHING_HAPPENS = """
import os, sys, threading
before = set(sys.modules)
import rooflight
opened = sorted(os.listdir("/proc/self/fd"))

@rooflight.phase("function")
def function():
    with rooflight.phase("with"):
        pass

function()
assert sorted(os.listdir("/proc/self/fd")) == opened
assert "_socket" not in sys.modules
assert function.__closure__ is None  # it is the function itself
"""


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_outside_of_a_job_nothing_happens(version: str) -> None:
    done = pythons.run(pythons.python(version), {}, "-c", NOTHING_HAPPENS)
    assert (done.returncode, done.stderr) == (0, "")


ODD_NAMES = """
import rooflight

class Broken:
    def __str__(self):
        raise ValueError

texts = ["", " ", "a\\nb", "\\udcff", "\\x1b[2J", "x" * 100_000, "\\u202e"]
for name in [*texts, 7, None, b"bytes", Broken(), []]:
    with rooflight.phase(name):
        pass
"""


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_odd_names_are_made_harmless(version: str, job: dict[str, str], agent: Listener) -> None:
    done = pythons.run(pythons.python(version), job, "-bb", "-c", ODD_NAMES)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: each.fields["calls_total"] for name, each in agent.phases().items()} == {
        "(unnamed)": 2, "a b": 1, "?": 2, "?[2J": 1, "x" * 100: 1,
        "7": 1, "None": 1, "bytes": 1, "Broken": 1, "[]": 1,
    }  # fmt: skip


BEGIN = """
import os, sys
import rooflight
with rooflight.phase("first"):
    pass
"""
UNDISTURBED = {
    "no descriptor is left": """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
with rooflight.phase("second"):
    pass
""",
    "all descriptors are closed at its end": """
with rooflight.phase("second"):
    pass
os.closerange(0, 256)
""",
    "it ends at once": """
with rooflight.phase("second"):
    os._exit(0)
""",
    "a child is forked within a block": """
with rooflight.phase("second"):
    if (child := os.fork()) == 0:
        sys.exit()
assert os.waitpid(child, 0)[1] == 0
""",
    "the modules that it still needs are gone": """
sys.path.clear()
sys.path_importer_cache.clear()
with rooflight.phase("second"):
    pass
""",
    "its folder is gone": """
import tempfile
os.chdir(tempfile.mkdtemp())
os.rmdir(os.getcwd())
with rooflight.phase("second"):
    pass
""",
    "a signal interrupts it again and again": """
import signal, time
def handler(*_):
    with rooflight.phase("in the handler"):
        pass
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
until = time.monotonic() + 0.5
while time.monotonic() < until:
    with rooflight.phase("second"):
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "threads mark while it ends": """
import threading
def mark():
    while True:
        with rooflight.phase("second"):
            pass
for _ in range(4):
    threading.Thread(target=mark, daemon=True).start()
""",
    "it ends an entry that was none": """
rooflight.phase("second").__exit__(None, None, None)
""",
}


@pytest.mark.parametrize("case", UNDISTURBED)
@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_a_program_is_not_disturbed(
    version: str, case: str, job: dict[str, str], agent: Listener
) -> None:
    done = pythons.run(pythons.python(version), job, "-c", BEGIN + UNDISTURBED[case])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert agent.phases()["first"].fields["calls_total"] == 1


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_a_program_without_an_agent_is_not_disturbed(version: str, job: dict[str, str]) -> None:
    done = pythons.run(pythons.python(version), job, "-c", EVERY_WAY)
    assert (done.returncode, done.stderr) == (0, "")


CHILDREN = """
import multiprocessing, sys
import rooflight

def work(number):
    with rooflight.phase("child"):
        pass
    with rooflight.phase("last words"):  # within a second after the first: waits for the end
        pass

if __name__ == "__main__":
    with rooflight.phase("parent"):
        context = multiprocessing.get_context(sys.argv[1])
        child = context.Process(target=work, args=(1,))
        child.start()
        child.join()
        sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_children_have_phases_of_their_own(
    version: str, method: str, tmp_path: Path, job: dict[str, str], agent: Listener
) -> None:
    program = tmp_path / "train.py"
    program.write_text(CHILDREN)
    done = pythons.run(pythons.python(version), job, str(program), method)
    assert (done.returncode, done.stderr) == (0, "")
    points = agent.received()
    told = {point.tags["phase"]: point.fields["calls_total"] for point in points}
    assert told == {"parent": 1, "child": 1, "last words": 1}


OTHER_RELEASES = {
    "knows one socket only": ("return (os.path.join(os.path.dirname(path), own), path)",
                              "return (path, path)"),
    "says more of a point": ('"bound":"unknown"', '"bound":"unknown","speed":1'),
    "says more of all": ('{{"type":"points",', '{{"type":"points","release":9,'),
    "says something else": ('"type":"points"', '"type":"marks"'),
    "measures something else": ('"measurement":"phase"', '"measurement":"stage"'),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER_RELEASES)
def test_a_package_of_another_release_is_harmless(other: str, tmp_path: Path) -> None:
    """The agent takes what it knows and goes on, and the program sees nothing of it."""
    shutil.copytree(pythons.API / "rooflight", tmp_path / "other" / "rooflight")
    wire = tmp_path / "other" / "rooflight" / "_wire.py"
    was, becomes = OTHER_RELEASES[other]
    assert was in wire.read_text()
    wire.write_text(wire.read_text().replace(was, becomes))
    (tmp_path / "train.py").write_text(EVERY_WAY)
    each = f'PYTHONPATH="$1" {sys.executable} -S -W error train.py; shift'
    site = Site(tmp_path)
    done = site.complete(
        "rooflight", "run", "--quiet", "--interval", "0.2", "--",
        "sh", "-ec", f'cd "$0"; {each}; {each}',
        str(tmp_path), str(tmp_path / "other"), str(pythons.API),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {phase["phase"] for phase in site.report()["phases"]} >= {"with", "function", "again"}


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_jobinspect_shows_what_a_program_in_the_user_s_python_marked(
    version: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, environment={"PYTHONPATH": str(pythons.API)})
    words = ("--quiet", "--interval", "0.2", "--", str(pythons.python(version)), "-c", EVERY_WAY)
    site.call("rooflight", "run", *words)
    found = {phase["phase"]: phase["calls"] for phase in site.report()["phases"]}
    assert found == {"with": 1, "raises": 1, "function": 203, "coroutine": 2, "again": 2}


def test_an_agent_that_does_not_read_holds_up_nobody(tmp_path: Path, job: dict[str, str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(job["ROOFLIGHT_SOCKET"])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    filler.sendto(b"x", job["ROOFLIGHT_SOCKET"])
        done = pythons.run(THIS, job, "-c", EVERY_WAY)
    assert (done.returncode, done.stderr) == (0, "")
