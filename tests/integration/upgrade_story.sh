#!/bin/bash
# Runs inside the machine of tests/machine.sh: a node whose store is away is upgraded, more than once, while jobs run.
# Prints `name value` lines, which test_upgrade.py checks.
set -eEu
unit=rooflight-agent
home=/opt/rooflight
state=/var/lib/rooflight
export ROOFLIGHT_CONFIG=/mnt/upgrade/site.toml  # of whoever installs; the service has its own

tell() { echo "$1 $2"; }
shown() { systemctl show "$unit" --property="$1" --value; }
took() { tell "$1" "$(($(date +%s%3N) - began))"; }
wait_until() {  # SECONDS COMMAND... : true as soon as the command is
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "in vain: $*" >&2; return 1; }
    sleep 0.1
  done
}
waiting() { cat "$state"/spool/*-*.lp | wc -l; }
has_waiting() { [ "$(waiting)" -ge "$1" ]; }
none_of_the_backlog() { ! compgen -G "$state/spool/1764*" && [ "$(waiting)" -lt 200 ]; }

keep_count() {  # NAME : what waits now, to be held against what is there later
  rm -rf /tmp/before
  cp -r "$state/spool" /tmp/before
  tell "$1.ledger" "$(awk '/spool_full|refused/ {printf "%d ", $2}' "$state/spool/ledger")"
}
gone() {  # lines of before that no longer stand in the spool; the last one may have been half written
  local file name lost=0
  for file in /tmp/before/*-*.lp; do
    name=$(basename "$file")
    cmp --quiet --bytes="$(stat --format=%s "$file")" "$file" "$state/spool/$name" || lost=$((lost + 1))
  done
  echo "$lost of $(cat /tmp/before/*-*.lp | wc -l)"
}
about() {  # NAME : how the node is after a step
  tell "$1.agent" "$(systemctl is-active "$unit" || true)"
  tell "$1.release" "$(basename "$(readlink $home)") $(tr '\0' ' ' <"/proc/$(shown MainPID)/cmdline" | cut -d / -f 4)"
  tell "$1.gone" "$(gone)"
  tell "$1.said" "$(tail -n 1 "/tmp/$1")"
}
step() {  # NAME UMASK COMMAND... : whoever installs has settings of his own
  local name=$1 code=0 began
  keep_count "$name"
  began=$(date +%s%3N)
  (umask "$2"; cd /root; PIP_USER=1 PIP_TARGET=/nowhere PYTHONPATH=/nowhere "${@:3}") >"/tmp/$name" 2>&1 || code=$?
  tell "$name.code" "$code"
  took "$name.ms"
  about "$name"
}
release_of() {  # FOLDER VERSION [CODE] : a bundle of another version, whose agent's last words are this code
  local installed
  cp -r /root/bundle "$1"
  echo "$2" >"$1/VERSION"
  (cd "$1" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >/tmp/sums)
  mv /tmp/sums "$1/SHA256SUMS"
  [ $# = 3 ] || return 0
  installed=$home-releases/$2-$(sha256sum "$1/SHA256SUMS" | cut -c 1-8)
  cp -r "$(readlink $home)" "$installed"
  sed -i "s|$(readlink $home)/|$installed/|" "$installed"/bin/*
  echo "$3" >>"$installed"/lib/python3*/site-packages/agent/daemon.py
}

trap 'cat /tmp/first /tmp/newer /tmp/dies; journalctl --output=cat --no-pager --lines=40' ERR

# the bundle, by somebody whose files are his alone
(umask 077; cd /root; tar xzf /mnt/upgrade/bundle.tar.gz; mv rooflight-* bundle
  PIP_REQUIRE_VIRTUALENV=1 bundle/install.sh) >/tmp/first 2>&1
(umask 077; $home/bin/rooflight deploy render --for systemd --into /) >/dev/null
tell rendered "$(stat --format=%a /etc/rooflight /etc/rooflight/rooflight.toml /etc/systemd/system/$unit.service | xargs)"
systemd-sysusers
systemctl daemon-reload

# what an agent 0.1.0 left behind, and what it was told to do since
cp -r /mnt/upgrade/state $state
chown -R rooflight: $state
chmod 750 $state
rm -rf $state/README.md
systemctl start "$unit"
tell started "$(systemctl is-active "$unit")"
python3 -c 'import time
while True:
    sum(range(20_000))
    time.sleep(0.005)' &  # some work, on a machine that has other work
burner=$!
$home/bin/rooflight job start burn --pid $burner --name burn
wait_until 20 has_waiting 100

# somebody's `rooflight run`, of two releases ago
cp -r "$(readlink $home)" $home-releases/0.0.1-run
$home-releases/0.0.1-run/bin/python -c 'import msgspec, time; time.sleep(600)' &
runs=$!

keep_count look
as_user() { runuser --user nobody -- env --chdir=/ "$@"; }
$home/bin/rooflight agent --once --store stdout >/tmp/look 2>/dev/null
as_user $home/bin/rooflight agent --once --store stdout 2>/dev/null | grep -c ^memory, >/tmp/look_of_user
tell look.ticks "$(grep -c ^memory, /tmp/look) $(cat /tmp/look_of_user)"
tell look.left "$(find /tmp -maxdepth 1 -name 'rooflight-*' | wc -l)"
code=0
$home/bin/rooflight agent --once >/tmp/look 2>&1 || code=$?
tell look.away "$code"
about look
$home/bin/rooflight job start heard --name heard  # the agent's socket is still its own

release_of /root/newer 9.9.9
step newer 000 /root/newer/install.sh
tell newer.writable "$(find $home-releases /etc/systemd/system/$unit.service ! -type l -perm /022 | wc -l)"

# proven as 0.1.0 would have it, with the state that its configuration names; then dies
release_of /root/dies 9.9.10 '
def run_once(config):
    state = config.state_directory()
    with daemon(config, spool_directory=state / "spool", socket=config.socket_path()) as running:
        running.loop.tick(int(time.time() * 1000))
_run = run_agent
def run_agent(*given):
    import threading
    threading.Timer(1.0, os._exit, [1]).start()
    return _run(*given)'
step dies 022 /root/dies/install.sh

cp /etc/rooflight/rooflight.toml /tmp/right.toml
echo 'intervall_seconds = 1' | cat - /tmp/right.toml >/etc/rooflight/rooflight.toml
step strict 022 /root/newer/install.sh
tell strict.words "$(grep -c "rooflight.toml: unknown key 'intervall_seconds'" /tmp/strict || true)"
cp /tmp/right.toml /etc/rooflight/rooflight.toml

step back 022 /root/bundle/install.sh --rollback
tell proofs "$(find /tmp -maxdepth 1 -name 'rooflight-*' | wc -l)"
tell kept "$(cd $home-releases; echo [0-9]* | sed -E 's/-[0-9a-f]{8}//g')"

# the store comes back: what waited is in it
cp -r $state/spool /tmp/backlog
systemctl start influxdb
wait_until 30 $home/bin/rooflight store setup
wait_until 30 none_of_the_backlog
kill -STOP $burner
sleep 0.1
tell burned "$(awk -v hertz="$(getconf CLK_TCK)" '{print ($14 + $15) / hertz}' /proc/$burner/stat)"
for job in burn 4711 4712_3; do $home/bin/rooflight job end $job; done
systemctl stop "$unit"
tell left "$(cat $state/spool/*-*.lp 2>/dev/null | wc -l)"
tell ledger "$(awk '/spool_full|refused/ {printf "%d ", $2}' $state/spool/ledger)"
kill -KILL $burner $runs
$home/bin/python /mnt/upgrade/stored.py /tmp/backlog
echo "--- journal"
journalctl --unit="$unit" --output=cat --no-pager | tail -n 60
