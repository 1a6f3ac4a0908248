"""Put dashboards, alert rules and data sources into a running Grafana through its HTTP API.

For sites that cannot mount files; what is there already is brought up to date. Source:
grafana.com/docs, "HTTP API": folder, dashboard, data source, alerting provisioning.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dashboards.alerts import FOLDER, GROUP, INTERVAL_SECONDS, Rule
from dashboards.dashboard import DATASOURCES, TAG, Dashboard
from probes.catalogue import Database

# grafana_client is imported where it is used: only this command needs it

MOST_SERIES = 10_000
"""A panel with every GPU of a large cluster has more than Grafana's 1,000."""

_NOT_FOUND = 404
_FOLDER_UID = TAG


class PublishFailed(Exception):
    """Grafana does not answer, or said no; the message carries its words."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where Grafana finds InfluxDB, and as whom it reads.

    Attributes:
        url: as Grafana reaches it.
        names: database of each kind on the server.
        username: for 1.x with authentication.
        secret: its password; without a username, a token of 2.x or 3.x.
        interval_seconds: of the agents: no panel asks for less.

    """

    url: str
    names: Mapping[Database, str]
    username: str
    secret: str
    interval_seconds: float

    def model(self, database: Database) -> dict[str, object]:
        """Return the data source of a database as Grafana stores it."""
        settings: dict[str, object] = {
            "dbName": self.names[database],
            "httpMode": "POST",
            "timeInterval": f"{self.interval_seconds:g}s",
            "maxSeries": MOST_SERIES,
        }
        secrets = {"password": self.secret} if self.username else {}
        if self.secret and not self.username:
            settings["httpHeaderName1"] = "Authorization"
            secrets = {"httpHeaderValue1": f"Token {self.secret}"}
        return {
            "uid": DATASOURCES[database],
            "name": DATASOURCES[database],
            "type": "influxdb",
            "access": "proxy",
            "url": self.url,
            "user": self.username,
            "jsonData": settings,
            "secureJsonData": secrets,
        }


class Publisher:
    """One Grafana.

    Args:
        url: its address, with a path if it is served below one.
        token: of a service account that may write folders, dashboards, alert rules and, where they
            are to be made, data sources.

    """

    def __init__(self, url: str, token: str) -> None:
        from grafana_client import GrafanaApi

        self._url = url.rstrip("/")
        # without the slash at its end, grafana_client would join a path and "api" to one word
        self._api = GrafanaApi.from_url(f"{self._url}/", credential=token)

    def publish(
        self, dashboards: Sequence[Dashboard], rules: Sequence[Rule], source: Source | None
    ) -> Iterator[str]:
        """Bring everything up to date; yield a line for each thing that is now so.

        Without `source`, the data sources must be there.

        Raises:
            PublishFailed: see there.

        """
        with self._explained():
            yield self._greeting()
            for database in DATASOURCES:
                yield self._datasource(database, source)
            yield self._folder()
            for dashboard in dashboards:
                yield self._dashboard(dashboard)
            yield self._rules(rules, dashboards)

    def _greeting(self) -> str:
        try:
            told = self._api.health.check()
        except AttributeError:  # a page that is no JSON
            told = None
        if not isinstance(told, dict):
            raise PublishFailed(f"{self._url} is no Grafana: check grafana.url")
        return f"Grafana {told.get('version', '')} at {self._url}"

    def _datasource(self, database: Database, source: Source | None) -> str:
        uid = DATASOURCES[database]
        there = self._found(self._api.datasource.get_datasource_by_uid, uid)
        if source is None:
            if not there:
                raise PublishFailed(
                    f"{self._url} has no data source with the uid {uid}: provision it "
                    "(deploy/grafana/datasources), or let --with-datasources make it"
                )
            return f"data source {uid}: is there, left as it is"
        model = source.model(database)
        if there:
            self._api.datasource.update_datasource_by_uid(uid, model)
        else:
            self._api.datasource.create_datasource(model)
        return f"data source {uid}: reads {source.names[database]} at {source.url}"

    def _folder(self) -> str:
        if self._found(self._api.folder.get_folder, _FOLDER_UID):
            return f"folder {FOLDER}: is there"
        self._api.folder.create_folder(FOLDER, uid=_FOLDER_UID)
        return f"folder {FOLDER}: made"

    def _dashboard(self, dashboard: Dashboard) -> str:
        self._api.dashboard.update_dashboard(
            {
                "dashboard": dashboard.model(),
                "folderUid": _FOLDER_UID,
                "overwrite": True,
                "message": "rooflight dashboards publish",
            }
        )
        return f"dashboard {dashboard.title}: {self._url}/d/{dashboard.uid}"

    def _rules(self, rules: Sequence[Rule], dashboards: Sequence[Dashboard]) -> str:
        """Replace the group of alert rules as a whole: rules that we no longer have go."""
        place = {"folderUID": _FOLDER_UID, "ruleGroup": GROUP, "orgID": 1}
        group = {
            "title": GROUP,
            "folderUid": _FOLDER_UID,
            "interval": INTERVAL_SECONDS,
            "rules": [{**rule.model(dashboards), **place} for rule in rules],
        }
        self._api.alertingprovisioning.update_rule_group(_FOLDER_UID, GROUP, group)
        return f"alert rules: {len(rules)} in group {GROUP} of folder {FOLDER}"

    def _found(self, get: Any, uid: str) -> bool:  # noqa: ANN401 - grafana_client has no types
        from grafana_client.client import GrafanaClientError

        try:
            get(uid)
        except GrafanaClientError as error:
            if error.status_code != _NOT_FOUND:
                raise
            return False
        return True

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of grafana_client, and of the library under it, into ours."""
        from grafana_client.client import GrafanaException

        try:
            yield
        except GrafanaException as error:
            raise PublishFailed(f"{self._url}: {error}") from error
        except OSError as error:
            raise PublishFailed(f"{self._url} does not answer: {error}") from error
