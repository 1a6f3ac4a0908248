"""Who may read and write what rooflight writes, whatever the umask of who starts it."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.client import ask
from agent.messages import Ping
from tests.integration.commands import BIN, Site

UMASKS = (0o000, 0o022, 0o077)
ASK = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
    connection.bind("")
    connection.settimeout(10)
    connection.sendto(b'{"type":"ping"}', sys.argv[1])
    print(connection.recv(1000).decode())
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else too")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(folder: Path) -> dict[str, str]:
    """Return what others may do with anything below a folder."""
    return {
        str(path.relative_to(folder)): oct(mode(path))
        for path in [folder, *folder.rglob("*")]
        if mode(path) & 0o077
    }


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may look into; those of pytest are root's alone."""
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def wait_for(socket: Path) -> None:
    deadline = time.monotonic() + 20
    while ask(str(socket), Ping(), 0.2) is None:
        assert time.monotonic() < deadline, "the agent does not answer"


def ask_as_nobody(socket: Path) -> str:
    command = [sys.executable, "-c", ASK, str(socket)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def run_agent(site: Site, socket: Path) -> str:
    """Run an agent that writes of every kind; return what nobody hears from its socket."""
    agent = subprocess.Popen(
        [BIN / "rooflight", "agent", "--interval", "0.1"],
        env=site.variables(),
        umask=site.umask,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(socket)
        site.call("rooflight", "job", "start", "77")
        heard = ask_as_nobody(socket)
        time.sleep(0.5)
    finally:
        agent.terminate()
        agent.communicate(timeout=20)
    return heard


@pytest.mark.parametrize("umask", UMASKS)
def test_what_root_s_agent_writes_is_root_s_alone(shared: Path, umask: int) -> None:
    socket = shared / "run" / "here" / "agent.sock"
    site = Site(shared, agent=f'socket = "{socket}"', umask=umask)
    assert '"ok":true' in run_agent(site, socket)
    assert open_to_others(shared / "state") == {}
    written = {path.name for path in (shared / "state").rglob("*")}
    assert {"spool", "lock", "ledger", "jobs", "77.json", "rooflight.db"} <= written
    assert (mode(shared / "run"), mode(socket.parent)) == (0o755, 0o755)


@pytest.mark.parametrize("umask", UMASKS)
def test_a_socket_in_the_state_folder_is_reached_and_nothing_beside_it_is_read(
    shared: Path, umask: int
) -> None:
    site, state = Site(shared, umask=umask), shared / "state"
    assert '"ok":true' in run_agent(site, state / "agent.sock")
    # to be passed, not to be listed
    assert open_to_others(state) == {".": "0o711", "users": "0o711"}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "state" / "rooflight.db").touch()
    (tmp_path / "state" / "rooflight.db").chmod(0o644)
    Site(tmp_path, umask=0).call("rooflight", "agent", "--interval", "0.1", "--for", "0.5")
    assert mode(tmp_path / "state") == 0o755
    assert mode(tmp_path / "state" / "rooflight.db") == 0o644
    assert mode(tmp_path / "state" / "spool") == 0o700


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o027, 0o750, 0o640), (0, 0o755, 0o644)])
def test_under_a_unit_its_umask_stands_but_for_the_right_to_write(
    tmp_path: Path, umask: int, folder: int, file: int
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    site = Site(tmp_path, umask=umask, environment={"STATE_DIRECTORY": str(state)})
    site.call("rooflight", "agent", "--interval", "0.1", "--for", "0.5")
    assert (mode(state / "jobs"), mode(state / "rooflight.db")) == (folder, file)
    assert mode(state / "spool") == 0o750


def test_a_user_s_state_is_the_user_s_alone(shared: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = shared / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from agent.permissions import keep_private, make_folders\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.umask(0)\n"
        "state = Path(sys.argv[1]) / 'deep' / 'rooflight'\n"
        "keep_private(); make_folders(state, state / 'agent.sock'); (state / 'file').touch()\n"
    )
    subprocess.run([sys.executable, "-c", script, home], check=True, timeout=30)
    assert open_to_others(home / "deep") == {}


def test_a_command_keeps_the_umask_of_who_runs_it(tmp_path: Path) -> None:
    """A group works on its files; what we note of the job is no business of the group."""
    site = Site(tmp_path, umask=0o002)
    site.call("rooflight", "run", "--quiet", "--", "touch", str(tmp_path / "result"))
    assert mode(tmp_path / "result") == 0o664
    assert open_to_others(tmp_path / "state") in ({}, {".": "0o711", "runs": "0o711"})


@pytest.mark.parametrize("umask", UMASKS)
def test_a_store_that_is_set_up_is_private(tmp_path: Path, umask: int) -> None:
    Site(tmp_path, umask=umask).call("rooflight", "store", "setup")
    assert open_to_others(tmp_path / "state") == {}


@pytest.mark.parametrize("umask", UMASKS)
@pytest.mark.parametrize("kind", ["systemd", "slurm"])
def test_rendered_files_have_modes_of_their_own(tmp_path: Path, kind: str, umask: int) -> None:
    site, root = Site(tmp_path, umask=umask), tmp_path / "root"
    for _ in range(2):
        site.call("rooflight", "deploy", "render", "--for", kind, "--into", str(root), "--force")
    found = [root, *root.rglob("*")]
    scripts = [path for path in found if path.suffix == ".sh" or path.is_dir()]
    assert len(found) > 5
    assert {mode(path) for path in scripts} == {0o755}
    assert {mode(path) for path in found if path not in scripts} == {0o644}
    assert not [path for path in found if path.name.endswith(".new")]


def test_a_rendered_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    site, root = Site(tmp_path), tmp_path / "root"
    managed = tmp_path / "managed"
    managed.write_text("old\n")
    place = root / "etc" / "systemd" / "system" / "rooflight-agent.service"
    place.parent.mkdir(parents=True)
    place.symlink_to(managed)
    site.call("rooflight", "deploy", "render", "--for", "systemd", "--into", str(root), "--force")
    assert place.is_symlink()
    assert "[Service]" in managed.read_text()
