"""The bundle for nodes without internet: made, installed, upgraded, rolled back and rolled out."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests import pythons
from tests.integration.services import START_SECONDS, free_port
from tests.versions.project import CONSTRAINTS, lines, name_of

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "deploy" / "bundle"
CARELESS = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_USER": "1",
    "PIP_TARGET": "/nowhere",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_CONFIG_FILE": "/nowhere",
    "PYTHONPATH": ".",
    "PYTHONHOME": "/nowhere",
}
"""What an administrator may have set for packages of his own."""

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass(frozen=True)
class Node:
    """A folder that plays a node: where rooflight is, and what reaches it."""

    folder: Path
    ssh: str = ""
    umask: int = 0o022

    @property
    def home(self) -> Path:
        return self.folder / "rooflight"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        careless = CARELESS if Path(command[0]).suffix == ".sh" else {}
        mine = {"ROOFLIGHT_HOME": str(self.home), "SSH": self.ssh, "PYTHON": sys.executable}
        return subprocess.run(
            command,
            env={**os.environ, **careless, **mine},
            cwd=self.folder,
            umask=self.umask,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def release(self) -> str:
        return self.home.readlink().name

    def samples(self) -> bool:
        done = self.run(self.home / "bin" / "rooflight", "agent", "--once", "--store", "stdout")
        return done.returncode == 0 and "\nmemory,cluster=" in f"\n{done.stdout}"


@pytest.fixture(scope="module")
def node(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with the bundle's release, which every test leaves in use."""
    node = Node(tmp_path_factory.mktemp("node"), umask=0o077)
    (node.folder / "typing.py").write_text("raise RuntimeError('of the working directory')\n")
    done = node.run(unpack(bundle, node.folder / "bundle") / "install.sh")
    assert done.returncode == 0, done.stderr
    return node


@pytest.fixture(scope="module")
def later(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later release's bundle, unpacked."""
    return another_release(bundle, tmp_path_factory.mktemp("later") / "bundle")


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


def another_release(archive: Path, folder: Path, *, broken: bool = False) -> Path:
    """Return the same bundle as if of a later version; a broken one brings an agent that ends."""
    bundle = unpack(archive, folder)
    (bundle / "VERSION").write_text("9.9.9\n")
    if broken:
        (wheel,) = (bundle / "wheels").glob("msgspec-*")
        wheel.unlink()
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(bundle)}\n"
        for file in sorted(bundle.rglob("*"))
        if file.is_file() and file.name != "SHA256SUMS"
    ]
    (bundle / "SHA256SUMS").write_text("".join(sums))
    return bundle


def test_a_bundle_is_made_from_a_clone_without_torch() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    planned = subprocess.run(
        ["make", "-n", "bundle"],
        env=own, cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert planned.stdout == "deploy/bundle/make.sh dist\n"


def test_a_bundle_holds_the_pinned_versions_for_everybody_to_read(bundle: Path) -> None:
    pinned = {name_of(each): str(each.specifier)[2:] for each in lines(CONSTRAINTS)}
    with tarfile.open(bundle) as tar:
        members = tar.getmembers()
    wheels = [Path(each.name).name.split("-") for each in members if each.name.endswith(".whl")]
    held = {canonicalize_name(name): version for name, version, *_ in wheels}
    assert held.keys() >= {"rooflight", "msgspec"}
    assert "torch" not in held
    assert all(pinned[name] == held[name] for name in held if name != "rooflight")
    assert all(each.mode & 0o022 == 0 and each.mode & 0o044 == 0o044 for each in members)


def test_a_release_is_upgraded_and_rolled_back_without_an_index(node: Node, later: Path) -> None:
    was = node.release()
    assert node.samples()
    assert replace(node, umask=0).run(later / "install.sh").returncode == 0
    assert node.release().startswith("9.9.9-")
    assert node.run(later / "install.sh", "--rollback").returncode == 0
    assert node.release() == was
    assert node.samples()


def test_all_may_read_a_release_and_only_its_owner_writes_to_it(node: Node, later: Path) -> None:
    """One was installed under umask 077, the other under 000."""
    assert later.exists()
    files = [node.home, *node.home.parent.glob("rooflight-releases/**/*")]
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in files if not path.is_symlink()}
    assert len(modes) > 2000
    assert [path for path, mode in modes.items() if mode & 0o022] == []
    assert [path for path, mode in modes.items() if mode & 0o044 != 0o044] == []
    assert [path for path, mode in modes.items() if path.is_dir() and mode & 0o011 != 0o011] == []


def test_users_get_the_package_of_their_programs_alone(node: Node) -> None:
    """It is in a folder for PYTHONPATH, for every user and every Python, with nothing beside it."""
    folder = node.home / "share" / "python"
    assert [each.name for each in folder.iterdir()] == ["rooflight"]
    source = pythons.API / "rooflight"
    files = {each.name: each.read_bytes() for each in source.iterdir() if each.is_file()}
    installed = [each for each in (folder / "rooflight").iterdir() if each.is_file()]
    assert {each.name: each.read_bytes() for each in installed} == files
    assert all(each.stat().st_mode & 0o444 == 0o444 for each in (folder / "rooflight").rglob("*"))
    marked = "import rooflight; rooflight.phase('x').__enter__(); print(rooflight.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", marked],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{folder}/rooflight/__init__.py\n"


def test_the_wheel_brings_the_package_once_and_the_commands_alone_in_their_python(
    node: Node, tmp_path: Path
) -> None:
    (packages,) = node.home.glob("lib/python3*/site-packages")
    assert (packages / "rooflight" / "py.typed").is_file()
    assert not (packages / "agent" / "api").exists()
    assert not (packages / "agent" / "bin").exists()
    for name in ("agent", "click", "re", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    for command in ("rooflight", "jobinspect"):
        done = node.run("env", f"PYTHONPATH={tmp_path}", node.home / "bin" / command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
    mine = node.run(node.home / "bin" / "python", "-I", "-c", "import rooflight; rooflight.phase")
    assert (mine.returncode, mine.stderr) == (0, "")


def test_a_release_that_does_not_work_leaves_the_one_that_does(
    bundle: Path, node: Node, tmp_path: Path
) -> None:
    was = node.release()
    broken = another_release(bundle, tmp_path / "broken", broken=True)
    done = node.run(broken / "install.sh")
    assert done.returncode != 0
    assert "msgspec" in done.stderr
    assert node.release() == was
    assert node.samples()


def test_a_damaged_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    damaged = unpack(bundle, tmp_path / "bundle")
    (wheel,) = (damaged / "wheels").glob("rooflight-*")
    wheel.write_bytes(wheel.read_bytes()[:-1])
    node = Node(tmp_path)
    done = node.run(damaged / "install.sh")
    assert done.returncode == 1
    assert "the bundle is damaged: copy it again" in done.stderr
    assert not node.home.exists()


def test_a_folder_that_is_not_ours_is_left_alone(later: Path, tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.home.mkdir()
    done = node.run(later / "install.sh")
    assert done.returncode == 1
    assert "is a folder and no link: move it away" in done.stderr


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """The command that reaches a real sshd on loopback, with a key of its own."""
    if SSHD is None or os.geteuid() != 0:
        pytest.skip("needs root and openssh-server")
    folder, port = tmp_path / "ssh", free_port()
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-qN", "", "-t", "ed25519", "-f", folder / name], check=True)
    (folder / "user.pub").rename(folder / "authorized_keys")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    options = f"-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile={os.devnull}"
    command = f"ssh -q -p {port} -i {folder}/user {options}"
    server = subprocess.Popen([SSHD, "-D", "-q", "-f", config])
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([*command.split(), "127.0.0.1", "true"], check=False).returncode != 0:
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.1)
        yield command
    finally:
        server.terminate()
        server.wait()


@pytest.mark.ssh
def test_a_rollout_stops_at_the_first_batch_that_fails(
    bundle: Path, node: Node, later: Path, ssh: str
) -> None:
    """The second host's name is one that nobody can reach."""
    reached, rollout, was = replace(node, ssh=ssh), SCRIPTS / "rollout.sh", node.release()
    assert node.run(later / "install.sh").returncode == 0
    done = reached.run(rollout, bundle, "127.0.0.1", "no-such-host.invalid")
    assert done.returncode == 1
    assert f"127.0.0.1: rooflight: {node.home} is " in done.stdout
    assert "stopped after 1 of 2 nodes" in done.stderr
    assert node.release() == was

    assert reached.run(rollout, "--rollback", "127.0.0.1").returncode == 0
    assert node.release().startswith("9.9.9-")
    assert reached.run(rollout, "--rollback", "127.0.0.1").returncode == 0
    assert node.release() == was


@pytest.mark.ssh
def test_no_other_node_is_touched_when_the_first_one_fails(
    bundle: Path, ssh: str, tmp_path: Path
) -> None:
    untouched = Node(tmp_path, ssh)
    done = untouched.run(SCRIPTS / "rollout.sh", bundle, "no-such-host.invalid", "127.0.0.1")
    assert done.returncode == 1
    assert "stopped at the first node; no other was touched" in done.stderr
    assert not untouched.home.exists()
