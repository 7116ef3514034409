# Setting numa_balancing: it takes pages away to see who touches them. Shards are pinned and their memory comes from their own node.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_numa_balancing="pages are not unmapped to find out who uses them"

want_numa_balancing() {
    if [ -e "$root/proc/sys/kernel/numa_balancing" ]; then
        want word /proc/sys/kernel/numa_balancing 0
    else
        unknown /proc/sys/kernel/numa_balancing "the kernel does not balance memory over nodes"
    fi
}
