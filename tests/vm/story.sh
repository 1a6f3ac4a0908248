#!/bin/bash
# Runs inside the machine of `tests/machine.sh qemu`: the agent beside a real Slurm on cgroup v2, first
# as a service, then started by the prolog. Prints `name value` lines, then each file that a job or
# jobinspect wrote, after a line `--- name`; tests/integration/test_vm.py checks them.
set -eu
PATH=/opt/rooflight/bin:$PATH
unit=rooflight-agent
results=/run/results  # what jobs say
told=/run/told        # what jobinspect says
tell() { echo "$1 ${*:2}"; }
clock() { tell "at_$1" "$(cut -d ' ' -f 1 /proc/uptime)"; }
wait_until() {  # SECONDS COMMAND... : true as soon as the command is
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "in vain: $*" >&2; return 1; }
    sleep 0.2
  done
}

prepare() {
  mkdir -p "$results" "$told"
  chmod 1777 "$results"
  # with loopback alone, the resolver finds no address of this machine (AI_ADDRCONFIG)
  modprobe -a dummy rdma_rxe
  ip link add net0 type dummy
  ip addr add 192.0.2.1/24 dev net0
  ip link set net0 up
  rdma link add rxe0 type rxe netdev net0
  systemd-sysusers 2>/dev/null
  systemctl start munge slurmctld slurmd
  for hook in prolog epilog; do /etc/slurm/$hook.d/50-rooflight.sh; done  # into the page cache
  wait_until 600 nodes_are idle
}

nodes_are() { [ "$(sinfo --noheader --Node --format=%T)" = "$1" ]; }
state() { squeue --noheader --states=all --format=%T --jobs="$1"; }
state_is() { [ "$(state "$1")" = "$2" ]; }
submit() {  # OPTION... COMMAND : as an ordinary user
  setpriv --reuid=nobody --regid=nogroup --clear-groups \
    sbatch --parsable --chdir=/ --output=/dev/null --cpus-per-task=1 "${@:1:$#-1}" --wrap="exec ${*: -1}"
}
work() { echo "/usr/bin/python3 -I -S /opt/job.py $results/$1 $2 $3"; }  # NAME PROCESSES MEBIBYTES
may() { touch "$results/$2-may-$1"; }  # rest|leave NAME
has_ended() { [ ! -e "/proc/$1" ]; }

inspect_resting() {  # NAME JOB : while it rests, once the store has a row that is newer than its word
  may rest "$1"
  wait_until 600 test -s "$results/$1"
  wait_until 600 knows_rest "$1" "$2"
  tell "$1_resting" "$(state "$2")"
}
knows_rest() {
  local updated
  jobinspect "$2" --json >"$told/$1-resting"
  updated=$(sed -nE 's/.*"updated_ms": ?([0-9]+).*/\1/p' "$told/$1-resting")
  [ "$updated" -gt "$(($(date --reference="$results/$1" +%s%N) / 1000000))" ]
}
leave() {  # NAME JOB
  may leave "$1"
  wait_until 600 state_is "$2" COMPLETED
}

main_pid() { systemctl show "$unit" --property=MainPID --value; }
runs_anew() { systemctl is-active --quiet "$unit" && [ "$(main_pid)" != "$1" ]; }

service_is_killed() {
  local killed
  systemctl start "$unit"
  busy=$(submit --mem=300 "$(work busy 2 150)")
  idle=$(submit --mem=200 "$(work idle 0 60)")
  wait_until 600 state_is "$busy" RUNNING
  wait_until 600 state_is "$idle" RUNNING
  sleep 2
  killed=$(main_pid)
  systemctl kill --signal=KILL "$unit"
  wait_until 600 runs_anew "$killed"
  tell state_at_restart "$(state "$busy")"
  sleep 2
  inspect_resting busy "$busy"
  leave busy "$busy"
  may rest idle
  leave idle "$idle"
  tell restarts "$(systemctl show "$unit" --property=NRestarts --value)"
}

remote_memory() {  # RDMA, over a link that the kernel plays
  remote=$(submit --mem=200 "/bin/bash /opt/remote-memory.sh $results/remote")
  wait_until 600 state_is "$remote" COMPLETED
  systemctl stop "$unit"
}

agents() { grep --files-with-matches --null-data --line-regexp -e '--until-idl[e]' /proc/[0-9]*/cmdline | wc -l; }
own_agent() { cat /var/lib/rooflight/spool/lock; }

started_by_the_prolog() {
  local pid
  echo 'export ROOFLIGHT_OWN_AGENT=0 ROOFLIGHT_LOG=/var/log/rooflight-agent.log' >/etc/rooflight/hook.conf
  own=$(submit --mem=300 "$(work own 2 100)")
  other=$(submit --mem=200 "$(work other 0 50)")
  wait_until 600 state_is "$own" RUNNING
  wait_until 600 state_is "$other" RUNNING
  inspect_resting own "$own"
  pid=$(own_agent)
  tell own_agents "$(agents)"
  tell own_group "$(sed 's/^0:://' "/proc/$pid/cgroup")"
  tell own_parent "$(awk '/^PPid/ {print $2}' "/proc/$pid/status")"
  tell own_descriptors "$(for number in 0 1 2; do readlink "/proc/$pid/fd/$number"; done | xargs)"
  leave own "$own"
  tell own_agent_after_one "$(has_ended "$pid" || echo runs)"
  may rest other
  leave other "$other"
  wait_until 600 has_ended "$pid"
  tell own_agent_after_all "$(has_ended "$pid" && echo ended)"
}

inspect_all() {
  jobinspect "$remote" >"$told/page" &
  /opt/rooflight/bin/python /opt/inspect_jobs.py "$told" \
    busy="$busy" idle="$idle" remote="$remote" own="$own" other="$other"
  wait
}

show() {  # also if the story ends early
  local file
  for file in "$results"/* "$told"/*; do
    echo "--- ${file#/run/}"
    cat "$file"
    echo
  done
  echo "--- journal"
  journalctl --unit="$unit" --output=short-precise --no-pager | tail -n 40
  echo "--- log"
  cat /var/log/rooflight-agent.log
}

trap show EXIT
for act in prepare service_is_killed remote_memory started_by_the_prolog inspect_all; do
  "$act"
  clock "$act"
done
tell nodes "$(sinfo --noheader --Node --format=%T)"
