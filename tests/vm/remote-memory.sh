#!/bin/bash
# A job for the virtual machine: writes into its own memory over RDMA (Soft-RoCE), and says into the
# file of its argument how many packets the link sent meanwhile.
set -eu
counters=/sys/class/infiniband/rxe0/ports/1/hw_counters
options=(--ib-dev=rxe0 --iters=100 --size=65536 --gid-index=1)
before=$(<"$counters/sent_pkts")
ib_write_bw "${options[@]}" >"$1.server" 2>&1 &
until grep -qE ': [0-9A-F]+:4853 [0-9A-F]+:0000 0A ' /proc/net/tcp /proc/net/tcp6; do  # it listens, on 18515
  sleep 0.2
done
ib_write_bw "${options[@]}" 192.0.2.1 >"$1.client" 2>&1 || cat "$1.client" "$1.server" >"$1.error"
wait
sleep 2
echo "$(($(<"$counters/sent_pkts") - before))" >"$1"
