"""The compose file: its form, and that what it mounts is there. No Docker engine runs here."""

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "deploy" / "compose" / "compose.yaml"


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def test_services_have_images_of_a_fixed_release_and_come_back_after_a_boot() -> None:
    services = composed()["services"]
    assert set(services) == {"influxdb", "grafana"}
    for service in services.values():
        assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)+", service["image"])
        assert service["restart"] == "unless-stopped"
    assert set(services["grafana"]["depends_on"]) <= set(services)


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
    assert not re.search(r"\$\{\w+(:-|\})", FILE.read_text())
