"""How much space folders hold, hostile ones among them, against `du`."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from probes.diskusage import ENTRIES_PER_LOOK, MOST_DEEP, TreeWalk, Usage, found, own_space

BLOCK = 4096


def still() -> float:
    return 0.0


def walk(path: Path, clock: Callable[[], float] = still) -> TreeWalk:
    with found(path.parent, [path.name]) as folder:
        return TreeWalk(folder, clock)


def whole(path: Path) -> Usage:
    walked = walk(path)
    assert walked.advance(1.0)
    return walked.usage()


def du(path: Path) -> int:
    """Return what coreutils count, on this file system alone."""
    command = ["du", "--summarize", "--one-file-system", "--block-size=1", str(path)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout.split()[0])


def fill(path: Path, size: int = 3 * BLOCK) -> Path:
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with about everything that a file system knows."""
    top = tmp_path / "job"
    (top / "a" / "b").mkdir(parents=True)
    os.link(fill(top / "a" / "one"), top / "a" / "b" / "other")
    os.truncate(fill(top / "sparse"), 1 << 30)
    (top / "out").symlink_to("/usr")
    (top / "loop").symlink_to(top)
    os.mkfifo(top / "fifo")
    fill(Path(os.fsdecode(os.fsencode(top) + b"/\xff\n\xfe")))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(top / "socket"))
    fill(tmp_path / "outside", 1 << 20)
    return top


def test_a_walk_counts_what_du_counts(tree: Path) -> None:
    assert whole(tree) == Usage(du(tree), "walk", whole=True)


def test_a_file_with_names_elsewhere_counts_by_its_share(tree: Path) -> None:
    before = whole(tree).held_bytes
    os.link(tree.parent / "outside", tree / "inside")
    grown = whole(tree).held_bytes - before
    assert grown == pytest.approx((tree.parent / "outside").stat().st_blocks * 512 / 2, abs=BLOCK)


def test_a_walk_stays_on_its_file_system() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as big:  # a mount below /dev
        big.write(bytes(8 << 20))
        big.flush()
        assert whole(Path("/dev")).held_bytes < 8 << 20


def test_a_walk_goes_on_where_it_was(tree: Path) -> None:
    for number in range(5 * ENTRIES_PER_LOOK):
        (tree / f"file{number}").touch()
    ticks = count()
    walked = walk(tree, lambda: next(ticks) * 1.0)
    slices = 1
    while not walked.advance(0.5):
        assert not walked.usage().whole
        slices += 1
    assert slices >= 5
    assert walked.usage() == Usage(du(tree), "walk", whole=True)


def test_files_that_vanish_and_come_meanwhile_do_no_harm(tree: Path) -> None:
    for number in range(10 * ENTRIES_PER_LOOK):
        (tree / "a" / f"file{number}").touch()
    ticks = count()
    walked = walk(tree, lambda: next(ticks) * 1.0)
    for number in range(10 * ENTRIES_PER_LOOK):
        walked.advance(0.5)
        (tree / "a" / f"file{number}").unlink()
        (tree / f"new{number}").touch()
    subprocess.run(["rm", "-rf", str(tree)], check=True)
    assert walked.advance(1e9)
    assert walked.usage().whole


def test_nesting_without_end_is_entered_so_far_and_no_further(tmp_path: Path) -> None:
    """The whole path is longer than the kernel takes at once."""
    top = tmp_path / "job"
    top.mkdir()
    below = os.open(top, os.O_RDONLY)
    for _ in range(2 * MOST_DEEP):
        name = "n" * 40
        os.mkdir(name, dir_fd=below)
        deeper = os.open(name, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    seen = whole(top)
    assert not seen.whole
    assert seen.held_bytes <= du(top)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_walk_that_is_given_up_lets_go_of_everything(tree: Path) -> None:
    before = descriptors()
    ticks = count()
    walked = walk(tree, lambda: next(ticks) * 1.0)
    walked.advance(0.5)
    walked.close()
    assert descriptors() == before


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user whom permissions hold back, if we are not."""
    was = os.geteuid()
    os.seteuid(65534 if was == 0 else was)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_what_may_not_be_read_makes_it_at_least(open_tmp: Path) -> None:
    top = open_tmp / "job"
    (top / "closed").mkdir(parents=True)
    fill(top / "open")
    fill(top / "closed" / "hidden", 1 << 20)
    (top / "closed").chmod(0)
    with nobody():
        seen = whole(top)
    (top / "closed").chmod(0o700)
    assert not seen.whole
    assert 3 * BLOCK <= seen.held_bytes < 1 << 20


def test_a_closed_folder_still_tells_whose_it_is(open_tmp: Path) -> None:
    (open_tmp / "job").mkdir()
    (open_tmp / "job").chmod(0)
    with nobody(), found(open_tmp, ["job"]) as folder:
        assert folder.owner == (open_tmp / "job").stat().st_uid
        assert own_space(folder) is None
        with pytest.raises(PermissionError):
            TreeWalk(folder, still)
    (open_tmp / "job").chmod(0o700)


def test_no_link_is_followed_below_the_top(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    for names in (["link"], ["link", "a"]):
        with pytest.raises(NotADirectoryError), found(tree.parent, names):
            pass
    with found(tree.parent / "link", ["a"]) as folder:  # the administrator's may be one
        assert folder.owner == os.geteuid()


def test_a_file_is_no_folder(tree: Path) -> None:
    with pytest.raises(NotADirectoryError), found(tree, ["sparse"]):
        pass


def test_a_folder_with_a_file_system_of_its_own_needs_no_walk() -> None:
    with found(Path("/"), ["proc"]) as folder:
        assert own_space(folder) == Usage(0.0, "mount")


def space(blocks: int, free: int) -> os.statvfs_result:
    return os.statvfs_result((BLOCK, BLOCK, blocks, free, free, 0, 0, 0, 0, 255))


@pytest.mark.parametrize(
    ("itself", "parent", "usage"),
    [
        (space(100, 30), space(10_000, 500), Usage(70.0 * BLOCK, "quota")),
        (space(100, 0), space(10_000, 500), Usage(100.0 * BLOCK, "quota", whole=False)),
        (space(100, 30), space(100, 30), None),  # the quota is that of the folder above
        (space(10_000, 500), space(10_000, 500), None),
        (space(10_000, 500), space(100, 30), None),
    ],
)
def test_a_project_s_limit_shows_in_what_statvfs_says(
    tree: Path, itself: os.statvfs_result, parent: os.statvfs_result, usage: Usage | None
) -> None:
    with found(tree.parent, [tree.name]) as folder:
        answers = {folder.itself: itself, folder.parent: parent}
        assert own_space(folder, answers.__getitem__) == usage
