#!/bin/bash
# Installed as /etc/slurm/rooflight-healthcheck.sh, with in slurm.conf:
#   HealthCheckProgram=/etc/slurm/rooflight-healthcheck.sh  HealthCheckInterval=900  HealthCheckNodeState=IDLE
# Once a day, on an idle node, measures what its devices reach, and drains the node if one is more than
# 10 % below its kind: its peers, its own past, or the datasheet. Slurm gives a health check 60 seconds.
# Needs rooflight[workloads] on the node. Settings, in /etc/rooflight/hook.conf:
#   ROOFLIGHT_HOME (/opt/rooflight)    ROOFLIGHT_TOLERANCE (0.1)    ROOFLIGHT_DRAIN (1; 0 only logs)
#   ROOFLIGHT_CHECK_SECONDS (50): how long measuring may take, and then it is no verdict

PATH=/usr/sbin:/usr/bin:/sbin:/bin
settings=${ROOFLIGHT_HOOK_CONF:-/etc/rooflight/hook.conf}
# shellcheck source=/dev/null
[ ! -r "$settings" ] || . "$settings"
home=${ROOFLIGHT_HOME:-/opt/rooflight}
stamp=${ROOFLIGHT_STAMP:-/run/rooflight-healthcheck}
node=${SLURMD_NODENAME:-$(hostname -s)}

# at most once a day, and one at a time
[ -z "$(find "$stamp" -mtime -1 2>/dev/null)" ] || exit 0
touch "$stamp" || exit 0

said=$(timeout --kill-after=2 "${ROOFLIGHT_CHECK_SECONDS:-50}" "$home/bin/rooflight" workload ceilings --check --no-plot \
  --tolerance "${ROOFLIGHT_TOLERANCE:-0.1}" 2>&1 >/dev/null)
code=$?
# not measured (no torch, too slow, a mistake in the settings) is no verdict, but must not go unnoticed
[ "$code" -le 1 ] || said="health check could not measure (exit code $code): $said"
[ "$code" = 0 ] || logger -t rooflight "$said" 2>/dev/null
[ "$code" = 1 ] || exit 0

[ "${ROOFLIGHT_DRAIN:-1}" = 0 ] ||
  scontrol update "nodename=$node" state=drain "reason=$(head -n 1 <<<"$said")"
exit 0
