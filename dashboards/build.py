"""Write dashboards and alert rules as the files that Grafana is provisioned with.

What is written is committed, so that a site can take it as it is; a test holds the two together.
"""

import json
from pathlib import Path

from dashboards.alerts import provisioned
from dashboards.pages import all_dashboards
from dashboards.rules import all_rules

COMMITTED = Path(__file__).parent / "grafana"

ALERTING = "alerting/rooflight.json"


def built() -> dict[str, str]:
    """Return the text of every file, by its path."""
    dashboards = all_dashboards()
    files = {f"dashboards/{each.page}.json": _json(each.model()) for each in dashboards}
    return {**files, ALERTING: _json(provisioned(all_rules(), dashboards))}


def write(folder: Path) -> list[Path]:
    """Write every file below a folder; return their paths."""
    paths = []
    for name, text in built().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _json(model: object) -> str:
    return json.dumps(model, indent=1, ensure_ascii=False) + "\n"
