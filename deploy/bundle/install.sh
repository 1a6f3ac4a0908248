#!/usr/bin/env bash
# Installs, upgrades or rolls back rooflight on this node, as root, without internet.
#   ./install.sh              install this bundle's release, and make it the one in use
#   ./install.sh --rollback   make the release before it the one in use
# Every release has a virtual environment of its own in $ROOFLIGHT_HOME-releases; $ROOFLIGHT_HOME (/opt/rooflight)
# is a link to the one in use. An agent that runs is restarted, and the link goes back if it does not come up.
# PYTHON names the interpreter (3.11 or later) to use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]:-.}")" && pwd)

home=${ROOFLIGHT_HOME:-/opt/rooflight}
releases=$home-releases
service=rooflight-agent

say() { echo "rooflight: $*"; }
fail() { say "$*" >&2; exit 1; }

in_use() { readlink "$home" || true; }

use() {  # RELEASE_FOLDER : the link changes in one step, so that no hook finds it missing
  ln -sfn "$1" "$home.new"
  mv -T "$home.new" "$home"
}

service_runs() { [ -d /run/systemd/system ] && systemctl is-active --quiet "$service"; }

switch_to() {  # RELEASE_FOLDER
  local before runs=no
  before=$(in_use)
  ! service_runs || runs=yes
  use "$1"
  if [ -n "$before" ] && [ "$before" != "$1" ]; then ln -sfn "$before" "$releases/previous"; fi
  if ! comes_up "$runs"; then
    [ -n "$before" ] || fail "$1 does not work here"
    use "$before"
    [ "$runs" = no ] || systemctl restart "$service" || true
    fail "$1 does not work here: back to $before"
  fi
  forget_others
  say "$home is $1"
}

forget_others() {  # the release in use and the one before it are enough
  local release
  for release in "$releases"/*-*; do
    [ "$release" -ef "$home" ] || [ "$release" -ef "$releases/previous" ] || rm -rf "$release"
  done
}

comes_up() {  # yes|no : whether the service is to be restarted; that returns once it says READY
  "$home/bin/rooflight" agent --once --store stdout >/dev/null || return 1
  [ "$1" = no ] || systemctl restart "$service"
}

install() {
  local python=${PYTHON:-python3} release
  (cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "the bundle is damaged: copy it again"
  if [ -e "$home" ] && [ ! -L "$home" ]; then
    fail "$home is a folder and no link: move it away, then begin again"
  fi
  release=$releases/$(cat "$here/VERSION")-$(sha256sum "$here/SHA256SUMS" | cut -c 1-8)
  if [ ! -e "$release/complete" ]; then
    rm -rf "$release"
    "$python" -m venv "$release" || fail "$python cannot make virtual environments (Debian: apt-get install python3-venv)"
    "$release/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
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
case "${1:-}" in
  "") install ;;
  --rollback) rollback ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
