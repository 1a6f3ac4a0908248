#!/bin/bash
# Installed as /etc/slurm/prolog.d/50-rooflight.sh, with Prolog=/etc/slurm/prolog.d/* in slurm.conf.
# Tells rooflight's agent that a job begins on this node. Prints nothing, takes 2 seconds at most and
# always ends well, whatever is missing or hangs: Slurm drains a node whose prolog fails.
# Settings, exported by /etc/rooflight/hook.conf: see deploy/README.md.

hook() {
  local settings=${ROOFLIGHT_HOOK_CONF:-/etc/rooflight/hook.conf}
  # shellcheck source=/dev/null
  [ ! -r "$settings" ] || . "$settings"
  local home=${ROOFLIGHT_HOME:-/opt/rooflight}
  local modules=("$home"/lib/python3*/site-packages/agent/slurm/hook.py)
  exec "$home/bin/python" -I -S "${ROOFLIGHT_HOOK:-${modules[0]}}" start
}

trap 'exit 0' EXIT
exec </dev/null >/dev/null 2>&1  # Slurm waits for all who hold its pipe
PATH=/usr/sbin:/usr/bin:/sbin:/bin
hook &  # a process of its own: a dead file system may hold it for ever, but not Slurm
sleep 2 &
wait -n
kill -9 %1 %2
