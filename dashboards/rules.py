"""The alert rules themselves."""

from collections.abc import Sequence

from dashboards.alerts import Rule
from dashboards.query import Query, value

EVERYWHERE = "\"cluster\" <> ''"
MINUTE, HOUR, DAY = 60, 3600, 86_400

NODE, GPU = "cluster host", "cluster host gpu"
PORT, DISK = "cluster host device port", "cluster host path"
ONE_DEVICE, ITS_KIND = "host device", "cluster kind dtype model"

ON_HOST = "{{ .Labels.host }} of cluster {{ .Labels.cluster }}"
ON_GPU = f"GPU {{{{ .Labels.gpu }}}} of {ON_HOST}"
ON_PORT = f"Port {{{{ .Labels.port }}}} of {{{{ .Labels.device }}}} of {ON_HOST}"


def _ask(measurement: str, expression: str, by: str) -> Query:
    return value(measurement, expression, by, where=EVERYWHERE)


def _grown(measurement: str, by: str, *counters: str) -> Query:
    """Return by how much counters grew; a counter that began anew does not count."""
    each = " + ".join(f"last({counter}) - first({counter})" for counter in counters)
    return _ask(measurement, each, by)


def all_rules() -> Sequence[Rule]:
    """Return every rule."""
    return (*_nodes(), *_gpus(), *_gpu_errors(), *_ceilings(), *_network(), *_agents())


def _nodes() -> list[Rule]:
    heard = _ask("agent", "count(ticks_total)", NODE)
    buckets = heard.text.replace("GROUP BY ", "GROUP BY time(5m), ") + " fill(0)"
    return [
        Rule(
            "agent-silent",
            "Agent silent",
            f"Nothing was heard of {ON_HOST} for five minutes or more: is the node up, is "
            "rooflight-agent running there (systemctl status rooflight-agent), does the store "
            "answer it (rooflight check)? After six hours the node counts as taken away.",
            Query(buckets),
            6 * HOUR,
            limit=1,
            above=False,
            pending="5m",
            page="cluster",
            panel="Nodes, longest silent first",
            severity="critical",
            no_data="Alerting",
        ),
        Rule(
            "tempdisk-full",
            "Temp disk over 90 % full",
            f"{{{{ .Labels.path }}}} on {ON_HOST} is nearly full, and jobs that write there will "
            "fail: remove what ended jobs left behind, or drain the node.",
            _ask("tempdisk", "last(used_bytes) / last(total_bytes)", DISK),
            10 * MINUTE,
            limit=0.9,
            pending="5m",
            page="cluster",
            panel="Temp disks, fullest first",
        ),
    ]


def _gpus() -> list[Rule]:
    heat = ("software_thermal", "hardware_thermal", "power_brake")
    slowed = [f"throttle_{cause}_seconds" for cause in heat]
    return [
        Rule(
            "gpu-held-idle",
            "GPU held idle for 30 minutes",
            f"{ON_GPU} is held by a job that has not used it for half an hour: ask the job's owner "
            "whether it hangs, or asked for more GPUs than it uses.",
            _ask("bound", "min(held_idle_state)", GPU),
            5 * MINUTE,
            limit=0.5,
            pending="30m",
            page="cluster",
            panel="GPUs held idle longest",
        ),
        Rule(
            "gpu-throttled",
            "GPU slowed for heat or by the power brake",
            f"{ON_GPU} was slowed for more than a tenth of the last 15 minutes. A power limit does "
            "not count here: look at fans, filters, inlet air and power supplies.",
            _grown("gpu", GPU, *slowed),
            15 * MINUTE,
            limit=90,
            page="gpu-fleet",
            panel="Slowed GPUs of each node",
        ),
    ]


def _gpu_errors() -> list[Rule]:
    return [
        Rule(
            "gpu-ecc",
            "Uncorrected memory error on a GPU",
            f"{ON_GPU} had a memory error that was not corrected: drain the node, reset the GPU, "
            "and look at the remapped rows.",
            _grown("gpu", GPU, "ecc_uncorrected_total"),
            HOUR,
            limit=0.5,
            page="gpu-fleet",
            panel="Memory errors and Xid events",
            severity="critical",
        ),
        Rule(
            "gpu-xid",
            "Critical Xid event on a GPU",
            f"{ON_GPU} reported a critical Xid event: the kernel's log on the node names it "
            "(dmesg, NVRM: Xid), and NVIDIA's list of Xid errors says what to do.",
            _grown("gpu", GPU, "xid_errors_total"),
            HOUR,
            limit=0.5,
            page="gpu-fleet",
            panel="Memory errors and Xid events",
            severity="critical",
        ),
    ]


def _ceilings() -> list[Rule]:
    fields = {
        "compute": ("flops_per_second", "Compute against its kind"),
        "bandwidth": ("bytes_per_second", "Memory, link and disk against their kind"),
    }
    return [
        Rule(
            f"ceiling-{name}",
            f"Ceiling ({name}) 10 % below its kind",
            "{{ .Labels.device }} of "
            f"{ON_HOST} reaches less than 90 % of what the median device of its model does "
            "({{ .Labels.kind }} {{ .Labels.dtype }}): measure again with nothing else running "
            "(rooflight workload ceilings --check), then look at clocks, power limit, slot and "
            "cooling.",
            _ask("ceiling", f"last({field})", f"{ONE_DEVICE} {ITS_KIND}"),
            7 * DAY,
            limit=0.9,
            above=False,
            against=(_median(field), 7 * DAY),
            page="gpu-fleet",
            panel=panel,
        )
        for name, (field, panel) in fields.items()
    ]


def _median(field: str) -> Query:
    return value(
        "ceiling",
        f"last({field})",
        ITS_KIND,
        per=ONE_DEVICE,
        outer="median(value)",
        where=EVERYWHERE,
    )


def _network() -> list[Rule]:
    rate = "rate_bits_per_second"
    link = ("link_error_recovery_total", "link_downed_total", "receive_errors_total")
    return [
        Rule(
            "infiniband-errors",
            "InfiniBand link errors rise",
            f"{ON_PORT} had more than ten link errors in 15 minutes: look at the cable, its "
            "connectors, and the switch's end of it.",
            _grown("infiniband", PORT, *link),
            15 * MINUTE,
            limit=10,
            page="cluster",
            panel="InfiniBand ports, most errors first",
        ),
        Rule(
            "infiniband-bit-errors",
            "InfiniBand bit errors rise",
            f"{ON_PORT} had more than a hundred bit errors in 15 minutes: clean or change the "
            "cable.",
            _grown("infiniband", PORT, "symbol_errors_total"),
            15 * MINUTE,
            limit=100,
            page="cluster",
            panel="InfiniBand ports, most errors first",
        ),
        Rule(
            "infiniband-slow",
            "InfiniBand link below its rate",
            f"{ON_PORT} runs below the rate that it had in the last seven days, or is down: seat "
            "the cable anew, or change it.",
            _ask("infiniband", f"last({rate})", PORT),
            10 * MINUTE,
            limit=0.99,
            above=False,
            against=(_ask("infiniband", f"max({rate})", PORT), 7 * DAY),
            pending="5m",
            page="cluster",
            panel="InfiniBand ports, busiest first",
        ),
    ]


def _agents() -> list[Rule]:
    return [
        Rule(
            "spool-grows",
            "Spool of an agent grows",
            f"More than 1 MB came to wait on {ON_HOST} in 15 minutes: the store takes data more "
            "slowly than it comes. Look at the store's load and disk; nothing is lost until the "
            "spool is full (agent.spool_mebibytes).",
            _grown("agent", NODE, "spool_bytes"),
            15 * MINUTE,
            limit=1e6,
            page="agents",
            panel="Spools",
        ),
        Rule(
            "points-dropped",
            "Points dropped by an agent",
            f"The agent of {ON_HOST} lost points: its spool was full, or the store refused them. "
            "journalctl -u rooflight-agent on the node says which.",
            _grown("agent", NODE, "dropped_points_total"),
            HOUR,
            limit=0.5,
            page="agents",
            panel="Losses and errors",
            severity="critical",
        ),
    ]
