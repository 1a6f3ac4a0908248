#!/bin/bash
# Runs inside the machine of `tests/machine.sh nspawn`: the blocks of deploy/GUIDE.md, which test_guide.py
# puts into /mnt/guide, one after another; then says what came of them. Prints `name value` lines, then
# each file after a line `--- name`.
set -u
export HOME=/root LANG=C.UTF-8
job=1  # the guide's: its Slurm has just begun to count
service=rooflight-agent

be_a_machine() {  # what a container lacks beside one
  # with loopback alone, the resolver finds no address of this machine (AI_ADDRCONFIG)
  ip link add net0 type veth peer name net1
  ip address add 192.0.2.1/24 dev net0
  ip link set net0 up
  ip link set net1 up
  # control groups of v1 cannot be written to
  awk '$3 == "cgroup" && $4 ~ /^ro,/ {print $2}' /proc/mounts | xargs -rn 1 mount -o remount,bind,rw
  remove_groups
  systemctl start munge  # apt starts what it installs, and here it is installed already
}
remove_groups() {  # those of v1 outlive the container
  find /sys/fs/cgroup -mindepth 2 -depth -type d -path "*/slurm_$HOSTNAME*" -exec rmdir {} +
}
leave() {
  systemctl stop slurmd slurmctld
  remove_groups
}

follow_the_guide() {  # each block in a shell of its own, as if somebody pasted it
  local block name
  mkdir /root/site
  cd /root/site || exit
  cp -r /mnt/guide/site/. .
  for block in /mnt/guide/block*; do
    name=${block##*/}
    if timeout 150 bash -e "$block" >"/tmp/$name" 2>&1; then echo "$name ok"; continue; fi
    echo "$name failed"
    cat "/tmp/$name" >&2
    journalctl --lines=50 --no-pager >&2
    exit 1
  done
}

of_unit() { systemctl show "$1" --property="$2" --value; }
of_slurm() { scontrol show config | sed -n "s/^$1  *= //p"; }
has_run() { if [ -e "$1" ]; then echo ran; fi; }
wait_for_last_row() {
  for _ in {1..300}; do
    jobinspect "$job" --json >/tmp/job
    ! grep -q '"final": true' /tmp/job || return 0
    sleep 0.1
  done
}
ask() {  # DATABASE QUERY : the first row
  python3 - "$@" <<'PY'
import json, sys, urllib.parse, urllib.request
words = urllib.parse.urlencode({"db": sys.argv[1], "q": sys.argv[2]})
answer = json.load(urllib.request.urlopen(f"http://localhost:8086/query?{words}"))
series = answer["results"][0]["series"][0]
print(json.dumps(dict(zip(series["columns"], series["values"][0]))))
PY
}

tell() {
  wait_for_last_row
  echo "unit $(of_unit $service FragmentPath) $(of_unit $service User)"
  echo "prolog $(of_slurm Prolog)"
  echo "epilog $(of_slurm Epilog)"
  echo "check_by_slurm $(has_run /run/rooflight-healthcheck)"
  env -i ROOFLIGHT_STAMP=/tmp/stamp /etc/slurm/rooflight-healthcheck.sh
  echo "check_by_hand $? $(has_run /tmp/stamp)"
  echo "measured $(rooflight workload ceilings --check 2>&1)"
  echo "node $(sinfo --noheader --format=%T)"
  systemctl stop $service
  echo "agent $(of_unit $service Result)"
}

show() {
  echo "--- cpu"
  ask rooflight 'SELECT count("idle_seconds") FROM "cpu"'
  echo "--- row"
  ask rooflight_jobs "SELECT * FROM \"job\" WHERE \"jobid\" = '$job'"
  echo "--- job"
  cat /tmp/job
  echo "--- times"
  cat /tmp/first.out
  echo "--- sums"
  xargs sha256sum </mnt/guide/installed
  echo "--- journal"
  journalctl --output=cat --no-pager --unit=slurmctld --unit=slurmd --unit=$service
  for said in /tmp/block*; do
    echo "--- ${said#/tmp/}"
    cat "$said"
  done
}

be_a_machine
trap leave EXIT
follow_the_guide
PATH=/opt/rooflight/bin:$PATH
tell
show
