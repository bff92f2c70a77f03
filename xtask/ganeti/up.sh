#!/bin/bash
# Brings up a one-node Ganeti cluster from nothing, in namespaces of its own, with a chroot under
# $LAB/root. Run again, it only starts what does not run. Needs root and a Debian mirror.
set -euo pipefail
LAB=${LAB:?the directory of the lab}
ROOT=$LAB/root
NODE=node1.example.test NODE_IP=192.0.2.11
CLUSTER=cluster.example.test CLUSTER_IP=192.0.2.10
mkdir -p "$LAB"

if [ ! -e "$ROOT/.ready" ]; then
  rm -rf --one-file-system "$ROOT"
  mirror=$(awk '/^URIs:/{print $2; exit} /^deb[ \t]/{for(i=2;i<=NF;i++) if($i ~ /^http/){print $i; exit}}' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1)
  debootstrap --variant=minbase --include=ca-certificates,iproute2,procps,util-linux,e2fsprogs \
    bookworm "$ROOT" "${mirror:-http://deb.debian.org/debian}" >"$LAB/debootstrap.log" 2>&1
  cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
  cp -a /etc/apt/apt.conf.d/. "$ROOT/etc/apt/apt.conf.d/" 2>/dev/null || true
  printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
  chmod 755 "$ROOT/usr/sbin/policy-rc.d"
  # socat moves exports, setcap (libcap2-bin) is wanted by Ganeti's start script.
  unshare -m --propagation private sh -c "
    mount -t proc proc $ROOT/proc; mount --rbind /dev $ROOT/dev; mount -t sysfs sysfs $ROOT/sys
    DEBIAN_FRONTEND=noninteractive chroot $ROOT sh -c 'apt-get update && apt-get install -y --no-install-recommends \
      ganeti openssh-client socat qemu-system-x86 qemu-utils iputils-arping libcap2-bin lsb-base'" \
    >"$LAB/apt.log" 2>&1
  touch "$ROOT/.ready"
fi

alive() { [ -s "$LAB/init.pid" ] && tr '\0' ' ' <"/proc/$(cat "$LAB/init.pid")/cmdline" 2>/dev/null | grep -q ganeti-lab-init; }
if ! alive; then
  cat >"$LAB/namespaces.sh" <<EON
set -e
mount --make-rprivate /
mount --bind $ROOT $ROOT
mount -t proc proc $ROOT/proc
mount -t sysfs -o ro sysfs $ROOT/sys
mount --rbind /dev $ROOT/dev
mount -t tmpfs tmpfs $ROOT/run
mkdir -p $ROOT/run/lock
mount -t tmpfs tmpfs $ROOT/tmp
hostname $NODE
ip link set lo up
ip link add br0 type bridge forward_delay 0
ip addr add $NODE_IP/24 dev br0
ip link add veth0 type veth peer name veth1
ip link set veth1 master br0
ip link set veth0 up; ip link set veth1 up; ip link set br0 up
cd $ROOT; mkdir -p .oldroot; pivot_root . .oldroot; cd /
umount -l /.oldroot
exec chroot / /bin/bash -c 'trap : HUP TERM INT; while :; do sleep 3600 & wait \$!; done' ganeti-lab-init
EON
  setsid unshare -m -u -i -n -p -f bash "$LAB/namespaces.sh" </dev/null >"$LAB/namespaces.log" 2>&1 &
  holder=$!
  for _ in $(seq 100); do
    child=$(awk '{print $1}' "/proc/$holder/task/$holder/children" 2>/dev/null || true)
    [ -n "$child" ] && echo "$child" >"$LAB/init.pid" && alive && break
    sleep 0.1
  done
  alive || { cat "$LAB/namespaces.log"; exit 1; }
fi
cat >"$LAB/enter" <<EON
#!/bin/bash
exec nsenter -t \$(cat $LAB/init.pid) -m -u -i -n -p -r -w -- env -i HOME=/root LANG=C.UTF-8 \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "\$@"
EON
chmod 755 "$LAB/enter"
ENTER=$LAB/enter

printf '127.0.0.1 localhost\n%s %s node1\n%s %s cluster\n' "$NODE_IP" "$NODE" "$CLUSTER_IP" "$CLUSTER" >"$ROOT/etc/hosts"
for n in 1 2 3; do echo "192.0.2.2$n inst$n.example.test" >>"$ROOT/etc/hosts"; done
echo "$NODE" >"$ROOT/etc/hostname"
: >"$ROOT/etc/resolv.conf"
mkdir -p "$ROOT/srv/ganeti/file-storage" "$ROOT/srv/ganeti/os" "$ROOT/etc/ganeti"
echo /srv/ganeti/file-storage >"$ROOT/etc/ganeti/file-storage-paths"

# Daemons under LC_ALL=C: otherwise a value that is not ASCII breaks Ganeti's own configuration.
if [ ! -e "$ROOT/var/lib/ganeti/server.pem" ]; then
  $ENTER env LC_ALL=C gnt-cluster init --no-ssh-init --no-etc-hosts --enabled-hypervisors=kvm,fake \
    --enabled-disk-templates=file --file-storage-dir=/srv/ganeti/file-storage \
    --master-netdev=br0 --master-netmask=32 --nic-parameters=mode=bridged,link=br0 \
    -H kvm:kernel_path=,initrd_path=,vnc_bind_address= \
    --ipolicy-bounds-specs=min:cpu-count=1,disk-count=1,disk-size=16,memory-size=16,nic-count=0,spindle-use=1/max:cpu-count=8,disk-count=16,disk-size=1048576,memory-size=32768,nic-count=8,spindle-use=12 \
    "$CLUSTER" >"$LAB/init.log" 2>&1
else
  $ENTER env LC_ALL=C /etc/init.d/ganeti start >"$LAB/start.log" 2>&1 || true
fi
for _ in $(seq 60); do
  $ENTER gnt-node list --no-headers >/dev/null 2>&1 && exit 0
  sleep 0.5
done
echo "Ganeti does not answer; see $LAB/*.log"
exit 1
