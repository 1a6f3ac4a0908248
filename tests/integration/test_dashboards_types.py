"""The dashboards held against Grafana's own types: TypeScript's, and those of its Python SDK.

Neither is a Grafana, and neither is needed to run rooflight: both come into the user's cache.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dashboards.pages import all_dashboards

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rooflight-tests"
SDK = "grafana-foundation-sdk==0.0.21"  # without a number pip would take the one for Grafana 10
SCHEMA = ("@grafana/schema@13.2.3", "typescript@7.0.2")

SETTINGS = {
    "noEmit": True,
    "strict": True,
    "skipLibCheck": True,
    "module": "esnext",
    "moduleResolution": "bundler",
    "target": "es2022",
    "types": [],
}
# Enums take no plain text, and the query of an annotation belongs to the data source's own type.
TYPES = """
import type { AnnotationQuery, Dashboard } from "@grafana/schema";
type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Annotation = Omit<Plain<AnnotationQuery>, "target"> & { target: Record<string, unknown> };
type Ours = Omit<Plain<Dashboard>, "annotations"> & { annotations: { list: Annotation[] } };
"""

PLUGINS = {
    "timeseries": "timeseries/TimeSeries",
    "stat": "stat/Stat",
    "table": "table/Table",
    "heatmap": "heatmap/Heatmap",
    "state-timeline": "statetimeline/StateTimeline",
    "bargauge": "bargauge/BarGauge",
    "xychart": "xychart/XYChart",
}
"""Panel type -> where its options are described."""

WITHOUT_FIELDS = ("stat", "bargauge")

ROUND_TRIP = """
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
models = map(Dashboard.from_json, json.load(sys.stdin))
print(json.dumps([json.loads(JSONEncoder().encode(model)) for model in models]))
"""


def fetched(folder: Path, command: list[str]) -> Path:
    """Return a folder that a package manager has filled, or skip the test."""
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"{command[0]} could not fetch it: {done.stderr.strip()[-200:]}")
        (folder / "complete").touch()
    return folder


@pytest.fixture(scope="module")
def schema() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: Grafana's TypeScript types are not asked")
    return fetched(CACHE / SCHEMA[0], ["npm", "install", "--silent", "--no-audit", *SCHEMA])


def complaints(schema: Path, folder: Path, files: Mapping[str, str]) -> list[str]:
    """Return what TypeScript has against files, each line beginning with a file's name."""
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": SETTINGS}))
    (folder / "node_modules").symlink_to(schema / "node_modules")
    for name, text in files.items():
        (folder / f"{name}.ts").write_text(TYPES + text)
    compiler = schema / "node_modules" / ".bin" / "tsc"
    done = subprocess.run(
        [compiler, "-p", "."], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done.stdout.splitlines()


def typed(model: object) -> str:
    return f"export const dashboard: Ours = {json.dumps(model)};\n"


def typed_options() -> str:
    """Return every panel's options as its own plugin describes them."""
    lines = []
    for kind, plugin in PLUGINS.items():
        folder, name = plugin.split("/")
        path = f"@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{name}PanelCfg"
        lines.append(f'import type * as {name} from "./node_modules/{path}_types.gen";')
        # the plugin of state timelines has this, and its description has not
        more = " & { spanNulls?: number }" if kind == "state-timeline" else ""
        for options, custom in sorted(set(_options(kind))):
            lines.append(f"export const o{len(lines)}: Partial<Plain<{name}.Options>> = {options};")
            if kind not in WITHOUT_FIELDS:
                fields = f"Partial<Plain<{name}.FieldConfig{more}>>"
                lines.append(f"export const f{len(lines)}: {fields} = {custom};")
    return "\n".join(lines)


def _options(kind: str) -> Iterator[tuple[str, str]]:
    for dashboard in all_dashboards():
        for _, panel in dashboard.panels():
            if panel.kind == kind:
                yield json.dumps(panel.options), json.dumps(panel.defaults.get("custom", {}))


def test_grafana_s_types_know_every_key(schema: Path, tmp_path: Path) -> None:
    models = {dashboard.page: dashboard.model() for dashboard in all_dashboards()}
    misspelt = json.loads(json.dumps(models["cluster"]))
    misspelt["panels"][1]["gridPoz"] = misspelt["panels"][1].pop("gridPos")
    misspelt["schemaVersion"] = "41"
    files = {page: typed(model) for page, model in models.items()}
    files |= {"misspelt": typed(misspelt), "options": typed_options()}
    found = complaints(schema, tmp_path, files)
    assert [line for line in found if not line.startswith(("misspelt", " "))] == []
    words = "\n".join(found)
    assert "gridPoz" in words
    assert "not assignable to type 'number'" in words


def test_the_sdk_reads_and_writes_them_without_loss() -> None:
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    folder = CACHE / SDK
    fetched(folder, [*pip, "--target", str(folder), SDK])
    models = [json.loads(json.dumps(each.model())) for each in all_dashboards()]
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        input=json.dumps(models),
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for before, after in zip(models, json.loads(done.stdout), strict=True):
        assert list(lost(before, after)) == []


def lost(before: object, after: object, where: str = "") -> Iterator[str]:
    """Yield what is missing or other than before; defaults may have been added."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{where}[{number}]")
    elif before != after:
        yield f"{where}: {before!r} became {after!r}"
