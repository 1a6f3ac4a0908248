#!/usr/bin/env bash
# Installs a bundle on many nodes over ssh: one node first, then a few at a time; stops at the first failure.
#   rollout.sh BUNDLE.tar.gz HOST...   HOST... may be written as Slurm does: gpu[01-16]
#   rollout.sh --rollback HOST...      every node goes back to the release that it used before
# AT_ONCE nodes at a time (10). SSH is the command that reaches a node as root ("ssh -o BatchMode=yes").
# ROOFLIGHT_HOME and PYTHON are passed on. A node that fails keeps the release that it had.
set -euo pipefail

read -ra ssh <<<"${SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}"
at_once=${AT_ONCE:-10}

say() { echo "rooflight: $*"; }
fail() { say "$*" >&2; exit 1; }

expand() {  # HOST... -> one per line
  local hosts
  hosts=$(IFS=,; echo "$*")
  case "$hosts" in
    *"["*) scontrol show hostnames "$hosts" || fail "without scontrol, name every host" ;;
    *) tr ',' '\n' <<<"$hosts" ;;
  esac
}

on_node() {  # HOST : what is to be done there; the bundle comes by stdin
  local unpack="set -e; f=\$(mktemp -d /tmp/rooflight.XXXXXX); trap 'rm -rf \$f' EXIT; tar xzf - -C \$f"
  local settings="${ROOFLIGHT_HOME:+ROOFLIGHT_HOME=$ROOFLIGHT_HOME }${PYTHON:+PYTHON=$PYTHON }"
  if [ "$bundle" = --rollback ]; then
    "${ssh[@]}" "$1" "${settings}bash -s -- --rollback" <"$(dirname "${BASH_SOURCE[0]}")/install.sh"
  else
    "${ssh[@]}" "$1" "$unpack; ${settings}bash \$f/*/install.sh" <"$bundle"
  fi
}

one() {  # HOST : each line it says begins with the host's name
  local code=0
  on_node "$1" 2>&1 | sed "s/^/$1: /" || code=$?
  [ "$code" = 0 ] || { say "failed: $1" >&2; return 1; }
}

batch() {  # HOST... : all at once, then whether all went well
  local host pids=() failed=0
  for host; do one "$host" & pids+=($!); done
  for host in "${pids[@]}"; do wait "$host" || failed=1; done
  return "$failed"
}

[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bundle=$1
shift
[ "$bundle" = --rollback ] || [ -r "$bundle" ] || fail "cannot read $bundle"
mapfile -t hosts < <(expand "$@")
[ "${#hosts[@]}" -gt 0 ] || exit 1

batch "${hosts[0]}" || fail "stopped at the first node; no other was touched"
for ((done = 1; done < ${#hosts[@]}; done += at_once)); do
  batch "${hosts[@]:done:at_once}" || fail "stopped after $done of ${#hosts[@]} nodes"
done
say "done on ${#hosts[@]} nodes"
