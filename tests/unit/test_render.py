"""The files that `rooflight deploy render` writes for a site."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agent.config import load
from agent.deploy_command import home_of
from deploy import render
from deploy.render import HOME, Influx, Site
from tests.integration.commands import BIN
from tests.weather import PATIENCE

INFLUX = Influx("v1", "http://db: 8086", "metrics of c1", "jobs")
SITE = Site("/srv/it's here", ['cluster = "c1"'], "/run/here/agent.sock", INFLUX)


def rendered(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    into = f"--into={folder}/site"
    command = [str(BIN / "rooflight"), "deploy", "render", into, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("kind", render.KINDS)
def test_every_file_names_the_site_s_own_home(kind: str) -> None:
    files = list(render.KINDS[kind](SITE))
    assert files
    assert all(HOME not in file.text for file in files)
    scripts = {file.path for file in files if file.path.endswith(".sh")}
    assert scripts == {file.path for file in files if file.mode == 0o755}


@pytest.mark.parametrize(("api", "secret"), [("v1", "$INFLUX_PASSWORD"), ("v2", "$INFLUX_TOKEN")])
def test_grafana_gets_the_site_s_databases_and_no_secret(api: str, secret: str) -> None:
    files = list(render.grafana(replace(SITE, influx=replace(INFLUX, api=api))))
    (sources,) = (yaml.safe_load(file.text) for file in files if "datasources" in file.path)
    found = {
        source["uid"]: (source["url"], source["jsonData"]["dbName"])
        for source in sources["datasources"]
    }
    assert found == {
        "rooflight": ("http://db: 8086", "metrics of c1"),
        "rooflight-jobs": ("http://db: 8086", "jobs"),
    }
    assert all(secret in str(source["secureJsonData"]) for source in sources["datasources"])
    pages = [file for file in files if file.path.startswith("etc/grafana/dashboards/")]
    assert len(pages) == 6
    with pytest.raises(ValueError, match='set store = "influx"'):
        list(render.grafana(replace(SITE, influx=None)))


def test_the_hooks_settings_are_shell(tmp_path: Path) -> None:
    (settings,) = (file for file in render.slurm(SITE) if file.path.endswith("hook.conf"))
    (tmp_path / "hook.conf").write_text(settings.text)
    shown = subprocess.run(
        ["sh", "-c", '. ./hook.conf; echo "$ROOFLIGHT_HOME|$ROOFLIGHT_SOCKET"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "/srv/it's here|/run/here/agent.sock\n"


@pytest.mark.skipif(shutil.which("modulecmd") is None, reason="no Environment Modules here")
def test_the_modulefile_puts_the_package_before_the_user_s_own_paths(tmp_path: Path) -> None:
    (file,) = render.modules(SITE)
    (tmp_path / "rooflight").write_text(file.text)
    load = 'eval "$(modulecmd sh load rooflight)"; printf %s "$PYTHONPATH"'
    told = subprocess.run(
        ["sh", "-ec", load],
        env={"PATH": os.defpath, "MODULEPATH": str(tmp_path), "PYTHONPATH": "/mine"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("/srv/it's here/share/python:/mine", "")


def test_the_configuration_that_is_written_is_the_one_that_was_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'cluster = "quotes \\" and \\\\ and \\u00e9"\nstore = "influx"\n'
        '[influx]\nurl = "http://db:8086"\ntoken_file = "token"\n'
        '[probes]\ntempdisk_paths = ["/x"]\n'
    )
    assert rendered(tmp_path, "--for=systemd", f"--config={mine}").returncode == 0
    written = load(tmp_path / "site/etc/rooflight/rooflight.toml").config
    read = load(mine).config
    assert written.cluster == read.cluster
    assert written.influx == read.influx
    assert written.probes == read.probes
    assert written.agent.socket == "/run/rooflight/agent.sock"
    assert written.agent.state_directory == "/var/lib/rooflight"


def test_what_the_site_has_changed_is_not_overwritten(tmp_path: Path) -> None:
    assert rendered(tmp_path, "--for=systemd").returncode == 0
    unit = tmp_path / "site/etc/systemd/system/rooflight-agent.service"
    config = tmp_path / "site/etc/rooflight/rooflight.toml"
    before = unit.read_text()
    unit.write_text("mine")
    config.write_text("# mine\n")

    again = rendered(tmp_path, "--for=systemd")
    assert again.returncode == 1
    assert f"{unit} is there and differs" in again.stderr
    assert unit.read_text() == "mine"

    forced = rendered(tmp_path, "--for=systemd", "--force")
    assert forced.returncode == 0
    assert unit.read_text() == before
    assert config.read_text() == "# mine\n"
    assert "kept as it is" in forced.stdout


def test_a_release_is_named_by_the_link_that_outlives_it(tmp_path: Path) -> None:
    release, other = tmp_path / "1.0", tmp_path / "2.0"
    release.mkdir()
    other.mkdir()
    (tmp_path / "rooflight").symlink_to(release)
    assert home_of(release, tmp_path / "rooflight") == tmp_path / "rooflight"
    assert home_of(other, tmp_path / "rooflight") == other
    assert home_of(Path(sys.prefix), tmp_path / "none") == Path(sys.prefix)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = rendered(tmp_path, "--for=systemd", "--into=/proc/site")
    assert done.returncode == 2
    assert done.stderr.startswith("rooflight: cannot write /proc/site")
    assert done.stderr.count("\n") == 1
