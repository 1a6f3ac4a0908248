"""What holds for all tests: where every service is required, leaving one out is a failure."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.integration import browser, services
from tests.slurm.bed import Bed, bed

# threads of torch that wait for each other at every layer would spin, each for its whole share of a
# processor that others want, too: with four other programs on two CPUs a run takes 50 times as long
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# several tests hand files to other users, whatever umask the one who runs them has
os.umask(0o022)

# how long an example takes is the machine's affair; CI tries the same examples each time, so that
# a failure there is the change's, and every other run tries new ones
settings.register_profile(
    "rooflight",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rooflight")

SERVICE_MARKERS = (
    *("influxd", "victoria", "workloads", "systemd", "vm", "slurm", "ssh", "cc"),
    "chromium",
    "mount",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = os.environ.get("ROOFLIGHT_REQUIRE_SERVICES") == "1"
    if required and report.skipped and any(map(item.get_closest_marker, SERVICE_MARKERS)):
        report.outcome = "failed"
        report.longrepr = f"left out, and ROOFLIGHT_REQUIRE_SERVICES=1: {report.longrepr}"
    return report


@contextlib.contextmanager
def _or_skip(service: AbstractContextManager[services.Service]) -> Iterator[services.Service]:
    """Skip the test if the server is missing; the hook above fails it where it must not be."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(service)
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield running


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Service]:
    """An InfluxDB 1.x for all tests: each takes databases of its own."""
    with _or_skip(services.influxd(tmp_path_factory.mktemp("influxd"))) as service:
        yield service


@pytest.fixture
def own_influxd(tmp_path: Path) -> Iterator[services.Service]:
    """An InfluxDB 1.x that a test may kill; it takes requests up to 20 kB."""
    with _or_skip(services.influxd(tmp_path, body_limit=20_000)) as service:
        yield service


@pytest.fixture
def locked_influxd(tmp_path: Path) -> Iterator[services.Service]:
    """An InfluxDB 1.x that asks for a password."""
    with _or_skip(services.influxd(tmp_path, auth=True)) as service:
        yield service


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle for nodes without internet, made once for all tests, by a careless administrator.

    Of what is set here, nothing must get into it or keep it from being made.
    """
    folder = tmp_path_factory.mktemp("dist")
    careless = {"PIP_USER": "1", "PIP_PREFIX": "/nowhere", "PYTHONPATH": "/nowhere"}
    made = {**os.environ, **careless, "PYTHON": sys.executable}
    script = services.DROP_IN.parents[1] / "bundle" / "make.sh"
    subprocess.run([script, folder], env=made, check=True, timeout=180, umask=0o077)
    (found,) = folder.glob("rooflight-*.tar.gz")
    return found


@pytest.fixture(scope="session")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Service]:
    """A VictoriaMetrics for all tests."""
    with _or_skip(services.victoria(tmp_path_factory.mktemp("victoria"))) as service:
        yield service


@pytest.fixture(scope="session")
def slurm() -> Iterator[Bed]:
    """A Slurm of four nodes for all tests."""
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(bed())
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield cluster


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A Chromium for all tests: each opens pages of its own, at a size of its own."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(browser.browser(tmp_path_factory.mktemp("chromium")))
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield running
