"""A look at a node, or another store for a while, leaves the node's own agent alone."""

import json
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.client import ask
from agent.lineprotocol import parse
from agent.messages import Ping
from tests.integration.commands import Site
from tests.integration.services import Service, free_port

OLD = Path(__file__).parents[1] / "data" / "state_0_1"


def away() -> str:
    """Return the settings of a store that does not answer."""
    return f'store = "influx"\n[influx]\nurl = "http://127.0.0.1:{free_port()}"\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A node with a backlog and jobs, whose store is away; what is temporary lies in `tmp`.

    Jobs that a Slurm of this machine runs are not its own.
    """
    shutil.copytree(OLD, tmp_path / "state")
    (tmp_path / "state" / "runs" / "run-1").mkdir(parents=True)
    shutil.copytree(OLD / "spool", tmp_path / "state" / "runs" / "run-1" / "spool")
    (tmp_path / "tmp").mkdir()
    return Site(
        tmp_path,
        f'{away()}[slurm]\nnode = "node1"\n',
        environment={"TMPDIR": str(tmp_path / "tmp")},
    )


def everything(site: Site) -> dict[str, bytes]:
    """Return what is in the state folder."""
    files = (path for path in (site.folder / "state").rglob("*") if path.is_file())
    return {str(path.relative_to(site.folder)): path.read_bytes() for path in files}


@contextmanager
def agent(site: Site) -> Iterator[subprocess.Popen[str]]:
    """Run the node's own agent, which samples seldom: what a tick writes is not at stake."""
    running = site.start("rooflight", "agent", "--interval", "600")
    try:
        deadline = time.monotonic() + 20
        while ask(str(site.folder / "state" / "agent.sock"), Ping()) is None:
            assert time.monotonic() < deadline, "the agent does not answer"
        yield running
    finally:
        running.terminate()
        _, words = running.communicate(timeout=20)
        print(words)


def hears(site: Site) -> bool:
    return ask(str(site.folder / "state" / "agent.sock"), Ping()) is not None


LOOKS = [
    (("agent", "--once", "--store", "stdout"), 0),
    (("agent", "--once"), 3),
    (("agent", "--once", "--store", "influx"), 3),
    (("agent", "--once", "--store", "local"), 0),
    (("agent", "--store", "stdout", "--for", "0.5", "--interval", "0.2"), 0),
    (("run", "--store", "stdout", "--", "true"), 0),
]


@pytest.mark.parametrize(("command", "code"), LOOKS, ids=lambda each: str(each))
def test_the_state_of_a_node_stays_as_it_is(
    site: Site, command: tuple[str, ...], code: int
) -> None:
    before = everything(site)
    done = site.complete("rooflight", *command)
    assert done.returncode == code, done.stderr
    after = everything(site)
    assert {name: after.get(name) for name in before} == before
    others = {name for name in after.keys() - before.keys() if "rooflight.db" not in name}
    assert others == set()
    assert list((site.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize(("command", "code"), LOOKS[:5], ids=lambda each: str(each))
def test_a_running_agent_does_not_notice(site: Site, command: tuple[str, ...], code: int) -> None:
    with agent(site):
        kept = everything(site)
        done = site.complete("rooflight", *command)
        assert done.returncode == code, done.stderr
        assert hears(site)
        after = everything(site)
        segments = [name for name in kept if name.endswith(".lp")]
        assert len(segments) >= 4  # with those that the run left, which the agent took over
        assert all(after[name].startswith(kept[name]) for name in segments)
        assert after["state/spool/ledger"] == kept["state/spool/ledger"]


def test_one_look_prints_one_tick_and_none_of_the_backlog(site: Site) -> None:
    printed = site.call("rooflight", "agent", "--once", "--store", "stdout")
    points = list(parse(printed))
    assert len({point.time_ms for point in points}) == 1
    assert points[0].time_ms == pytest.approx(time.time() * 1000, abs=60_000)
    assert {"cpu", "memory", "agent"} <= {point.measurement for point in points}
    assert not {point.measurement for point in points} & {"job", "job_footprint", "job_cgroup"}


def test_a_look_for_a_store_that_is_away_says_so_in_one_line(site: Site) -> None:
    done = site.complete("rooflight", "agent", "--once")
    (said,) = (line for line in done.stderr.splitlines() if " is off: " not in line)
    assert said.startswith("rooflight: http://127.0.0.1:")
    assert done.returncode == 3


@pytest.mark.influxd
def test_a_look_ships_to_the_configured_store(influxd: Service, tmp_path: Path) -> None:
    text = f'store = "influx"\n[influx]\nurl = "{influxd.url}"\n'
    names = 'database = "look"\njobs_database = "look_jobs"\n'
    site = Site(tmp_path, text + names)
    site.call("rooflight", "store", "setup")
    site.call("rooflight", "agent", "--once")
    words = urllib.parse.urlencode({"db": "look", "q": "SELECT used_bytes FROM memory"})
    with urllib.request.urlopen(f"{influxd.url}/query?{words}") as answer:
        (series,) = json.load(answer)["results"][0]["series"]
    assert len(series["values"]) == 1
    assert not (tmp_path / "state").exists()


def test_what_another_store_does_not_take_is_said_to_be_lost(tmp_path: Path) -> None:
    text = f'[influx]\nurl = "http://127.0.0.1:{free_port()}"\n'
    done = Site(tmp_path, text).complete(
        "rooflight", "agent", "--store", "influx", "--for", "0.5", "--interval", "0.2"
    )
    assert done.returncode == 3
    assert "the influx store did not take everything" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "state").exists()


def test_a_look_needs_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    printed = Site(tmp_path).call("rooflight", "agent", "--once", "--store", "stdout")
    assert "\nmemory,cluster=" in f"\n{printed}"


def test_a_look_that_is_ended_leaves_nothing_behind(site: Site) -> None:
    looking = site.start("rooflight", "agent", "--once", "--store", "stdout")
    deadline = time.monotonic() + 20
    while not list((site.folder / "tmp").glob("rooflight-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    looking.send_signal(signal.SIGTERM)
    looking.communicate(timeout=20)
    assert list((site.folder / "tmp").iterdir()) == []
