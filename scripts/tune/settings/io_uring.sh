# Setting io_uring: the ring has to be permitted.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_io_uring="the kernel lets processes use io_uring"

want_io_uring() {
    if [ -e "$root/proc/sys/kernel/io_uring_disabled" ]; then
        want word /proc/sys/kernel/io_uring_disabled 0
    else
        unknown /proc/sys/kernel/io_uring_disabled "before 6.6 a kernel has no such switch, and permits it"
    fi
}
