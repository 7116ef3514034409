# Setting disk_queue: between a shard's synced write and the disk stands nothing.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_disk_queue="the disk's queue neither sorts, nor merges, nor completes on a shard's core"

want_disk_queue() {
    local one at text
    if [ -z "$disks" ]; then
        unknown /sys/block "$why_no_disk"
        return
    fi
    for one in $disks; do
        at=/sys/block/$one/queue
        if read_file "$at/rotational" && [ "$text" = 1 ] && ! is_virtual "$one"; then
            unknown "$at/scheduler" "$one turns: there a scheduler is of use"
        elif read_file "$at/scheduler" && [[ "$text" != *none* ]]; then
            unknown "$at/scheduler" "there is no 'none' among '$text'"
        else
            want choice "$at/scheduler" none
        fi
        # Log writes are large and few; looking for neighbours costs each of them.
        want word "$at/nomerges" 2
        # Completions stay on the core of the interrupt, which is none of a shard: with 2 the flush would wait for the shard.
        want word "$at/rq_affinity" "0|1"
    done
}

# Whether another layer stands behind it that has a queue of its own: the kernel says of many such that they turn. The names are those of `tramline doctor`.
is_virtual() { case "$1" in vd* | xvd* | loop* | zram* | nbd* | drbd*) return 0 ;; *) return 1 ;; esac; }
