#!/usr/bin/env bash
# A whole Slurm cluster on this machine, for tests: real daemons, several slurmd, all on loopback.
# Needs root and Debian's packages (deploy/bootstrap.sh services installs them).
#   tests/slurm/bed.sh up      start it; about 4 s, below 1 s without accounting
#   tests/slurm/bed.sh down    cancel its jobs, end its daemons, remove every trace
# Settings: BED=folder NODES=4 ACCOUNTING=1|0 PORT=first of 300 ports, and PROLOG= EPILOG= EPILOGSLURMCTLD=script
#
# Nodes are bed1, bed2...: each slurmd has a control group of its own (`slurm_bed1`), because Debian
# builds Slurm for several slurmd on one machine. Afterwards: export SLURM_CONF=$BED/etc/slurm.conf
set -euo pipefail

bed=${BED:-/run/rooflight-bed}
nodes=${NODES:-4}
accounting=${ACCOUNTING:-1}
port=${PORT:-26817}
prolog=${PROLOG:-}
epilog=${EPILOG:-}
epilogslurmctld=${EPILOGSLURMCTLD:-}
database=$bed/database/socket
host=$(hostname -s)
export SLURM_CONF=$bed/etc/slurm.conf PATH=$PATH:/usr/sbin

say() { echo "bed: $*" >&2; }

wait_for() {  # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { say "in vain: $*"; return 1; }
    sleep 0.05
  done
}

make_folders() {
  local node
  mkdir -p "$bed"/{etc,run,log,state,munge,devices,database}
  chmod 755 "$bed" "$bed/munge"
  for ((node = 1; node <= nodes; node++)); do mkdir -p "$bed/spool/bed$node"; done
  # device files without a driver are enough for Slurm to hand out GPUs
  for gpu in 0 1 2 3; do [ -e "$bed/devices/nvidia$gpu" ] || mknod -m 666 "$bed/devices/nvidia$gpu" c 195 "$gpu"; done
  chown slurm "$bed"/{state,log,run}
  [ -s "$bed/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$bed/munge/key")
}

write_configuration() {
  cat >"$bed/etc/slurm.conf" <<EOF
ClusterName=bed
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its credential has expired: otherwise slurmd would run no second prolog
AuthInfo=socket=$bed/munge/socket,cred_expire=8
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$bed/state
SlurmdSpoolDir=$bed/spool/%n
SlurmctldPidFile=$bed/run/slurmctld.pid
SlurmdPidFile=$bed/run/slurmd.%n.pid
SlurmctldLogFile=$bed/log/slurmctld.log
SlurmdLogFile=$bed/log/slurmd.%n.log
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
KillWait=3
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PrologFlags=Alloc,Contain
${prolog:+Prolog=$prolog}
${epilog:+Epilog=$epilog}
${epilogslurmctld:+EpilogSlurmctld=$epilogslurmctld}
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherFrequency=task=5
GresTypes=gpu
NodeName=bed[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 201))-$((port + 200 + nodes))] CPUs=2 RealMemory=4000 Gres=gpu:a100:4
PartitionName=main Nodes=ALL Default=YES State=UP DefMemPerCPU=500
EOF
  # on bed4 Slurm counts the GPUs in another order than their device files
  {
    echo "NodeName=bed[1-3] Name=gpu Type=a100 File=$bed/devices/nvidia[0-3]"
    for gpu in 3 1 2 0; do echo "NodeName=bed4 Name=gpu Type=a100 File=$bed/devices/nvidia$gpu"; done
  } >"$bed/etc/gres.conf"
  cat >"$bed/etc/cgroup.conf" <<EOF
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=yes
ConstrainRAMSpace=yes
ConstrainDevices=yes
EOF
}

write_accounting_configuration() {
  cat >>"$SLURM_CONF" <<EOF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 2))
AccountingStoragePass=$bed/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
EOF
  cat >"$bed/etc/slurmdbd.conf" <<EOF
AuthType=auth/munge
AuthInfo=socket=$bed/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((port + 2))
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$bed/log/slurmdbd.log
PidFile=$bed/run/slurmdbd.pid
CommunicationParameters=NoInAddrAny
EOF
  chown slurm "$bed/etc/slurmdbd.conf"
  chmod 600 "$bed/etc/slurmdbd.conf"
}

sql() { mariadb --no-defaults --socket="$database" "$@"; }

start_database() {
  local folder=$bed/database
  chown mysql "$folder"
  mariadb-install-db --no-defaults --user=mysql --datadir="$folder" --skip-test-db \
    --auth-root-authentication-method=normal >"$bed/log/install-db.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$folder" --socket="$database" \
    --pid-file="$folder/pid" --skip-networking --skip-log-bin --innodb-buffer-pool-size=64M \
    --innodb-log-file-size=32M --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 \
    >"$bed/log/mariadbd.log" 2>&1 </dev/null &
  wait_for 20 sql -e "select 1"
  sql -e "create database slurm_acct_db; create user slurm@localhost identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost"
}

start_accounting() {
  write_accounting_configuration
  start_database
  MYSQL_UNIX_PORT=$database slurmdbd  # there is no key in slurmdbd.conf for the path of a socket
  wait_for 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$((port + 2))"
  sacctmgr -i -Q add cluster bed >/dev/null 2>&1 || true
  sacctmgr -i -Q add account testing Cluster=bed >/dev/null
  sacctmgr -i -Q add user nobody Account=testing >/dev/null
}

no_job_left() { [ -z "$(timeout 5 squeue -h)" ]; }
all_idle() { [ "$(sinfo -h -t idle -o %D)" = "$nodes" ]; }

up() {
  local node
  make_folders
  write_configuration
  munged --key-file="$bed/munge/key" --socket="$bed/munge/socket" --pid-file="$bed/munge/pid" \
    --log-file="$bed/munge/log" --seed-file="$bed/munge/seed" --num-threads=4
  if [ "$accounting" = 1 ]; then start_accounting; fi
  slurmctld 2>>"$bed/log/stderr"
  wait_for 15 scontrol ping
  for ((node = 1; node <= nodes; node++)); do slurmd -N "bed$node" 2>>"$bed/log/stderr"; done
  wait_for 20 all_idle
}

cancel_jobs() {
  local job
  [ -s "$bed/run/slurmctld.pid" ] || return 0
  for job in $(timeout 5 squeue -h -o %A || true); do timeout 5 scancel --full "$job" || true; done
  wait_for 8 no_job_left || true
}

is_alive() {  # PID : a zombie, which waits for init to take it away, is dead
  [ -d "/proc/$1" ] && ! grep -qs '^State:.Z' "/proc/$1/status"
}

end_daemons() {  # PIDFILE... : all are asked first, then each is waited for
  local file pid
  for file in "$@"; do kill "$(cat "$file")" 2>/dev/null || true; done
  for file in "$@"; do
    pid=$(cat "$file" 2>/dev/null) || continue
    for _ in $(seq 100); do is_alive "$pid" || break; sleep 0.05; done
    if is_alive "$pid"; then kill -9 "$pid"; fi
  done
}

down() {
  local name files
  cancel_jobs
  for name in 'run/slurmd.*.pid' run/slurmctld.pid run/slurmdbd.pid database/pid munge/pid; do
    mapfile -t files < <(compgen -G "$bed/$name" || true)
    end_daemons "${files[@]}"
  done
  find /sys/fs/cgroup/*/slurm_bed* -depth -type d -exec rmdir {} \; 2>/dev/null || true
  rm -rf "$bed"
}

give_up() {
  trap - ERR
  tail -n 5 "$bed"/log/* >&2
  down
}

case "${1:-}" in
  up) set -E; trap 'give_up; exit 1' ERR; up; trap - ERR ;;
  down) down ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
