"""`rooflight dashboards publish` through the real grafana-client, into a server that is strict."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.pages import all_dashboards
from dashboards.rules import all_rules
from tests.integration.commands import BIN, Site
from tests.integration.grafana_api import TOKEN, Server

CLIENT = "grafana-client==5.1.4"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands with grafana-client, apart from .venv: it brings a urllib3 that no agent loads.

    A virtual environment that finds the client, and then all that this one finds.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "rooflight-tests" / CLIENT
    if not (folder / "grafana_client").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--target", str(folder), CLIENT], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"{CLIENT} cannot be installed: {done.stderr.strip()[-200:]}")
    return programs(tmp_path_factory.mktemp("venv"), [str(folder), *sys.path])


def programs(folder: Path, paths: list[str]) -> Path:
    """Make a virtual environment that finds modules in `paths`; return its programs' folder."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "paths.pth").write_text("\n".join(filter(os.path.isabs, paths)))
    for name in ("rooflight", "jobinspect"):
        shutil.copy(BIN / name, folder / "bin" / name)
    return folder / "bin"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def site(folder: Path, server: Server, client: Path, influx: str = "") -> Site:
    secret = folder / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    text = f'[grafana]\nurl = "{server.url}"\ntoken_file = "token"\n'
    text += f'[influx]\nurl = "http://influx:8086"\n{influx}\n'
    return Site(folder, text, programs=client)


def test_everything_is_published(tmp_path: Path, server: Server, client: Path) -> None:
    here = site(tmp_path, server, client)
    words = here.call("rooflight", "dashboards", "publish", "--with-datasources").splitlines()
    grafana = server.grafana
    for dashboard in all_dashboards():
        sent = json.loads(json.dumps(dashboard.model()))
        assert grafana.dashboards[dashboard.uid] == sent
        assert f"dashboard {dashboard.title}: {server.url}/d/{dashboard.uid}" in words
    assert set(grafana.dashboards) == {each.uid for each in all_dashboards()}
    assert set(grafana.sources) == {"rooflight", "rooflight-jobs"}
    assert len(grafana.groups["rooflight"]["rules"]) == len(all_rules())


def test_what_is_there_is_brought_up_to_date(tmp_path: Path, server: Server, client: Path) -> None:
    here = site(tmp_path, server, client)
    here.call("rooflight", "dashboards", "publish", "--with-datasources")
    before = list(server.grafana.calls)
    here.call("rooflight", "dashboards", "publish")
    again = server.grafana.calls[len(before) :]
    written = [call for call in again if not call.startswith("GET ")]
    group = "PUT /api/v1/provisioning/folder/rooflight/rule-groups/rooflight"
    assert written == ["POST /api/dashboards/db"] * len(all_dashboards()) + [group]


def test_a_data_source_reads_as_the_configuration_says(
    tmp_path: Path, server: Server, client: Path
) -> None:
    (tmp_path / "influx-token").write_text("secret\n")
    (tmp_path / "influx-token").chmod(0o600)
    influx = 'api = "v2"\ntoken_file = "influx-token"\ndatabase = "m"\njobs_database = "j"'
    here = site(tmp_path, server, client, influx)
    here.call("rooflight", "dashboards", "publish", "--with-datasources")
    here.call("rooflight", "dashboards", "publish", "--with-datasources")  # updates them
    metrics, jobs = (server.grafana.sources[uid] for uid in ("rooflight", "rooflight-jobs"))
    assert (metrics["jsonData"]["dbName"], jobs["jsonData"]["dbName"]) == ("m", "j")
    assert metrics["url"] == "http://influx:8086"
    assert metrics["secureJsonData"] == {"httpHeaderValue1": "Token secret"}


def test_without_data_sources_nothing_is_begun(
    tmp_path: Path, server: Server, client: Path
) -> None:
    done = site(tmp_path, server, client).complete("rooflight", "dashboards", "publish")
    assert done.returncode == 3
    assert "no data source with the uid rooflight" in done.stderr
    assert "--with-datasources" in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.grafana.dashboards == {}


def test_what_is_no_grafana_is_said(tmp_path: Path, server: Server, client: Path) -> None:
    here = site(tmp_path, server, client)
    here.file.write_text(here.file.read_text().replace("/grafana", "/elsewhere"))
    done = here.complete("rooflight", "dashboards", "publish")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "/elsewhere" in done.stderr


def test_a_wrong_token_is_said_in_one_line(tmp_path: Path, server: Server, client: Path) -> None:
    here = site(tmp_path, server, client)
    (tmp_path / "token").write_text("wrong\n")
    done = here.complete("rooflight", "dashboards", "publish")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "Unauthorized" in done.stderr


def test_a_grafana_in_trouble_or_away_is_said_in_one_line(
    tmp_path: Path, server: Server, client: Path
) -> None:
    here = site(tmp_path, server, client)
    server.grafana.broken = True
    done = here.complete("rooflight", "dashboards", "publish")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "database is locked" in done.stderr
    server.close()
    done = here.complete("rooflight", "dashboards", "publish")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "grafana.url is not set"),
        ('[grafana]\nurl = "http://127.0.0.1:9"\n', "no token for Grafana"),
    ],
)
def test_what_is_not_configured_is_said(tmp_path: Path, text: str, words: str) -> None:
    done = Site(tmp_path, text).complete("rooflight", "dashboards", "publish")
    assert done.returncode == 2
    assert words in done.stderr


def test_without_grafana_client_the_remedy_is_said(tmp_path: Path, server: Server) -> None:
    done = site(tmp_path, server, BIN).complete("rooflight", "dashboards", "publish")
    assert done.returncode == 2
    assert "pip install rooflight[grafana]" in done.stderr


def test_build_writes_where_it_is_told(tmp_path: Path) -> None:
    words = Site(tmp_path).call("rooflight", "dashboards", "build", "--to", str(tmp_path / "out"))
    assert len(words.splitlines()) == len(all_dashboards()) + 1
    assert (tmp_path / "out" / "dashboards" / "job.json").is_file()
