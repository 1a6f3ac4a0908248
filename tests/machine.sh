#!/usr/bin/env bash
# A small Debian machine with systemd as PID 1, new for every test. Needs root, debootstrap and
# systemd-container.
#   tests/machine.sh build                         make the root once (about a minute, 250 MB)
#   tests/machine.sh nspawn SCRIPT [SRC:DEST ...]  boot it, with SRC read-only at DEST, run SCRIPT
#                                                  as root inside, print what it prints
# The exit code is SCRIPT's; 99 says that the machine did not get as far as running it.
# LIMIT=seconds (120) bounds one run; ROOFLIGHT_CACHE is where the root lies (.cache/machine).
#
# The root is never written to: each boot has an overlay in memory. SCRIPT, its output and its
# exit code pass through one folder, /machine inside, so another way of booting needs only that.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ROOFLIGHT_CACHE:-$repository/.cache/machine}
root=$cache/root
python=$repository/.venv/bin/python
suite=bookworm         # its Python is 3.11, the oldest that rooflight runs on
suite_python=3.11
packages=systemd,systemd-sysv,dbus,python3

say() { echo "machine: $*" >&2; }

build() {
  mkdir -p "$cache"
  [ -e "$root" ] || build_root
  [ "$cache/site" -nt "$repository/pyproject.toml" ] || build_site
}

build_root() {
  say "making a Debian root in $root, about a minute"
  rm -rf "$root.new"
  debootstrap --variant=minbase --include="$packages" "$suite" "$root.new" >"$cache/debootstrap.log" 2>&1 ||
    { tail -n 5 "$cache/debootstrap.log" >&2; return 1; }
  rm -rf "$root.new"/var/cache/apt/* "$root.new"/usr/share/{doc,man,locale}
  echo machine >"$root.new/etc/hostname"
  echo "127.0.0.1 localhost machine" >"$root.new/etc/hosts"
  # without a terminal, a login prompt delays the end of the boot
  ln -sf /dev/null "$root.new/etc/systemd/system/console-getty.service"
  install_script_unit "$root.new"
  mv "$root.new" "$root"
}

install_script_unit() {  # ROOT
  local units=$1/etc/systemd/system
  cat >"$units/machine-script.service" <<'UNIT'
[Unit]
Description=The script that this machine was booted for
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/machine/script >/machine/output 2>&1; echo $? >/machine/code'
UNIT
  mkdir -p "$units/graphical.target.wants"
  ln -s ../machine-script.service "$units/graphical.target.wants/machine-script.service"
}

build_site() {  # rooflight's dependencies, for the Python of the root and not for this machine's
  local dependencies
  say "fetching rooflight's dependencies for Python $suite_python"
  mapfile -t dependencies < <("$python" - "$repository/pyproject.toml" <<'PYTHON'
import pathlib, sys, tomllib
print(*tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["project"]["dependencies"], sep="\n")
PYTHON
  )
  rm -rf "$cache/site"
  "$python" -m pip install -qq --disable-pip-version-check --root-user-action=ignore \
    --target "$cache/site.new" --python-version "$suite_python" --only-binary=:all: "${dependencies[@]}"
  mv "$cache/site.new" "$cache/site"
  touch "$cache/site"
}

nspawn() {  # SCRIPT SRC:DEST...
  local exchange pair binds=() code=99
  exchange=$(mktemp -d)
  install -m 755 "$1" "$exchange/script"
  for pair in "${@:2}"; do binds+=("--bind-ro=$pair"); done
  timeout --kill-after=10 "${LIMIT:-120}" systemd-nspawn --quiet --boot --register=no --keep-unit \
    --directory="$root" --volatile=overlay --private-network --resolv-conf=off --machine="rooflight-$$" \
    --bind="$exchange:/machine" "${binds[@]}" >"$exchange/console" 2>&1 </dev/null || true
  if [ -e "$exchange/output" ]; then cat "$exchange/output"; else tail -n 20 "$exchange/console" >&2; fi
  [ ! -e "$exchange/code" ] || code=$(<"$exchange/code")
  rm -rf "$exchange"
  return "$code"
}

case "${1:-}" in
  build) build ;;
  nspawn) shift; nspawn "$@" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
