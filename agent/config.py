"""Configuration: TOML files laid over each other, checked strictly, every key's origin known."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent.stores.settings import InfluxSettings, read_secret

SYSTEM_FILE = Path("/etc/rooflight/rooflight.toml")
ENVIRONMENT = "ROOFLIGHT_CONFIG"


class ConfigError(Exception):
    """A mistake in the configuration; the message names file, key and remedy."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file; unknown keys are errors."""


class AgentSection(Section, frozen=True, kw_only=True):
    """How the agent samples and keeps its data.

    Attributes:
        interval_seconds: time between two ticks.
        flush_seconds: how often finished ticks are sent to the store.
        heartbeat_seconds: how often the footprints of running jobs are written.
        deadline_seconds: how long a probe that can hang is waited for in a tick.
        spool_mebibytes: disk space for data that the store has not yet taken.
        state_directory: spool, footprints and the local store.
        socket: where prolog, epilog, `rooflight run` and phase marks reach the agent.

    """

    interval_seconds: Annotated[float, msgspec.Meta(ge=0.02, le=3600)] = 10.0
    flush_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    heartbeat_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 30.0
    deadline_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 1.0
    spool_mebibytes: Annotated[float, msgspec.Meta(ge=1, le=1 << 20)] = 256.0
    state_directory: str = ""
    socket: str = ""


class ProbesSection(Section, frozen=True, kw_only=True):
    """Which probes run, and what they cannot find out by themselves.

    Attributes:
        disabled: names of probes that stay off.
        tempdisk_paths: folders of node-local temporary storage, beside $TMPDIR and /tmp.
        dcgm_url: metrics of a DCGM exporter on this node (http://localhost:9400/metrics), for the
            activity of GPUs before Hopper; empty for none.

    """

    disabled: tuple[str, ...] = ()
    tempdisk_paths: tuple[str, ...] = ()
    dcgm_url: Annotated[str, msgspec.Meta(pattern="^(https?://.*)?$")] = ""


JobFolderPattern = Annotated[
    str, msgspec.Meta(pattern="^/([^%]|%[juUn])*%j([^%]|%[juUn])*$", max_length=1000)
]


class SlurmSection(Section, frozen=True, kw_only=True):
    """What the agent cannot find out of Slurm by itself.

    Attributes:
        node: this node's name in Slurm, on a machine that plays several; otherwise not needed.
        gres_conf: the file that lists this node's GPUs in Slurm's order, if it is not
            /etc/slurm/gres.conf.
        job_tempdisk: folders on this node's disks that are a job's own, such as /tmp/slurm.%j or
            /local/%u/%j: %j is the job's id, %u its user's name, %U its user's id, %n the node's
            name. Those of job_container/tmpfs are found without.

    """

    node: str = ""
    gres_conf: str = ""
    job_tempdisk: tuple[JobFolderPattern, ...] = ()


class LocalSection(Section, frozen=True, kw_only=True):
    """The embedded store."""

    path: str = ""
    retention_days: Annotated[float, msgspec.Meta(gt=0)] = 14.0


class GrafanaSection(Section, frozen=True, kw_only=True):
    """Where the dashboards are: for the links that jobinspect prints, and to publish them.

    Attributes:
        url: address of Grafana.
        token_file: file of mode 0600 or 0640 with a service account's token; else
            $ROOFLIGHT_GRAFANA_TOKEN. Only `rooflight dashboards publish` reads it.

    """

    url: str = ""
    token_file: str = ""

    def token(self) -> str:
        """Return the token, or nothing.

        Raises:
            SettingsError: see `read_secret`.

        """
        return read_secret(self.token_file, "ROOFLIGHT_GRAFANA_TOKEN")


class InspectSection(Section, frozen=True, kw_only=True):
    """How `jobinspect` reads, and who sees all jobs.

    Attributes:
        reader: socket of rooflight-reader, for users without a credential of the store's; empty
            to read the store itself.
        staff_group: Unix group whose members see everybody's jobs; empty for none.

    """

    reader: str = ""
    staff_group: str = ""


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; every key has a default that works on one machine."""

    cluster: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "local"
    host: str = ""
    store: Literal["local", "influx", "stdout"] = "local"
    agent: AgentSection = msgspec.field(default_factory=AgentSection)
    probes: ProbesSection = msgspec.field(default_factory=ProbesSection)
    slurm: SlurmSection = msgspec.field(default_factory=SlurmSection)
    local: LocalSection = msgspec.field(default_factory=LocalSection)
    influx: InfluxSettings = msgspec.field(default_factory=InfluxSettings)
    grafana: GrafanaSection = msgspec.field(default_factory=GrafanaSection)
    inspect: InspectSection = msgspec.field(default_factory=InspectSection)

    def host_name(self) -> str:
        """Return the host tag: as configured, or this machine's name without its domain."""
        return self.host or os.uname().nodename.split(".")[0]

    def state_directory(self) -> Path:
        """Return the folder for spool, footprints and local store."""
        named = self.agent.state_directory or os.environ.get("STATE_DIRECTORY", "")
        if named:  # by the configuration, or by systemd
            return Path(named)
        if os.geteuid() == 0:
            return Path("/var/lib/rooflight")
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(base) / "rooflight"

    def socket_path(self) -> Path:
        """Return the path of the agent's socket."""
        if self.agent.socket:
            return Path(self.agent.socket)
        if "RUNTIME_DIRECTORY" in os.environ:  # set by systemd
            return Path(os.environ["RUNTIME_DIRECTORY"]) / "agent.sock"
        if os.geteuid() == 0 and not self.agent.state_directory:
            return Path("/run/rooflight/agent.sock")
        return self.state_directory() / "agent.sock"

    def local_path(self) -> Path:
        """Return the path of the embedded store's file."""
        if self.local.path:
            return Path(self.local.path)
        return self.state_directory() / "rooflight.db"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each key of it was set (dotted key -> file)."""

    config: Config
    origins: Mapping[str, Path] = field(default_factory=dict)


# Keys that hold paths: a relative one is taken from the folder of the file it stands in.
PATH_KEYS = frozenset(
    {
        "agent.state_directory",
        "agent.socket",
        "local.path",
        "influx.password_file",
        "influx.token_file",
        "influx.ca_file",
        "grafana.token_file",
        "inspect.reader",
        "slurm.gres_conf",
    }
)


def load(explicit: Path | None = None, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Read `/etc/rooflight/rooflight.toml`, then $ROOFLIGHT_CONFIG, then `explicit`.

    A later file overrides the keys that it sets. The first may be absent, the others not.

    Raises:
        ConfigError: a file is unreadable, not TOML, or has a wrong key or value.

    """
    named = environment.get(ENVIRONMENT)
    files = [SYSTEM_FILE] if SYSTEM_FILE.exists() else []
    files += [Path(named)] if named else []
    files += [explicit] if explicit else []
    merged: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for file in files:
        layer = read_layer(file)
        for key, value in _leaves(layer):
            _put(merged, key, value)
            origins[".".join(key)] = file
    return Loaded(msgspec.convert(merged, Config), origins)


def read_layer(file: Path) -> dict[str, Any]:
    """Return one file's tables, checked, with its relative paths made absolute.

    Raises:
        ConfigError: see `load`.

    """
    try:
        layer = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    try:
        msgspec.convert(layer, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {explain(str(error), layer)}") from error
    for key, value in list(_leaves(layer)):
        if ".".join(key) in PATH_KEYS and value:
            _put(layer, key, str((file.parent / value).resolve()))
    return layer


def explain(message: str, layer: Mapping[str, Any]) -> str:
    """Turn msgspec's words into the key as the admin wrote it, and a remedy."""
    where = re.search(r"at `\$\.?([^`]*)`$", message)
    path = where[1] if where else ""
    unknown = re.match(r"Object contains unknown field `([^`]*)`", message)
    if unknown:
        return f"unknown key '{_dotted(path, unknown[1])}'; {_nearest(path, unknown[1])}"
    words = message.split(" - at ")[0].replace("`", "").lower()
    return f"{path or 'the file'}: {words}; it is {_at(layer, path)!r}"


def _nearest(path: str, key: str) -> str:
    """Return a hint: the key of this table that looks most like the unknown one."""
    struct: Any = Config
    for part in filter(None, path.split(".")):
        struct = struct.__annotations__[part]
    known = msgspec.structs.fields(struct)
    close = difflib.get_close_matches(key, [each.name for each in known], n=1, cutoff=0.5)
    if close:
        return f"did you mean '{_dotted(path, close[0])}'?"
    return "known keys here: " + ", ".join(each.name for each in known)


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _at(layer: Mapping[str, Any], path: str) -> object:
    value: Any = layer
    for part in filter(None, re.split(r"[.\[]", path)):
        if not isinstance(value, Mapping):
            break
        value = value.get(part)
    return value


def _leaves(table: Mapping[str, Any], above: Sequence[str] = ()) -> list[tuple[list[str], Any]]:
    """Return (path, value) of every key that is not itself a table."""
    found: list[tuple[list[str], Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _leaves(value, [*above, key])
        else:
            found.append(([*above, key], value))
    return found


def _put(table: dict[str, Any], key: Sequence[str], value: object) -> None:
    for part in key[:-1]:
        table = table.setdefault(part, {})
    table[key[-1]] = value


def lines(loaded: Loaded, *, with_origin: bool = False, only_set: bool = False) -> list[str]:
    """Return `key = value`, which is TOML, for the keys in force, or for those that a file sets."""
    everything = msgspec.to_builtins(loaded.config)
    shown = []
    for key, value in _leaves(everything):
        dotted = ".".join(key)
        if only_set and dotted not in loaded.origins:
            continue
        origin = f"  # {loaded.origins.get(dotted, 'default')}" if with_origin else ""
        shown.append(f"{dotted} = {_toml(value)}{origin}")
    return shown


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()  # for these types TOML and JSON agree
