"""State of its own for an agent that only looks, or ships elsewhere: the node's is left alone."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.config import Config
from agent.segments import SpoolUnusable

READINGS = ("gpu-roofs.json", "cpu-roofs.json")
"""What labels are made from; the scratch folder begins with a copy."""


@contextlib.contextmanager
def scratch(config: Config) -> Iterator[Config]:
    """Give the configuration with its state and socket in a folder that is removed at the end.

    The embedded store stays where it is: who names it wants it written to.

    Raises:
        SpoolUnusable: there is no room for such a folder.

    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="rooflight-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SpoolUnusable(f"no folder for temporary files: {error}; set TMPDIR") from error
    with folder as name:
        for file in READINGS:
            with contextlib.suppress(OSError):  # none yet, or not for this user to read
                shutil.copyfile(config.state_directory() / file, Path(name) / file)
        socket = str(Path(name) / "agent.sock")
        agent = msgspec.structs.replace(config.agent, state_directory=name, socket=socket)
        local = msgspec.structs.replace(config.local, path=str(config.local_path()))
        yield msgspec.structs.replace(config, agent=agent, local=local)
