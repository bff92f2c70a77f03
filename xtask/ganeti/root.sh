#!/bin/bash
# Makes the tree of a Debian system with Ganeti: root.sh DIRECTORY. It is made once and only read
# afterwards; a run that is cut short leaves nothing that looks finished.
set -euo pipefail
ROOT=${1:?the directory of the tree}
exec 9>"$ROOT.lock"
flock 9
[ ! -d "$ROOT" ] || exit 0
NEW=$ROOT.new LOG=$ROOT.log
rm -rf --one-file-system "$NEW"
exec 3>&2 >"$LOG" 2>&1
trap 'status=$?; [ $status = 0 ] || { tail -n 20 "$LOG" >&3; rm -rf --one-file-system "$NEW"; }' EXIT
mirror=$(awk '/^URIs:/{print $2; exit} /^deb[ \t]/{for(i=2;i<=NF;i++) if($i ~ /^http/){print $i; exit}}' \
  /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1)
debootstrap --variant=minbase --include=ca-certificates,iproute2,procps,util-linux,e2fsprogs \
  bookworm "$NEW" "${mirror:-http://deb.debian.org/debian}"
cp -L /etc/resolv.conf "$NEW/etc/resolv.conf"
cp -a /etc/apt/apt.conf.d/. "$NEW/etc/apt/apt.conf.d/" 2>/dev/null || true
printf '#!/bin/sh\nexit 101\n' >"$NEW/usr/sbin/policy-rc.d"
chmod 755 "$NEW/usr/sbin/policy-rc.d"
# socat moves exports, setcap (libcap2-bin) is wanted by Ganeti's start script, cloud-init reads the seed
# that a guest gets. The mounts end with the namespace, whatever happens.
unshare -m --propagation private sh -c "
  mount -t proc proc $NEW/proc; mount --rbind /dev $NEW/dev; mount -t sysfs sysfs $NEW/sys
  export DEBIAN_FRONTEND=noninteractive
  chroot $NEW sh -ec 'apt-get update; apt-get install -y --no-install-recommends ganeti \
    openssh-client socat qemu-system-x86 qemu-utils iputils-arping libcap2-bin lsb-base cloud-init; apt-get clean'"
rm -rf "$NEW"/var/lib/apt/lists/* "$NEW"/usr/share/doc/* "$NEW"/usr/share/locale/* "$NEW/etc/resolv.conf"
sync -f "$NEW"
mv "$NEW" "$ROOT"
rm -f "$LOG"
