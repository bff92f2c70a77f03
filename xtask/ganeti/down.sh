#!/bin/bash
# Stops the lab and forgets its cluster; the chroot stays for the next time.
LAB=${LAB:?the directory of the lab}
if [ -s "$LAB/init.pid" ]; then
  pid=$(cat "$LAB/init.pid")
  if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q ganeti-lab-init; then
    "$LAB/enter" /etc/init.d/ganeti stop >/dev/null 2>&1
    # The first process of the namespace: with it the kernel ends all others in it.
    kill -9 "$pid"
    for _ in $(seq 50); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
  fi
  rm -f "$LAB/init.pid"
fi
rm -rf "$LAB"/root/var/lib/ganeti/* "$LAB"/root/var/log/ganeti/* "$LAB"/root/srv/ganeti/*
