#!/bin/sh
# Turns a tree of files into a running system, in namespaces that its caller has made for it and that end with it:
#   unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup sh boot.sh BASE WORK SHARED systemd|plain
# BASE is not written to: what the system writes is in memory, at the empty folder WORK. The folder SHARED is to be seen,
# not written, at /srv. The last word says whether systemd runs in it, or nothing does, as in a chroot.
set -eu
base=$1 work=$2 shared=$3 manager=$4

ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o mode=755 onenet-test "$work"
mkdir "$work/upper" "$work/writing" "$work/root"
root=$work/root
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/writing" onenet-test "$root"
mount -t proc proc "$root/proc"
# The kernel is that of the machine the test runs on: its settings are not the test's to change.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 onenet-test "$root/run"
mount -t tmpfs -o mode=755 onenet-test "$root/dev"
# Made, not bound: a service with PrivateDevices= makes its own from these.
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
ln -s pts/ptmx "$root/dev/ptmx"
mkdir -p "$root/dev/shm" "$root/dev/pts" "$root/srv" "$root/mnt/outside"
mount --bind "$shared" "$root/srv"
mount -o remount,bind,ro "$root/srv"
hostname onenet-test

cd "$root"
pivot_root . mnt/outside
umount -l /mnt/outside
rmdir /mnt/outside
mount --make-rshared /
case $manager in
# What systemd would do to the kernel it does not do here.
systemd) exec env -i container=onenet-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --show-status=0 --log-target=journal ;;
plain) exec sleep infinity ;;
esac
