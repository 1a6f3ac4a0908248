#!/usr/bin/env bash
# Installs, upgrades or rolls back rooflight on this node, as root, without internet.
#   ./install.sh              install this bundle's release, and make it the one in use
#   ./install.sh --rollback   make the release before it the one in use
# Every release has a virtual environment of its own in $ROOFLIGHT_HOME-releases; $ROOFLIGHT_HOME (/opt/rooflight)
# is a link to the one in use. A release is first tried as the service's user, with the configuration in force: one
# tick, which leaves the node's state alone. Then an agent that runs is restarted; if it does not come up and stay up,
# link and agent go back.
# PYTHON names the interpreter (3.11 or later) to use.
set -euo pipefail
umask 022  # the service's user reads what is installed, and only root writes to it
here=$(cd "$(dirname "${BASH_SOURCE[0]:-.}")" && pwd)
python=$(command -v "${PYTHON:-python3}" || echo "${PYTHON:-python3}")
case "$python" in /*) ;; */*) python=$PWD/$python ;; esac
cd /  # Python imports from where it is started
unset "${!PYTHON@}" "${!PIP_@}"  # the administrator's settings are for his own packages
export PIP_CONFIG_FILE=/dev/null

home=${ROOFLIGHT_HOME:-/opt/rooflight}
releases=$home-releases
service=rooflight-agent
settled_seconds=3

say() { echo "rooflight: $*"; }
fail() { say "$*" >&2; exit 1; }

in_use() { readlink "$home" || true; }

use() {  # RELEASE_FOLDER : the link changes in one step, so that no hook finds it missing
  ln -sfn "$1" "$home.new"
  mv -T "$home.new" "$home"
}

of_service() {  # PROPERTY : nothing without systemd
  [ ! -d /run/systemd/system ] || systemctl show "$service" --property="$1" --value
}

service_runs() { [[ "$(of_service ActiveState)" =~ ^(active|activating|reloading)$ ]]; }

switch_to() {  # RELEASE_FOLDER
  local before
  before=$(in_use)
  works "$1" ||
    fail "$1 does not work here${before:+: $before stays in use}"
  use "$1"
  if service_runs && ! restart; then
    journalctl --unit="$service" --output=cat --lines=8 --no-pager >&2 || true
    [ -n "$before" ] || fail "$1 does not work here"
    use "$before"
    restart || say "the agent does not come up with $before either: journalctl -u $service" >&2
    fail "$1 does not work here: back to $before"
  fi
  if [ -n "$before" ] && [ "$before" != "$1" ]; then ln -sfn "$before" "$releases/previous"; fi
  forget_others
  say "$home is $1"
}

works() {  # RELEASE_FOLDER : one tick; releases before 0.2 would take the node's state for it, and get another
  local state code=0
  state=$(mktemp -d /tmp/rooflight-proof.XXXXXX)
  printf '[agent]\nstate_directory = "%s"\nsocket = "%s/agent.sock"\n' "$state" "$state" >"$state/proof.toml"
  as_service "$state" "$1/bin/rooflight" agent --once --store stdout --config "$state/proof.toml" >/dev/null || code=$?
  rm -rf "$state"
  return "$code"
}

as_service() {  # FOLDER COMMAND... : as the service's user, who gets the folder, and with its settings, if there is one
  local user pid settings=()
  user=$(of_service User)
  if [ "$(id -u)" != 0 ] || ! id "${user:-/}" >/dev/null 2>&1; then "${@:2}"; return; fi
  chown -R "$user": "$1"
  pid=$(of_service MainPID)
  [ "$pid" != 0 ] || pid=$$
  mapfile -d '' settings < <(grep -z '^ROOFLIGHT_' "/proc/$pid/environ")
  setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --init-groups \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "${settings[@]}" "${@:2}"
}

restart() {  # true once the agent has said READY, and still runs after a moment
  local pid
  systemctl reset-failed "$service" || true  # how often another release failed does not count
  systemctl restart "$service" || return 1
  pid=$(of_service MainPID)
  sleep "$settled_seconds"
  [ "$(of_service ActiveState) $(of_service MainPID)" = "active $pid" ]
}

forget_others() {  # the release in use, the one before it, and those that still run, are enough
  local release
  for release in "$releases"/*-*; do
    [ "$release" -ef "$home" ] || [ "$release" -ef "$releases/previous" ] || still_runs "$release" ||
      rm -rf "$release"
  done
}

still_runs() { grep -qsF "$1/" /proc/[0-9]*/maps; }  # RELEASE_FOLDER : `rooflight run`, say, of a long job

install() {
  local release
  (cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "the bundle is damaged: copy it again"
  if [ -e "$home" ] && [ ! -L "$home" ]; then
    fail "$home is a folder and no link: move it away, then begin again"
  fi
  release=$releases/$(cat "$here/VERSION")-$(sha256sum "$here/SHA256SUMS" | cut -c 1-8)
  if [ ! -e "$release/complete" ]; then
    rm -rf "$release"
    "$python" -I -m venv "$release" || fail "$python cannot make virtual environments (Debian: apt-get install python3-venv)"
    "$release/bin/python" -I -m pip --isolated install -qq --disable-pip-version-check --no-input \
      --no-index --find-links "$here/wheels" rooflight
    touch "$release/complete"
  fi
  tell_of_torch "$release"
  switch_to "$release"
}

has_torch() { compgen -G "$1/lib/python*/site-packages/torch" >/dev/null; }

tell_of_torch() {  # RELEASE_FOLDER : bundles have none, and a health check without it measures nothing
  local before
  before=$(in_use)
  if [ -n "$before" ] && has_torch "$before" && ! has_torch "$1"; then
    say "the release before had torch, this one does not yet: $home/bin/pip install 'rooflight[workloads]'"
  fi
}

rollback() {
  local before
  before=$(readlink "$releases/previous") || fail "no release was in use before this one"
  [ -e "$before/complete" ] || fail "$before is gone"
  switch_to "$before"
}

[ -w "$(dirname "$home")" ] || fail "cannot write to $(dirname "$home"): run this as root"
mkdir -p "$releases"
chmod 755 "$releases"
case "${1:-}" in
  "") install ;;
  --rollback) rollback ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$here/install.sh" >&2; exit 2 ;;
esac
