# Sourced by cluster.sh: each node's disk, an ext4 file system in an image behind a loop device, and faults of it.
# shellcheck shell=bash
# shellcheck disable=SC2015 # `A && B || fail`: it does not come back
# shellcheck disable=SC2154 # `dir` and `id` are cluster.sh's

# The image is sparse; the loop device writes it directly (O_DIRECT), so a sync of the node is one of the machine's disk.
# A slow disk is a limit of the control group that the node's process is in, on its loop device: io.max where the io controller is version 2's,
# blkio.throttle.* where it is version 1's. Both act where the node hands over its blocks, before the loop device: on direct writes of io_uring too.
# The kernel's own writes for the file system (its journal) are not held up, nor what other processes do.

loop_of() { losetup --noheadings --output NAME --associated "$dir/$1/image"; }
data_of() { printf '%s/%s/data' "$dir" "$1"; }
number_of_device() { cat "/sys/block/${1##*/}/dev"; }

disk_up() {
    local image="$dir/$1/image" loop
    mkdir -p "$(data_of "$1")"
    truncate --size "$disk_bytes" "$image"
    mkfs.ext4 -q -F -m 0 "$image"
    # Not every file system below allows direct writes.
    loop=$(losetup --find --show --direct-io=on "$image" 2>/dev/null || losetup --find --show "$image")
    mount "$loop" "$(data_of "$1")"
    group_up "$1"
}

# For some 100 ms after SIGKILL the kernel still holds a node's files for writes under way.
disk_down() {
    local loop
    eventually not_mounted "$(data_of "$1")" || fail "$(data_of "$1") stays mounted: something uses it"
    for loop in $(loop_of "$1" 2>/dev/null); do
        losetup --detach "$loop"
    done
    eventually group_down "$1" || fail "the control group of node $1 does not go: something runs in it"
}

not_mounted() {
    ! mountpoint --quiet "$1" || umount "$1" 2>/dev/null
}

# The file system of control groups whose io controller limits bytes, and its version; nothing where there is none.
controller() {
    if grep -qsw io /sys/fs/cgroup/cgroup.controllers; then
        printf '2 /sys/fs/cgroup'
    elif [ -e /sys/fs/cgroup/blkio/cgroup.procs ]; then
        printf '1 /sys/fs/cgroup/blkio'
    fi
}

group_of() {
    local found
    found=$(controller)
    [ -z "$found" ] || printf '%s/%s-%s' "${found#* }" "$id" "$1"
}

# A machine without the controller has nodes without slow disks.
group_up() {
    local group
    group=$(group_of "$1")
    [ -n "$group" ] || return 0
    # Version 2: a group has the controllers that its parent hands down.
    [ "$(controller)" != "2 /sys/fs/cgroup" ] || say +io >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    mkdir -p "$group" 2>/dev/null || complain "control groups cannot be made here: slow-disk will not work"
}

group_down() {
    local group
    group=$(group_of "$1")
    [ -z "$group" ] || [ ! -d "$group" ] || rmdir "$group" 2>/dev/null
}

# Ends whatever still runs in the node's group: a process that `up` did not come to write down. Nothing else is ever in it.
group_end() {
    local group member
    group=$(group_of "$1")
    [ -n "$group" ] && [ -e "$group/cgroup.procs" ] || return 0
    while read -r member; do
        kill -KILL "$member" 2>/dev/null || true
    done <"$group/cgroup.procs"
}

# Puts the calling shell, and what it starts, into the node's group.
enter_group() {
    local group
    group=$(group_of "$1")
    [ -z "$group" ] || [ ! -d "$group" ] || say "$BASHPID" >"$group/cgroup.procs"
}

# Limits bytes, and operations, per second; 0 is no limit.
set_limit() {
    local found group device bytes="$2" operations="$3" way
    found=$(controller)
    group=$(group_of "$1")
    [ -n "$group" ] && [ -d "$group" ] || cannot "no io controller of control groups acts here: a disk cannot be slowed down"
    device=$(number_of_device "$(loop_of "$1")")
    if [ "${found%% *}" = 1 ]; then
        for way in read write; do
            say "$device $bytes" >"$group/blkio.throttle.${way}_bps_device"
            say "$device $operations" >"$group/blkio.throttle.${way}_iops_device"
        done
    else
        [ -e "$group/io.max" ] || cannot "the io controller is not handed down to $group: a disk cannot be slowed down"
        [ "$bytes" -gt 0 ] || bytes=max
        [ "$operations" -gt 0 ] || operations=max
        say "$device rbps=$bytes wbps=$bytes riops=$operations wiops=$operations" >"$group/io.max"
    fi
}

disk_slow() {
    local bytes operations=0
    if [[ "$2" =~ ^([1-9][0-9]{0,5})x$ ]]; then
        local factor="${BASH_REMATCH[1]}"
        [ ! -e "$dir/$1/full" ] || fail "a full disk cannot be measured: free-disk $1 first, or give bytes per second"
        bytes=$(($(measure "$1" 1048576 32) * 1048576 / factor))
        operations=$(($(measure "$1" 4096 200) / factor))
        [ "$bytes" -gt 0 ] || bytes=1
        [ "$operations" -gt 0 ] || operations=1
    elif [[ "$2" =~ ^[1-9][0-9]{0,11}$ ]]; then
        bytes="$2"
    else
        usage "'$2' is neither bytes per second (1000000) nor a factor (10x)"
    fi
    set_limit "$1" "$bytes" "$operations"
    say "$bytes" >"$dir/$1/slow"
    if [ "$operations" -gt 0 ]; then
        say "node $1: at most $bytes bytes and $operations operations a second, each of reads and writes"
    else
        say "node $1: at most $bytes bytes a second, each of reads and writes"
    fi
}

# Synced direct writes of `$2` bytes a second, out of `$3` of them, by this process, which has no limit.
measure() {
    local file began took
    file="$(data_of "$1")/measured"
    began=$(date +%s%N)
    dd if=/dev/zero of="$file" bs="$2" count="$3" oflag=direct,dsync status=none || { rm -f "$file"; fail "the disk of node $1 cannot be measured"; }
    took=$(($(date +%s%N) - began))
    rm -f "$file"
    say $(($3 * 1000000000 / took))
}

disk_normal() {
    set_limit "$1" 0 0
    rm -f "$dir/$1/slow"
}

free_bytes() { say $(($(stat --file-system --format '%a * %S' "$1"))); }

# Space that is allocated and not written: it costs the machine nothing.
disk_fill() {
    local data part ballast bytes
    data=$(data_of "$1")
    [ ! -e "$dir/$1/full" ] || fail "the disk of node $1 is full already"
    : >"$dir/$1/full"
    mkdir -p "$data/ballast"
    # The last blocks go in smaller and smaller pieces: allocating needs some itself, and the node may take some meanwhile.
    part=0
    bytes=$(free_bytes "$data")
    while [ "$bytes" -ge 4096 ]; do
        ballast="$data/ballast/$((part += 1))"
        if ! fallocate --length "$bytes" "$ballast" 2>/dev/null; then
            rm -f "$ballast"
            bytes=$((bytes / 2))
        fi
        [ "$(free_bytes "$data")" -ge "$bytes" ] || bytes=$(free_bytes "$data")
    done
    say "node $1: $(free_bytes "$data") bytes are free"
}

disk_free() {
    local data
    data=$(data_of "$1")
    rm -rf "$data/ballast"
    rm -f "$dir/$1/full"
    say "node $1: $(free_bytes "$data") bytes are free"
}
