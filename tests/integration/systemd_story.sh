#!/bin/bash
# Runs inside the machine of tests/machine.sh: the agent's life under systemd. Prints `name value`
# lines, which test_systemd.py checks.
set -eu
unit=rooflight-agent
tell() { echo "$1 $2"; }
shown() { systemctl show "$unit" --property="$1" --value; }
wait_until() {  # SECONDS COMMAND... : true as soon as the command is
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}
restarted() { [ "$(shown NRestarts)" -ge 1 ] && systemctl is-active --quiet "$unit"; }

systemd-sysusers
systemctl enable --quiet "$unit"
tell verify "$(systemd-analyze verify "/etc/systemd/system/$unit.service" 2>&1 | grep -cF "$unit")"
tell exposure "$(systemd-analyze security --no-pager "$unit" | grep -oE '[0-9.]+ [A-Z]+' | tail -n 1)"

systemctl start "$unit" || true
tell started "$(systemctl is-active "$unit" || true)"
pid=$(shown MainPID)
tell user "$(stat --format=%U "/proc/$pid" 2>/dev/null || true)"
tell no_new_privileges "$(awk '/^NoNewPrivs/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)"
tell capabilities "$(awk '/^CapEff/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)"
tell state_directory "$(stat --format='%U:%a' /var/lib/rooflight || true)"
tell socket "$(stat --format=%F /run/rooflight/agent.sock || true)"

job=(SLURM_JOB_ID=7 SLURM_JOB_UID=4321 SLURM_JOB_CPUS_PER_NODE=1)
hook=(/opt/rooflight/bin/python -I -S /opt/rooflight/lib/python3.11/site-packages/agent/slurm/hook.py)
send='import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", sys.argv[1])'
may_send() {  # UID SOCKET
  setpriv --reuid="$1" --regid="$1" --clear-groups python3 -I -c "$send" "$2" 2>/dev/null && echo yes || echo no
}
env "${job[@]}" "${hook[@]}" start
own=/run/rooflight/users/4321.sock
tell own_socket "$(may_send 4321 $own) $(may_send 4322 $own) $(may_send 0 $own)"
tell root_socket "$(may_send 4321 /run/rooflight/root.sock) $(may_send 0 /run/rooflight/root.sock)"
tell public_socket "$(may_send 4322 /run/rooflight/agent.sock)"
env "${job[@]}" SLURM_JOB_EXIT_CODE2=0:0 "${hook[@]}" end
gone() { [ ! -e $own ]; }
wait_until 20 gone || true
tell own_socket_later "$([ -e $own ] && echo there || echo gone)"

before=$(date +%s%N)
systemctl stop "$unit" || true
tell stop_milliseconds "$((($(date +%s%N) - before) / 1000000))"
tell stop_result "$(shown Result)"
tell stop_code "$(shown ExecMainCode):$(shown ExecMainStatus)"

systemctl start "$unit" || true
hung=$(shown MainPID)
systemctl kill --kill-whom=main --signal=STOP "$unit" || true
wait_until 40 restarted || true
tell after_hang "$(systemctl is-active "$unit" || true)"
tell hung_process "$([ -e "/proc/$hung" ] || echo gone)"
tell watchdog_lines "$(journalctl --unit="$unit" --output=cat | grep -c 'Watchdog timeout')"
systemctl stop "$unit" || true

# another agent has the spool, answers no more, and ends 3 s later
runuser --user rooflight -- flock /var/lib/rooflight/spool/lock sleep 3 &
sleep 0.3
systemctl start --no-block "$unit"
sleep 1.5
tell while_locked "$(systemctl is-active "$unit" || true) $(shown StatusText)"
wait_until 20 systemctl is-active --quiet "$unit" || true
tell once_free "$(systemctl is-active "$unit" || true) $(shown NRestarts)"
tell waiting_lines "$(journalctl --unit="$unit" --output=cat | grep -c 'waiting 30 s for the spool')"
systemctl stop "$unit" || true

systemctl reset-failed "$unit" || true
mkdir -p /run/wrong
echo 'intervall_seconds = 10' >/run/wrong/rooflight.toml
mount --bind /run/wrong/rooflight.toml /etc/rooflight/rooflight.toml
systemctl start "$unit" 2>/dev/null || true
sleep 2
tell wrong_config "$(systemctl is-active "$unit" || true)"
tell wrong_config_status "$(shown ExecMainStatus)"
tell wrong_config_restarts "$(shown NRestarts)"
tell wrong_config_lines "$(journalctl --unit="$unit" --output=cat | grep -c intervall_seconds)"

echo "--- journal"
journalctl --unit="$unit" --output=short-precise --no-pager | tail -n 40
