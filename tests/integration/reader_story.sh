#!/bin/bash
# Runs inside the machine of tests/machine.sh: two users, one of staff, an agent and the reader.
# Prints `name value` lines, which test_reader.py checks.
set -eEu
unit=rooflight-reader
tell() { echo "$1 $2"; }
shown() { systemctl show "$1" --property="$2" --value; }
wait_until() {  # SECONDS COMMAND... : true as soon as the command is
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "in vain: $*" >&2; return 1; }
    sleep 0.1
  done
}
is() { [ "$(systemctl is-active "$1")" = "$2" ]; }
ask() {  # NAME USER ARGUMENT... : exit code, job shown, and what stands on standard error
  local name=$1 user=$2 code=0
  shift 2
  runuser --user "$user" -- jobinspect "$@" --json >"/tmp/$name.out" 2>"/tmp/$name.err" || code=$?
  tell "$name" "$code $(grep -m1 -o '"jobid": "[^"]*"' "/tmp/$name.out" || true)"
  tell "$name.words" "$(tr '\n' ' ' <"/tmp/$name.err")"
}

trap 'journalctl --output=cat --no-pager --lines=30' ERR

systemd-sysusers
groupadd rooflight-staff
useradd alice
useradd bob
useradd carol --groups rooflight-staff
PATH=$PATH:/opt/rooflight/bin

tell verify "$(systemd-analyze verify /etc/systemd/system/$unit.{socket,service} 2>&1 | grep -cF $unit || true)"
tell exposure "$(systemd-analyze security --no-pager $unit.service | grep -oE '[0-9.]+ [A-Z]+' | tail -n 1)"

systemctl start rooflight-agent
for user in alice bob; do
  rooflight job start "$user-job" --user "$user" --cpus 1
  rooflight job end "$user-job"
done
wait_until 60 jobinspect alice-job --json --store local
wait_until 60 jobinspect bob-job --json --store local

systemctl enable --quiet --now $unit.socket
tell socket "$(stat --format='%F %a' /run/rooflight-reader.sock)"
tell before "$(systemctl is-active $unit.service || true)"
ask own alice alice-job
tell after "$(systemctl is-active $unit.service || true)"
pid=$(shown $unit.service MainPID)
tell user "$(stat --format=%U "/proc/$pid")"
tell capabilities "$(awk '/^CapEff/ {print $2}' "/proc/$pid/status")"

ask another alice bob-job
ask unknown alice eve-job
ask last alice last
ask other_way bob alice-job
ask staff carol alice-job
ask staff_too carol bob-job
ask root root bob-job
ask around alice bob-job --store local
tell file "$(runuser --user alice -- cat /var/lib/rooflight/rooflight.db 2>&1 | head -c 80 | tr -c '[:print:]' ' ')"

systemctl stop rooflight-agent
tell agent_folder "$([ -e /run/rooflight ] || echo gone)"
ask without_agent alice alice-job
kill -9 "$(shown $unit.service MainPID)"
ask killed alice alice-job
wait_until 60 is $unit.service inactive
ask idle alice alice-job

mkdir /run/wrong
sed 's/rooflight-staff/no-such-group/' /etc/rooflight/rooflight.toml >/run/wrong/rooflight.toml
mount --bind /run/wrong/rooflight.toml /etc/rooflight/rooflight.toml
systemctl stop $unit.service
ask wrong alice alice-job
ask wrong_again alice alice-job
umount /etc/rooflight/rooflight.toml
systemctl stop $unit.service
ask mended alice alice-job

systemctl stop $unit.socket $unit.service
ask away alice alice-job

echo "--- journal"
journalctl --unit=$unit.service --unit=$unit.socket --output=short-precise --no-pager | tail -n 40
