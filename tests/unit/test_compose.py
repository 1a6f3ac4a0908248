"""The compose file: its form, that what it mounts is there, and the tokens that are made.

No Docker engine runs here, and no InfluxDB 2: a stand-in for its `influx` notes what it is told.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "deploy" / "compose" / "compose.yaml"


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_services_have_images_of_a_fixed_release_and_come_back_after_a_boot() -> None:
    services = composed()["services"]
    assert set(services) == {"influxdb", "tokens", "grafana"}
    for name, service in services.items():
        assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)+", service["image"])
        assert service["restart"] == ("no" if name == "tokens" else "unless-stopped")
        assert set(service.get("depends_on", ())) <= set(services)
    assert services["grafana"]["depends_on"]["tokens"] == {
        "condition": "service_completed_successfully"
    }


def test_every_mounted_file_is_in_the_repository_and_every_volume_is_declared() -> None:
    for service in composed()["services"].values():
        for source, *_ in (volume.split(":") for volume in service["volumes"]):
            if source.startswith("."):
                assert (FILE.parent / source).exists(), source
            else:
                assert source in composed()["volumes"]


def test_secrets_come_from_the_file_that_the_example_is_for_and_have_no_default() -> None:
    example = FILE.with_name("secrets.env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert asked == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    defaults = set(re.findall(r"\$\{(\w+)(?::-|\})", FILE.read_text()))
    assert defaults == {"BIND"}


def test_ports_are_on_this_machine_alone_unless_it_is_said_otherwise() -> None:
    for service in composed()["services"].values():
        for port in service.get("ports", ()):
            assert re.fullmatch(r"\$\{BIND:-127\.0\.0\.1\}:(\d+):\1", port)


def test_grafana_does_not_hold_the_admin_s_token() -> None:
    services = composed()["services"]
    holders = {name for name, service in services.items() if "ADMIN_TOKEN" in str(service)}
    assert holders == {"influxdb", "tokens"}
    assert "$$(cat /tokens/grafana)" in services["grafana"]["entrypoint"][2]


INFLUX = """#!/bin/sh
echo "$*" >>"$STATE/calls"
[ "$INFLUX_TOKEN" = admins ] || exit 1
case "$1 $2" in
"bucket list") [ -e "$STATE/bucket.$4" ] || exit 1
    printf '[{\n\t"id": "%s",\n\t"orgID": "ffffffffffffffff"\n}]\n' "$(cat "$STATE/bucket.$4")" ;;
"bucket create") printf '%016x' "$(wc -l <"$STATE/calls")" >"$STATE/bucket.$4" ;;
"auth create") printf '{\n\t"id": "0",\n\t"token": "made==%s",\n\t"x": 1\n}\n' "$4" ;;
"v1 dbrp") case $3 in
    list) [ -e "$STATE/dbrp.$5" ] || virtual=', "virtual": true'
        echo "[{ \\"database\\": \\"$5\\"$virtual }]" ;;
    create) touch "$STATE/dbrp.$7" ;;
    esac ;;
esac
"""
"""As `influx` 2.7 answers with --json: indented, and 1 where there is no such bucket."""


class Setup:
    """A folder for tokens, and tokens.sh with a stand-in for `influx`."""

    def __init__(self, folder: Path) -> None:
        self.tokens, self._state, programs = (folder / name for name in ("tokens", "state", "bin"))
        for each in (self.tokens, self._state, programs):
            each.mkdir()
        (programs / "influx").write_text(INFLUX)
        (programs / "influx").chmod(0o755)
        (self._state / "bucket.rooflight").write_text("0123456789abcdef")  # the image made it
        path = f"{programs}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "STATE": str(self._state), "TOKENS": str(self.tokens)}

    def run(self, token: str = "admins") -> tuple[int, list[str]]:
        """Return the exit code and what `influx` was told, if it changes anything."""
        (self._state / "calls").write_text("")
        done = subprocess.run(
            ["sh", FILE.with_name("tokens.sh")],
            env={**self._environment, "INFLUX_TOKEN": token},
            capture_output=True,
            timeout=30,
        )
        calls = (self._state / "calls").read_text().splitlines()
        return done.returncode, [call for call in calls if " create " in call]

    def bucket(self, name: str) -> str:
        return (self._state / f"bucket.{name}").read_text()


def test_agents_may_only_write_and_grafana_only_read(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    code, made = setup.run()
    assert code == 0
    metrics, jobs = setup.bucket("rooflight"), setup.bucket("rooflight_jobs")
    rights = "auth create --description rooflight-{} --{}-bucket {} --{}-bucket {} --json"
    assert made == [
        f"v1 dbrp create --bucket-id {metrics} --db rooflight --rp autogen --default",
        "bucket create --name rooflight_jobs --retention 1095d",
        f"v1 dbrp create --bucket-id {jobs} --db rooflight_jobs --rp autogen --default",
        rights.format("agent", "write", metrics, "write", jobs),
        rights.format("grafana", "read", metrics, "read", jobs),
    ]
    texts = {path.name: path.read_text() for path in setup.tokens.iterdir()}
    assert texts == {"agent": "made==rooflight-agent\n", "grafana": "made==rooflight-grafana\n"}
    assert {path.stat().st_mode & 0o777 for path in setup.tokens.iterdir()} == {0o640}


def test_tokens_that_are_there_stay(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.run()
    (setup.tokens / "agent").write_text("given out already\n")
    assert setup.run() == (0, [])
    assert (setup.tokens / "agent").read_text() == "given out already\n"


def test_without_the_right_to_make_tokens_there_are_none(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    code, _ = setup.run(token="another's")
    assert code != 0
    assert not {"agent", "grafana"} & {path.name for path in setup.tokens.iterdir()}
