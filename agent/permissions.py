"""Who may read what the agent writes: its user alone, unless its unit says otherwise."""

import os
from pathlib import Path

PRIVATE, REACHABLE, OPEN = 0o700, 0o711, 0o755
"""Modes of folders: for their owner; for all who know what is in it; for all."""


def keep_private(given_by_unit: bool | None = None) -> None:
    """Take the rights of others from all that this process makes from now on.

    Under systemd the unit's UMask= stands, except that nobody else may ever write.
    """
    if given_by_unit is None:
        given_by_unit = "STATE_DIRECTORY" in os.environ
    given = os.umask(0o077)
    if given_by_unit:
        os.umask(given | 0o022)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder and those above it that are missing; one that is there keeps its mode.

    Raises:
        OSError: it cannot be made.

    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=mode, exist_ok=True)
        each.chmod(mode)  # whatever the umask


def make_folders(state: Path, socket: Path) -> None:
    """Make the folders of an agent: state is private, and everybody may reach the socket of root's.

    Raises:
        OSError: one cannot be made.

    """
    inside = state in socket.parents
    mode = REACHABLE if inside and os.geteuid() == 0 else PRIVATE
    make_folder(state, mode)
    make_folder(socket.parent, mode if inside else OPEN)
