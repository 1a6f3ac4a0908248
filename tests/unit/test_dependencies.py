"""What runs on every node besides our own code: named here, so that a newcomer is noticed."""

import importlib.metadata
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ON_EVERY_NODE = {
    "click": "the command line",
    "rich": "the live view, progress and tables; not in the agent",
    "markdown-it-py": "rich",
    "mdurl": "rich",
    "pygments": "rich",
    "msgspec": "configuration, messages and state",
    "nvidia-ml-py": "NVML",
    "psutil": "processes in the live view",
    "influxdb-client": "writing to InfluxDB 2.x and 3.x, and setting it up",
    "certifi": "influxdb-client",
    "python-dateutil": "influxdb-client",
    "reactivex": "influxdb-client",
    "setuptools": "influxdb-client before 1.50",
    "tzdata": "python-dateutil",
    "typing-extensions": "reactivex",
    "urllib3": "HTTP: writes and queries, beside influxdb-client",
}
"""Everything that `pip install rooflight` may bring, and why."""


def closure(name: str) -> set[str]:
    """Return the names of all that a distribution needs here, extras left out."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for text in importlib.metadata.requires(todo.pop()) or []:
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and needed not in found:
                found.add(needed)
                todo.append(needed)
    return found


def test_a_node_gets_what_is_named_here_and_no_more() -> None:
    assert closure("rooflight") <= ON_EVERY_NODE.keys()


def test_what_is_installed_fits_together() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=300
    )
    assert checked.returncode == 0, checked.stdout
