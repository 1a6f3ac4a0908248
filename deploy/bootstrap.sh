#!/usr/bin/env bash
# Sets up a working copy: the part of the Makefile that is longer than a line.
#   deploy/bootstrap.sh install   .venv with rooflight and its reference workloads
#   deploy/bootstrap.sh develop   ... and the tools of its developers
#   deploy/bootstrap.sh services  the real services that tests talk to, by apt, where this is root
#   deploy/bootstrap.sh python    names the interpreter that these would use
# PYTHON names the interpreter to use. With ROOFLIGHT_REQUIRE_SERVICES=1 a missing service is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian package : a command (or file) that it brings : what is left out without it
services=(
  "influxdb:influxd:tests against InfluxDB"
  "victoria-metrics:victoria-metrics:tests against VictoriaMetrics"
  "gcc:gcc:tests that replay a recorded GPU"
  "gcc-aarch64-linux-gnu:aarch64-linux-gnu-gcc:tests of the C kernels for other CPUs"
  "libc6-dev-arm64-cross:/usr/aarch64-linux-gnu/include/stdio.h:tests of the C kernels for other CPUs"
  "qemu-user:qemu-aarch64:tests of the C kernels on other CPUs"
  "systemd-container:systemd-nspawn:tests under systemd"
  "debootstrap:debootstrap:tests under systemd"
  "qemu-system-x86:qemu-system-x86_64:tests in a virtual machine"
  "munge:munged:tests on a Slurm cluster"
  "slurmctld:slurmctld:tests on a Slurm cluster"
  "slurmd:slurmd:tests on a Slurm cluster"
  "slurm-client:srun:tests on a Slurm cluster"
  "slurmdbd:slurmdbd:tests on a Slurm cluster"
  "mariadb-server:mariadbd:tests on a Slurm cluster"
  "openssh-server:sshd:tests of a rollout"
  "openssh-client:ssh:tests of a rollout"
  "chromium:chromium:tests of the HTML report"
  "environment-modules:modulecmd:the test of the modulefile"
  "shellcheck:shellcheck:the check of shell scripts"
  "collectd-core:collectd:the benchmark beside collectd"
  "prometheus-node-exporter:prometheus-node-exporter:the benchmark beside node_exporter"
  "stress-ng:stress-ng:the benchmark on a loaded machine"
  "valgrind:valgrind:the benchmark's count of instructions"
)

say() { echo "rooflight: $*"; }
fail() { say "$*" >&2; exit 1; }
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

quietly() {  # COMMAND... : its output is shown only if it fails
  local log code=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || code=$?
  [ "$code" = 0 ] || tail -n 15 "$log" >&2
  rm -f "$log"
  return "$code"
}

apt_install() {  # PACKAGE...
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then  # Debian's way to say: start none of what is installed
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends "$@"
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

has_venv() { "$1" -c 'import ensurepip' 2>/dev/null; }

find_python() {  # the first that is new enough, and can make virtual environments if any of them can
  local candidates=(python3 python3.14 python3.13 python3.12 python3.11) candidate test
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for test in has_venv true; do
    for candidate in "${candidates[@]}"; do
      if new_enough "$candidate" && "$test" "$candidate"; then echo "$candidate"; return; fi
    done
  done
  fail "needs Python 3.11 or later, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true);" \
    "install one and name it: make PYTHON=/path/to/python3"
}

make_venv() {
  local python version
  if new_enough .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; then return; fi
  python=$(find_python)
  if ! has_venv "$python"; then  # Debian has it in a package of its own
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    can_apt || fail "$python cannot make virtual environments; as root: apt-get install python$version-venv"
    say "installing python$version-venv"
    quietly apt-get update
    apt_install "python$version-venv"
  fi
  "$python" -m venv --clear .venv
}

pip_install() {  # the build back-end, which pip installs by itself, is constrained by the environment
  PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt "$@"
}

install() {
  make_venv
  say "installing rooflight and torch into .venv; the first time this takes some minutes (torch is large)"
  pip_install -e '.[workloads]'
}

develop() {
  # pip reads dependency groups by itself only from version 25.1
  local group
  group=$(.venv/bin/python -c 'import pathlib, tomllib
print("\n".join(tomllib.loads(pathlib.Path("pyproject.toml").read_text())["dependency-groups"]["dev"]))')
  say "installing the tools for tests into .venv"
  mapfile -t group <<<"$group"
  pip_install "${group[@]}"
}

missing() {  # -> the lines of `services` whose command is not here
  local line command
  for line in "${services[@]}"; do
    IFS=: read -r _ command _ <<<"$line"
    command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || [ -f "$command" ] || echo "$line"
  done
}

install_services() {
  local wanted known=() package
  wanted=$(missing)
  if [ -n "$wanted" ] && can_apt; then
    quietly apt-get update || say "apt-get update failed"
    while IFS=: read -r package _; do  # not every release of Debian has every service
      ! apt-cache show "$package" >/dev/null 2>&1 || known+=("$package")
    done <<<"$wanted"
    say "installing for tests, and starting none of it: ${known[*]}"
    apt_install "${known[@]}" || say "apt could not install them"
  fi
  report_missing
}

report_missing() {
  local left
  left=$(missing)
  [ -n "$left" ] || return 0
  while IFS=: read -r package command what; do
    say "$command is not here, so this is left out: $what (Debian: apt-get install $package)"
  done <<<"$left"
  [ "${ROOFLIGHT_REQUIRE_SERVICES:-}" != 1 ] || fail "ROOFLIGHT_REQUIRE_SERVICES=1 asks for all of them"
}

case "${1:-}" in
  install) install ;;
  develop) develop ;;
  services) install_services ;;
  python) find_python ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
