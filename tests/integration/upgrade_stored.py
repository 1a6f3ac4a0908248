"""Runs inside the machine of upgrade_story.sh: what of a backlog is stored, and how jobs ended."""

import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from agent.lineprotocol import Point, parse
from probes.catalogue import CATALOGUE


def series(database: str, query: str) -> list[dict[str, Any]]:
    words = urllib.parse.urlencode({"db": database, "q": query, "epoch": "ms"})
    with urllib.request.urlopen(f"http://127.0.0.1:8086/query?{words}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["results"][0].get("series", [])
    return found


def key(name: str, tags: dict[str, str], time_ms: int) -> tuple[object, ...]:
    return name, tuple(sorted((tag, text) for tag, text in tags.items() if text)), time_ms


def stored(name: str, database: str) -> set[tuple[object, ...]]:
    found = series(database, f'SELECT * FROM "{name}" GROUP BY *')
    return {key(name, each["tags"], row[0]) for each in found for row in each["values"]}


def whole_points(folder: Path) -> list[Point]:
    texts = [file.read_text() for file in sorted(folder.glob("*-*.lp"))]
    return [point for text in texts for point in parse(text[: text.rfind("\n") + 1])]


def main() -> None:
    points = whole_points(Path(sys.argv[1]))
    wanted = {key(point.measurement, dict(point.tags), point.time_ms) for point in points}
    databases = {"metrics": "rooflight", "jobs": "rooflight_jobs"}
    names = {point.measurement for point in points}
    there = set().union(*(stored(n, databases[CATALOGUE[n].database.value]) for n in names))
    print("stored", len(wanted & there), len(wanted), len(points))
    for job in ("burn", "4711", "4712_3"):
        for name in ("job_footprint", "job_gpu_footprint"):
            query = f"SELECT * FROM \"{name}\" WHERE jobid = '{job}' GROUP BY *"
            for each in series("rooflight_jobs", query):
                row = dict(zip(each["columns"], each["values"][0], strict=True))
                row = {field: value for field, value in row.items() if value is not None}
                print(f"{name}.{job}{each['tags'].get('gpu', '')}", json.dumps(row))


if __name__ == "__main__":
    main()
