"""What the pages share: conditions, variables, links, and words for what is not there."""

from dashboards.dashboard import Variable, address
from dashboards.query import CLUSTER, tag_values

NOW = "time > ${__to}ms - 3m AND time <= ${__to}ms"
"""For what is now: an agent samples every few seconds, and ships soon after."""

HOSTS = f'{CLUSTER} AND "host" =~ /^$host$/'
HOST = f"{CLUSTER} AND \"host\" = '$host'"

NO_AGENT = "No agent of this cluster was heard of in this time."
NO_GPU = "No NVIDIA GPU was seen in this time."
NO_MEMORY_ERRORS = "No GPU was seen that counts memory errors: those of data centers do."
NO_COUNTERS = (
    "These GPUs tell nothing of their pipes and memory: that takes GPM (Hopper and later) or a "
    "DCGM exporter (probes.dcgm_url)."
)
NO_PRESSURE = "The kernel gives no pressure stall information: boot it with psi=1."
NO_TRAFFIC = (
    "These CPUs count no memory traffic, or the agent may not read it (resctrl: rooflight check "
    "says more)."
)
NO_INFINIBAND = "No InfiniBand, Omni-Path or RoCE port was seen in this time."
NO_FILESYSTEM = "No shared file system (NFS, Lustre, WEKA, GPFS, BeeGFS) is mounted here."
NO_POWER = (
    "No energy counter or power sensor can be read here: RAPL takes root since Linux 5.10, and "
    "virtual machines have none (rooflight check says more)."
)
NO_DISK = "These nodes have no disk of their own."
NO_JOB = "No such job in this cluster: is the id right, and the time shown not before its start?"
NO_ACCOUNT = "Nothing of this job's own processes or control group could be read in this time."
NO_PHASE = (
    "No phase was marked in this time: run reference phases (rooflight workload run) or mark your "
    "own (rooflight phase NAME -- CMD)."
)
NO_CEILING = "No ceiling was measured in this time: rooflight workload ceilings measures them."

CLUSTERS = Variable(
    "cluster", "Cluster", "As the agents' configuration calls it.", tag_values("agent", "cluster")
)

NODE_LINK = address("node", "var-host=${__value.raw}", "${__url_time_range}")


def _job_link(until: str) -> str:
    """Return the link of a column with job ids, in a table with a column `started`."""
    since = "from=${__data.fields.started.numeric}"
    return address("job", "var-jobid=${__value.raw}", since, f"to={until}")


RUNNING_JOB_LINK = _job_link("now")
ENDED_JOB_LINK = _job_link("${__data.fields.ended.numeric}")
HEARD_JOB_LINK = _job_link("${__data.fields.heard.numeric}")

STATE_COLORS = {
    "RUNNING": "blue",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "orange",
    "TIMEOUT": "orange",
    "OUT_OF_MEMORY": "red",
    "NODE_FAIL": "red",
    "LOST": "red",
}
