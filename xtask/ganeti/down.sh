#!/bin/bash
# Ends the cluster of up.sh: down.sh LAB. With the first process of its namespaces the kernel ends all
# others in there, and with the last one the memory that holds its files.
LAB=${1:?the directory of up.sh}
pid=$(cat "$LAB/init.pid" 2>/dev/null || true)
holder=$(cat "$LAB/holder.pid" 2>/dev/null || true)
if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q ganeti-lab-init; then
  # Loop devices outlive the process that made them; those over files of this cluster are its own.
  device=$(stat -c '%Hd:%Ld' "/proc/$pid/root/srv")
  losetup -n -O NAME,BACK-MAJ:MIN | while read -r loop backing; do
    [ "$backing" != "$device" ] || losetup -d "$loop"
  done
  kill -9 "$pid"
elif [ -n "$holder" ]; then
  kill -9 "$holder" 2>/dev/null
fi
for _ in $(seq 100); do
  { [ -n "$holder" ] && [ -d "/proc/$holder" ]; } || exit 0
  sleep 0.1
done
echo "the cluster's first process does not end"
exit 1
