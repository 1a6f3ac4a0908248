"""Settings of the stores, and their secrets: read from files that only the agent may read."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from probes.catalogue import Database

_PASSWORD = "ROOFLIGHT_INFLUX_PASSWORD"  # noqa: S105 - the name of a variable
_TOKEN = "ROOFLIGHT_INFLUX_TOKEN"  # noqa: S105 - the name of a variable

Days = Annotated[float, msgspec.Meta(ge=0)]


class SettingsError(ValueError):
    """A secret is missing or open to others; the message names the file and the remedy."""


class InfluxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which server, and as whom.

    Attributes:
        url: scheme, host and port, and a path if a proxy wants one.
        api: where to write: "v1" or "v2".
        database: name of the database (2.x: bucket) of measurements.
        jobs_database: name of the database (2.x: bucket) of jobs and footprints.
        organization: name, for 2.x.
        username: for 1.x with authentication; its password is in `password_file` or in
            $ROOFLIGHT_INFLUX_PASSWORD.
        password_file: file of mode 0600 or 0640.
        token_file: file of mode 0600 or 0640; else $ROOFLIGHT_INFLUX_TOKEN.
        ca_file: certificates to trust instead of the system's.
        timeout_seconds: for the whole of a write, from connecting to its answer's last byte; a
            query, whose answer may be large, has three times as long.
        retention_days: how long `rooflight store setup` has measurements kept; 0 is for ever.
        jobs_retention_days: the same for jobs and footprints.

    """

    url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]")] = "http://127.0.0.1:8086"
    api: Literal["v1", "v2"] = "v1"
    database: Annotated[str, msgspec.Meta(min_length=1)] = "rooflight"
    jobs_database: Annotated[str, msgspec.Meta(min_length=1)] = "rooflight_jobs"
    organization: str = ""
    username: str = ""
    password_file: str = ""
    token_file: str = ""
    ca_file: str = ""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    retention_days: Days = 90.0
    jobs_retention_days: Days = 1095.0

    def token(self) -> str:
        """Return the token, or nothing.

        Raises:
            SettingsError: see `read_secret`.

        """
        return read_secret(self.token_file, _TOKEN)

    def credentials(self) -> str:
        """Return `user:secret` for Basic authentication, or nothing.

        A token is given as the password: 2.x and 3.x take it so on every endpoint of 1.x.

        Raises:
            SettingsError: see `read_secret`.

        """
        secret = self.token() or read_secret(self.password_file, _PASSWORD)
        if self.username and not secret:
            raise SettingsError(
                "influx.username is set without a password: "
                f"set influx.password_file or ${_PASSWORD}"
            )
        return f"{self.username or 'rooflight'}:{secret}" if secret else ""

    def exposed(self) -> str:
        """Return what is wrong where a secret goes over the network as plain text, or nothing.

        Loopback is what is written as such: localhost, 127.0.0.0/8 and ::1. No name is looked up.

        Raises:
            SettingsError: see `read_secret`.

        """
        try:
            address = urlsplit(self.url)
        except ValueError:  # no address: whoever connects says so
            return ""
        if address.scheme != "http" or is_loopback(address.hostname or ""):
            return ""
        kind = "token" if self.token() else "password"
        words = f"influx.url is http: everybody on the way to {address.hostname} can read the"
        return f"{words} {kind}: use https" if self.credentials() else ""

    def names(self) -> dict[Database, str]:
        """Return each database's name on the server."""
        return {Database.METRICS: self.database, Database.JOBS: self.jobs_database}


def is_loopback(host: str) -> bool:
    """Tell whether the host of an address is this machine, as it is written."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_secret(file: str, variable: str) -> str:
    """Return the secret of a file, or else of an environment variable; "" if neither is set.

    Raises:
        SettingsError: the file cannot be read, or others may read it.

    """
    if not file:
        return os.environ.get(variable, "")
    try:
        with Path(file).open(encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode & 0o777
            secret = opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from error
    if mode & 0o037:
        raise SettingsError(
            f"{file}: its mode {mode:04o} opens a secret to others: chmod 0600 {file}"
        )
    return secret
