"""A server that asks of its callers what Grafana's HTTP API asks, and remembers what it was given.

Made from the API's documentation ("HTTP API": folder, dashboard, data source, alerting
provisioning) and the rules of `pkg/services/ngalert/api/tooling`; no Grafana was at hand.
"""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Json = dict[str, Any]

TOKEN = "glsa_test"
UID = re.compile(r"[a-zA-Z0-9\-_]{1,40}")
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
NO_DATA = {"Alerting", "NoData", "OK", "KeepLast"}
FAILED = {"Alerting", "Error", "OK", "KeepLast"}


class Answer(NamedTuple):
    """HTTP status and body."""

    status: int
    body: Json


def refusal(status: int, words: str) -> Answer:
    return Answer(status, {"message": words})


@dataclass
class Grafana:
    """What the server holds.

    Attributes:
        calls: method and path of each request.
        broken: answers everything with 503 while set.

    """

    folders: dict[str, Json] = field(default_factory=dict)
    sources: dict[str, Json] = field(default_factory=dict)
    dashboards: dict[str, Json] = field(default_factory=dict)
    groups: dict[str, Json] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    broken: bool = False

    def answer(self, method: str, path: str, token: str, body: Json) -> Answer:
        self.calls.append(f"{method} {path}")
        if self.broken:
            return refusal(503, "database is locked")
        if path == "/api/frontend/settings":
            return Answer(200, {"buildInfo": {"version": "12.1.0", "edition": "Open Source"}})
        if token != f"Bearer {TOKEN}":
            return refusal(401, "Invalid API key")
        parts = path.removeprefix("/api/").split("/")
        if parts[0] == "folders":
            return self._folder(method, parts[1:], body)
        if parts[0] == "datasources":
            return self._source(method, parts[1:], body)
        if (method, parts) == ("POST", ["dashboards", "db"]):
            return self._dashboard(body)
        if method == "PUT" and parts[:3] == ["v1", "provisioning", "folder"]:
            return self._group(parts[3], parts[5], body)
        return refusal(404, "Not found")

    def _folder(self, method: str, parts: list[str], body: Json) -> Answer:
        if method == "GET":
            known = self.folders.get(parts[0])
            return Answer(200, known) if known else refusal(404, "folder not found")
        if not body.get("title") or not UID.fullmatch(body.get("uid", "")):
            return refusal(400, "bad request data")
        if body["uid"] in self.folders:
            return refusal(412, "a folder with the same uid already exists")
        self.folders[body["uid"]] = body
        return Answer(200, body)

    def _source(self, method: str, parts: list[str], body: Json) -> Answer:
        uid = parts[1] if parts[:1] == ["uid"] else body.get("uid", "")
        if method == "GET":
            known = self.sources.get(uid)
            return Answer(200, known) if known else refusal(404, "Data source not found")
        missing = [key for key in ("name", "type", "access", "url") if not body.get(key)]
        if missing or body["access"] not in ("proxy", "direct"):
            return refusal(400, f"bad request data: {missing}")
        if body.get("jsonData", {}).get("httpMode") not in ("GET", "POST"):
            return refusal(400, "httpMode")
        if (method == "PUT") != (uid in self.sources):
            return refusal(404 if method == "PUT" else 409, "data source")
        self.sources[uid] = body
        return Answer(200, {"datasource": body})

    def _dashboard(self, body: Json) -> Answer:
        model = body.get("dashboard", {})
        if not model.get("title"):
            return refusal(400, "Dashboard title cannot be empty")
        if not UID.fullmatch(model.get("uid", "")) or model.get("id") is not None:
            return refusal(400, "uid contains illegal characters")
        if body.get("folderUid") not in self.folders:
            return refusal(400, "folder not found")
        if model["uid"] in self.dashboards and not body.get("overwrite"):
            return refusal(412, "The dashboard has been changed by someone else")
        self.dashboards[model["uid"]] = model
        return Answer(200, {"uid": model["uid"], "status": "success"})

    def _group(self, folder: str, name: str, body: Json) -> Answer:
        if folder not in self.folders or body.get("folderUid") != folder:
            return refusal(404, "folder not found")
        if body.get("title") != name or body.get("interval", 0) % 10 or not body.get("interval"):
            return refusal(400, "interval should be non-zero and divided exactly by 10 seconds")
        for rule in body.get("rules", []):
            if fault := self._fault(rule, folder, name):
                return refusal(400, f"invalid alert rule {rule.get('title')}: {fault}")
        self.groups[name] = body
        return Answer(200, body)

    def _fault(self, rule: Json, folder: str, group: str) -> str:
        """Return what Grafana has against an alert rule; nothing if it takes it."""
        letters = [step.get("refId") for step in rule.get("data", [])]
        known = {*self.sources, "__expr__"}
        faults = {
            "no title": not 0 < len(rule.get("title", "")) <= 190,
            "uid": not UID.fullmatch(rule.get("uid", "")),
            "no data": not letters or len(set(letters)) != len(letters),
            "condition does not exist": rule.get("condition") not in letters,
            "folder": rule.get("folderUID") != folder,
            "group": rule.get("ruleGroup") != group,
            "organization": rule.get("orgID") != 1,
            "noDataState": rule.get("noDataState") not in NO_DATA,
            "execErrState": rule.get("execErrState") not in FAILED,
            "for": not DURATION.fullmatch(rule.get("for", "")),
            "data source": any(step["datasourceUid"] not in known for step in rule["data"]),
            "annotations": any(not isinstance(text, str) for text in rule["annotations"].values()),
            "panel without dashboard": "__panelId__" in rule["annotations"]
            and rule["annotations"].get("__dashboardUid__") not in self.dashboards,
            "time range": any(_bad_range(step) for step in rule["data"]),
            "model": any(step["model"].get("refId") != step["refId"] for step in rule["data"]),
        }
        return next((words for words, wrong in faults.items() if wrong), "")


def _bad_range(step: Json) -> bool:
    """Tell whether a query has no time to look at; expressions need none."""
    times = step.get("relativeTimeRange", {})
    forward = times.get("from", 0) > times.get("to", 0) >= 0
    return step["datasourceUid"] != "__expr__" and not forward


class Server:
    """A Grafana on a port of its own, below a path as behind a proxy."""

    def __init__(self) -> None:
        self.grafana = Grafana()
        held = self.grafana

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._do("GET")

            def do_POST(self) -> None:
                self._do("POST")

            def do_PUT(self) -> None:
                self._do("PUT")

            def _do(self, method: str) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                path = self.path.removeprefix("/grafana")
                token = self.headers.get("Authorization", "")
                answer = held.answer(method, path, token, body)
                text = json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/grafana"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
