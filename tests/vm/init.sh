#!/bin/busybox sh
# shellcheck shell=dash
# Begins the machine of `tests/machine.sh qemu`, as process 1 of its initial RAM disk: mounts the root
# with an overlay in memory, puts what was shared in its places, and makes way for systemd.
busybox=/bin/busybox
share() { $busybox mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"; }  # TAG FOLDER OPTIONS

for module in /modules/*; do $busybox insmod "$module"; done
$busybox mkdir /lower /upper /root
share root /lower ro,cache=loose
$busybox mount -t tmpfs memory /upper
$busybox mkdir /upper/files /upper/work
$busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
$busybox mkdir /root/machine
share exchange /root/machine rw
while read -r tag place; do
  if [ -e "/root/machine/$tag" ]; then
    $busybox mkdir -p "/root/${place%/*}"
    $busybox cp -p "/root/machine/$tag" "/root/$place"
  else
    $busybox mkdir -p "/root/$place"
    share "$tag" "/root/$place" ro,cache=loose
  fi
done </root/machine/shares
exec $busybox switch_root /root /sbin/init
