#!/bin/sh
# Written by snf-image: runs the scripts of a phase (early, late) in their order, each once. One is
# moved away before it runs, so that it does not run again when it restarts the machine.
dir=/var/lib/snf-image/firstboot
log=/var/log/snf-image-firstboot.log
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
export PATH HOME
cd / || exit 1
umask 022
[ -d "$dir/$1" ] || exit 0
mkdir -p "${log%/*}" "$dir/running"
[ -e "$log" ] || (umask 077 && : >"$log")

say() {
    echo "snf-image: $*"
    echo "=== $(date) $*" >>"$log"
}

failed=0
for script in "$dir/$1"/[0-9]*; do
    [ -f "$script" ] || continue
    name=${script##*/}
    mv "$script" "$dir/running/$name" || exit 1
    sync
    say "$name begins"
    "$dir/running/$name" >>"$log" 2>&1 </dev/null
    status=$?
    say "$name ends with $status"
    [ "$status" = 0 ] || failed=1
    rm -f "$dir/running/$name"
done
rmdir "$dir/$1" "$dir/running" 2>/dev/null
exit "$failed"
