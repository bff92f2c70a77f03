#!/bin/bash
# Brings up a one-node Ganeti cluster: up.sh TREE LAB. Everything it writes lies in memory, on top of the
# tree that root.sh made, in namespaces of its own: it ends with their first process, and other clusters
# on this machine do not see it. LAB is an empty directory for logs, init.pid and the command `enter`.
set -euo pipefail
TREE=${1:?the tree of root.sh} LAB=${2:?an empty directory}
NODE=node1.example.test NODE_IP=192.0.2.11
CLUSTER=cluster.example.test CLUSTER_IP=192.0.2.10
fail() { echo "$1"; tail -n 20 "$LAB"/*.log; exit 1; }

cat >"$LAB/namespaces.sh" <<EON
set -e
mount --make-rprivate /
mount -t tmpfs -o size=4G,mode=755 ganeti-lab "$LAB"
cd "$LAB"
mkdir upper work root
mount -t overlay -o lowerdir="$TREE",upperdir=upper,workdir=work ganeti-lab root
mount -t proc proc root/proc
mount -t sysfs -o ro sysfs root/sys
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/dev/shm
mount -t tmpfs tmpfs root/run
mkdir -p root/run/lock
mount -t tmpfs tmpfs root/tmp
hostname $NODE
cd root
mkdir .oldroot
pivot_root . .oldroot
cd /
umount -l /.oldroot
rmdir /.oldroot
ip link set lo up
ip link add br0 type bridge forward_delay 0
ip addr add $NODE_IP/24 dev br0
ip link add veth0 type veth peer name veth1
ip link set veth1 master br0
ip link set veth0 up; ip link set veth1 up; ip link set br0 up
exec chroot / /bin/bash -c 'trap : HUP TERM INT; while :; do sleep 3600 & wait \$!; done' ganeti-lab-init
EON
setsid unshare -m -u -i -n -p -f --kill-child bash "$LAB/namespaces.sh" </dev/null >"$LAB/namespaces.log" 2>&1 &
holder=$!
echo "$holder" >"$LAB/holder.pid"
# Whoever asked for the cluster may be killed before it is taken down.
setsid bash -c 'while [ -d "/proc/$1" ] && [ -d "/proc/$2" ]; do sleep 1; done
  [ -d "/proc/$1" ] || { kill -9 "$2"; rm -rf --one-file-system "$3"; }' watch "$PPID" "$holder" "$LAB" \
  </dev/null >/dev/null 2>&1 &
for _ in $(seq 300); do
  kill -0 "$holder" 2>/dev/null || fail "the namespaces ended at once"
  pid=$(awk '{print $1}' "/proc/$holder/task/$holder/children" 2>/dev/null || true)
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q ganeti-lab-init && break
  pid=
  sleep 0.1
done
[ -n "$pid" ] || fail "the namespaces did not come up"
echo "$pid" >"$LAB/init.pid"
cat >"$LAB/enter" <<EON
#!/bin/bash
exec nsenter -t $pid -m -u -i -n -p -r -w -- env -i HOME=/root LANG=C.UTF-8 \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "\$@"
EON
chmod 755 "$LAB/enter"
ENTER=$LAB/enter ROOT=/proc/$pid/root

printf '127.0.0.1 localhost\n%s %s node1\n%s %s cluster\n' "$NODE_IP" "$NODE" "$CLUSTER_IP" "$CLUSTER" >"$ROOT/etc/hosts"
for n in 1 2 3; do echo "192.0.2.2$n inst$n.example.test" >>"$ROOT/etc/hosts"; done
echo "$NODE" >"$ROOT/etc/hostname"
: >"$ROOT/etc/resolv.conf"
mkdir -p "$ROOT/srv/ganeti/file-storage" "$ROOT/srv/ganeti/os" "$ROOT/etc/ganeti"
echo /srv/ganeti/file-storage >"$ROOT/etc/ganeti/file-storage-paths"

# Daemons under LC_ALL=C: otherwise a value that is not ASCII breaks Ganeti's own configuration.
$ENTER env LC_ALL=C gnt-cluster init --no-ssh-init --no-etc-hosts --enabled-hypervisors=kvm,fake \
  --enabled-disk-templates=file --file-storage-dir=/srv/ganeti/file-storage \
  --master-netdev=br0 --master-netmask=32 --nic-parameters=mode=bridged,link=br0 \
  -H kvm:kernel_path=,initrd_path=,vnc_bind_address= \
  --ipolicy-bounds-specs=min:cpu-count=1,disk-count=1,disk-size=16,memory-size=16,nic-count=0,spindle-use=1/max:cpu-count=8,disk-count=16,disk-size=1048576,memory-size=32768,nic-count=8,spindle-use=12 \
  "$CLUSTER" >"$LAB/init.log" 2>&1 || fail "gnt-cluster init failed"
for _ in $(seq 120); do
  $ENTER gnt-node list --no-headers >/dev/null 2>&1 && exit 0
  sleep 0.5
done
fail "Ganeti does not answer"
