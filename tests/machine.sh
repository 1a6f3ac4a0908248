#!/usr/bin/env bash
# A small Debian machine with systemd as PID 1, new for every test. Needs root, debootstrap, and
# systemd-container or qemu-system-x86.
#   tests/machine.sh build                         make the root once (about a minute, 850 MB)
#   tests/machine.sh compile FOLDER                make byte-code of what is there, for its Python
#   tests/machine.sh nspawn SCRIPT [SRC:DEST ...]  boot it, with SRC read-only at DEST, run SCRIPT
#                                                  as root inside, print what it prints
#   tests/machine.sh qemu SCRIPT [SRC:DEST ...]    the same with a kernel of its own
# The exit code is SCRIPT's; 99 says that the machine did not get as far as running it.
# LIMIT=seconds (120) bounds one run; ROOFLIGHT_CACHE is where the root lies (.cache/machine).
#
# nspawn boots in half a second, on the kernel and the control groups of this machine. qemu emulates
# every instruction, about ten times slower, and wherever it runs alike: Debian's kernel, nothing
# but cgroup v2, modules that may be loaded.
#
# The root is never written to: each boot has an overlay in memory. SCRIPT, its output and its
# exit code pass through one folder, /machine inside, so another way of booting needs only that.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ROOFLIGHT_CACHE:-$repository/.cache/machine}
root=$cache/root
initial_script=$repository/tests/vm/init.sh
python=$repository/.venv/bin/python
suite=bookworm         # its Python is 3.11, the oldest that rooflight runs on
suite_python=3.11
packages=systemd,systemd-sysv,dbus,python3,kmod,iproute2,busybox-static
packages+=,munge,slurmd,slurmctld,slurm-client,rdma-core,perftest,influxdb,python3-venv

say() { echo "machine: $*" >&2; }

build() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9
  [ "$(cat "$root/recipe" 2>/dev/null)" = "$(recipe)" ] || build_root
  [ -z "$(find "$initial_script" "$root/recipe" -newer "$cache/initial-disk" 2>&1)" ] || build_initial_disk
  [ "$cache/site" -nt "$repository/pyproject.toml" ] || build_site
}

recipe() { declare -f build_root install_kernel install_script_unit | cat - <(echo "$packages") | cksum; }

build_root() {
  say "making a Debian root in $root, about a minute"
  rm -rf "$root.new"
  { debootstrap --variant=minbase --include="$packages" "$suite" "$root.new" && install_kernel "$root.new"; } \
    >"$cache/debootstrap.log" 2>&1 || { tail -n 5 "$cache/debootstrap.log" >&2; return 1; }
  rm -rf "$root.new"/var/{cache/apt,lib/apt/lists}/* "$root.new"/usr/share/{doc,man,locale}
  echo machine >"$root.new/etc/hostname"
  echo "127.0.0.1 localhost machine" >"$root.new/etc/hosts"
  # without a terminal, a login prompt delays the end of the boot; devices and logins take seconds
  # where every instruction is emulated; Slurm is started by who wants it
  for service in console-getty serial-getty@ttyS0 getty@tty1 systemd-udevd systemd-udev-trigger \
    systemd-logind systemd-update-utmp systemd-binfmt e2scrub_reap; do
    ln -sf /dev/null "$root.new/etc/systemd/system/$service.service"
  done
  chroot "$root.new" systemctl disable --quiet munge slurmctld slurmd influxdb
  touch "$root.new"/{etc,var}/.updated  # nothing that systemd does after an update is left to do
  install_script_unit "$root.new"
  recipe >"$root.new/recipe"
  rm -rf "$root"
  mv "$root.new" "$root"
}

install_kernel() {  # ROOT : without the package's scripts, which would make a large initial RAM disk
  # shellcheck disable=SC2016 # it is for the shell inside
  chroot "$1" sh -ec 'cd /tmp
    apt-get -qq download "$(apt-cache depends linux-image-amd64 | sed -n "s/.*Depends: //p")"
    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --keep-directory-symlink -C /
    rm linux-image-*.deb
    depmod "$(ls /lib/modules)"'
}

build_initial_disk() {  # what mounts the root
  local folder number=100 module
  folder=$(mktemp -d)
  mkdir -p "$folder/bin" "$folder/modules"
  cp "$root/bin/busybox" "$folder/bin"
  install -m 755 "$initial_script" "$folder/init"
  for module in virtio_pci 9pnet_virtio 9p overlay; do
    chroot "$root" modprobe --set-version "$(ls "$root/lib/modules")" --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
    cp "$root$module" "$folder/modules/$((number++))"
  done
  (cd "$folder" && find . | bin/busybox cpio -oH newc) 2>/dev/null >"$cache/initial-disk"
  rm -rf "$folder"
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
  compile "$cache/site.new"
  mv "$cache/site.new" "$cache/site"
  touch "$cache/site"
}

compile() {  # FOLDER
  # shellcheck disable=SC2016 # it is for the shell inside
  unshare --mount sh -ec 'mount --bind "$2" "$1/mnt"; exec chroot "$1" python3 -m compileall -qq -f -s /mnt /mnt' \
    sh "$root" "$1"
}

nspawn() {  # SCRIPT SRC:DEST...
  local exchange pair binds=()
  exchange=$(mktemp -d)
  for pair in "${@:2}"; do binds+=("--bind-ro=$pair"); done
  boot "$exchange" "$1" systemd-nspawn --quiet --boot --register=no --keep-unit \
    --directory="$root" --volatile=overlay --private-network --resolv-conf=off --machine="rooflight-$$" \
    --bind="$exchange:/machine" "${binds[@]}"
}

qemu() {  # SCRIPT SRC:DEST...
  local exchange pair source tag count=0 shares=()
  exchange=$(mktemp -d)
  : >"$exchange/shares"
  for pair in "${@:2}"; do  # tests/vm/init.sh puts them in their places
    source=${pair%%:*} tag=share$((count++))
    if [ -d "$source" ]; then shares+=(-virtfs "$(share "$tag" "$source"),readonly=on")
    else cp "$source" "$exchange/$tag"; fi
    echo "$tag ${pair#*:}" >>"$exchange/shares"
  done
  # no_timer_check: on a busy machine the emulated clock is late, which the kernel takes for a broken one
  boot "$exchange" "$1" qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -m 1536 -no-reboot \
    -nodefaults -nic none -display none -serial stdio \
    -kernel "$root"/boot/vmlinuz-* -initrd "$cache/initial-disk" \
    -append "console=ttyS0 quiet panic=-1 psi=1 mitigations=off no_timer_check" \
    -virtfs "$(share root "$root"),readonly=on" -virtfs "$(share exchange "$exchange")" "${shares[@]}"
}

share() { echo "local,mount_tag=$1,path=${2//,/,,},security_model=none,multidevs=remap"; }  # TAG FOLDER

boot() {  # EXCHANGE SCRIPT COMMAND... : until the machine powers itself off
  local exchange=$1 code=99
  install -m 755 "$2" "$exchange/script"
  timeout --kill-after=10 "${LIMIT:-120}" "${@:3}" >"$exchange/console" 2>&1 </dev/null || true
  [ ! -e "$exchange/output" ] || cat "$exchange/output"
  if [ -e "$exchange/code" ]; then code=$(<"$exchange/code"); else tail -n 20 "$exchange/console" >&2; fi
  rm -rf "$exchange"
  return "$code"
}

case "${1:-}" in
  build) build ;;
  compile) compile "$2" ;;
  nspawn) shift; nspawn "$@" ;;
  qemu) shift; qemu "$@" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
