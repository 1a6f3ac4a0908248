"""An agent whose spool cannot be used at the moment of its start."""

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.client import ask
from agent.messages import Ping
from tests.integration.commands import Site
from tests.weather import PATIENCE, wait_until

WAITS = "rooflight: waiting 5 s for the spool: "


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Hold the spool as an agent does that answers no more and ships its last."""
    spool = site.folder / "state" / "spool"
    spool.mkdir(parents=True)
    with (spool / "lock").open("w") as file:
        file.write("4711\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def not_there(site: Site) -> Iterator[None]:
    """Have something else where the folder will be."""
    (site.folder / "state").touch()
    yield
    (site.folder / "state").unlink()


def answers(site: Site) -> bool:
    return ask(str(site.folder / "state" / "agent.sock"), Ping(), 0.2) is not None


TROUBLES = [(locked, "is in use by another agent (process 4711)"), (not_there, "Not a directory")]


@pytest.mark.parametrize(("trouble", "words"), TROUBLES)
def test_a_spool_that_is_unusable_for_a_moment_is_waited_for(
    site: Site, trouble: Callable[[Site], Iterator[None]], words: str
) -> None:
    with trouble(site):  # type: ignore[attr-defined]
        agent = site.start("rooflight", "agent", "--interval", "0.1")
        time.sleep(2.0)
        assert agent.poll() is None
    wait_until(lambda: answers(site))
    agent.terminate()
    _, said = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0
    (waited,) = (line for line in said.splitlines() if "waiting" in line)
    assert waited.startswith(WAITS)
    assert words in waited


@pytest.mark.parametrize(("trouble", "words"), TROUBLES)
def test_who_starts_an_agent_by_hand_hears_soon_that_it_cannot(
    site: Site, trouble: Callable[[Site], Iterator[None]], words: str
) -> None:
    begun = time.monotonic()
    with trouble(site):  # type: ignore[attr-defined]
        done = site.complete("rooflight", "agent", "--for", "1")
    assert 5.0 <= time.monotonic() - begun < 15.0
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


def test_an_agent_that_answers_is_not_waited_for(site: Site) -> None:
    first = site.start("rooflight", "agent", "--interval", "0.1")
    wait_until(lambda: answers(site))
    begun = time.monotonic()
    second = site.complete("rooflight", "agent", "--for", "1")
    assert time.monotonic() - begun < 5.0
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert answers(site)
    first.terminate()
    first.communicate(timeout=PATIENCE)


@pytest.mark.timeout(120)
def test_a_service_tells_systemd_that_it_waits_and_ends_so_that_it_is_started_again(
    site: Site, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, locked(site):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        service = Site(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        begun = time.monotonic()
        agent = service.start("rooflight", "agent")
        status, extend = systemd.recv(4096).decode().splitlines()
        assert status.startswith("STATUS=waiting: ")
        assert "in use by another agent" in status
        assert extend == "EXTEND_TIMEOUT_USEC=30000000"
        _, said = agent.communicate(timeout=60)
    assert agent.returncode == 3  # the unit does not start it again for 2
    assert 30.0 <= time.monotonic() - begun < 50.0
    assert said.count("\n") == 2  # what is waited for, and that it was in vain


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_disk_that_is_read_only_for_a_moment_is_waited_for(site: Site) -> None:
    folder = site.folder / "state"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=4m", "tmpfs", folder], check=True)
    try:
        agent = site.start("rooflight", "agent", "--interval", "0.1")
        time.sleep(1.5)
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        wait_until(lambda: answers(site))
        agent.terminate()
        _, said = agent.communicate(timeout=PATIENCE)
        assert said.count(f"{WAITS}{folder}") == 1
        assert agent.returncode == 0
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_wrong_configuration_is_not_waited_for(tmp_path: Path) -> None:
    site = Site(tmp_path, "intervall_seconds = 1", environment={"NOTIFY_SOCKET": "/nowhere"})
    done = site.complete("rooflight", "agent")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_two_agents_with_one_socket_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    sites = [Site(tmp_path / name, agent='socket = "../agent.sock"') for name in ("one", "two")]
    first = sites[0].start("rooflight", "agent", "--interval", "0.1")
    path = str(tmp_path / "agent.sock")
    wait_until(lambda: ask(path, Ping(), 0.2))
    second = sites[1].complete("rooflight", "agent", "--interval", "0.1")
    assert second.returncode == 2
    assert f"{path}: another agent answers there" in second.stderr
    assert ask(path, Ping(), PATIENCE) is not None
    first.terminate()
    first.communicate(timeout=PATIENCE)
