# Sourced by tune.sh: what this machine has. Cores of the shards and the others, the disks below a directory, network cards, their interrupts.
# Everything is read below the root prefix, also where a directory is mounted. Not here: what is wanted of them.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

# Numbers of the cores: all, the shards', the others, and of the others those that share no physical core with a shard (all others where each does).
online="" shards="" others="" spare=""
# Block devices that carry the data directory, partitions resolved, down to what is no stack.
disks="" why_no_disk=""

find_machine() {
    find_cores
    find_disks
    [ -n "$nics" ] || find_nics
}

find_cores() {
    local n text
    read_file /sys/devices/system/cpu/online && numbers_of "$text" && online=$numbers
    if [ -n "$cores" ]; then
        numbers_of "$cores" || usage "--cores: '$cores' is no list of cores"
        shards=$numbers
        without "$shards" "$online"
        [ -z "$online" ] || [ -z "$rest" ] || usage "--cores names core ${rest%% *}, which this machine does not have (it has ${text:-none})"
    else
        # As `tramline serve` does it: all but one, at least one, at most as many as a node can have shards (SHARDS_MAX).
        local -a all
        read -r -a all <<<"$online"
        [ "${#all[@]}" -gt 1 ] && unset 'all[-1]'
        shards="${all[*]:0:256}"
    fi
    without "$online" "$shards"
    others=$rest
    local siblings=""
    for n in $shards; do
        read_file "/sys/devices/system/cpu/cpu$n/topology/thread_siblings_list" && numbers_of "$text" && siblings+=" $numbers"
    done
    without "$others" "$siblings"
    spare=${rest:-$others}
    list_of "$shards"; shards_list=$list
    list_of "$spare"; spare_list=$list
}

# The device number of the file system that holds a path: of the mount with the longest path above it, of those the last one.
mounted_on() {
    local number place best=-1
    mount_number=""
    stays /proc/self/mountinfo && [ -r "$root/proc/self/mountinfo" ] || return 1
    while read -r _ _ number _ place _; do
        printf -v place '%b' "${place//\\0/\\00}"
        [ "$place" = / ] && place=""
        case "$1/" in
            "$place"/*) [ ${#place} -lt "$best" ] || { best=${#place}; mount_number=$number; } ;;
        esac
    done <"$root/proc/self/mountinfo"
    [ -n "$mount_number" ]
}

find_disks() {
    local real why_leaves at
    local -A seen=()
    disks="" why_no_disk=""
    # The directory itself may be a link, or be told with `..`, or not be there yet.
    if ! real_of "$disk"; then
        why_no_disk="$disk $why_leaves"
        return
    fi
    at=${real#"$root"}
    if ! mounted_on "$at"; then
        why_no_disk="/proc/self/mountinfo does not say what ${at:-/} is on"
        return
    fi
    if ! real_of "/sys/dev/block/$mount_number"; then
        why_no_disk="/sys/dev/block/$mount_number $why_leaves"
        return
    fi
    if ! [ -e "$real" ]; then
        why_no_disk="${at:-/} is on no block device (device number $mount_number)"
        return
    fi
    under "$real"
    [ -n "$disks" ] || why_no_disk=${why_no_disk:-the disks below device $mount_number were not found}
}

# The disks below a device's folder: the whole one of a partition, the members of a stack. Each folder once: a copy may hold a ring.
under() {
    local at=$1 slave
    [ ! -e "$at/partition" ] || at=$(dirname "$at")
    [ -z "${seen[$at]-}" ] || return 0
    seen[$at]=yes
    local -a slaves=("$at"/slaves/*)
    if [ -e "${slaves[0]}" ]; then
        for slave in "${slaves[@]}"; do
            if real_of "${slave#"$root"}"; then under "$real"; else why_no_disk="${slave#"$root"} $why_leaves"; fi
        done
        return
    fi
    [ -d "$at/queue" ] || return 0
    case " $disks " in *" ${at##*/} "*) ;; *) disks="${disks:+$disks }${at##*/}" ;; esac
}

find_nics() {
    local at
    stays /sys/class/net || return 0
    for at in "$root"/sys/class/net/*; do
        [ -e "$at/device" ] && nics+=" ${at##*/}"
    done
    nics=${nics# }
}

# Numbers of a device's interrupts in `irqs`; where there are none, why, in `why_no_irqs`.
irqs_of() {
    local real why_leaves
    irqs="" why_no_irqs="no interrupts of ${2-it} were found"
    if ! real_of "$1"; then
        why_no_irqs="it $why_leaves"
        return 1
    fi
    irqs_above "$real"
    # By numbers, not by their first figures.
    irqs=$(tr ' ' '\n' <<<"$irqs" | sort -nu | xargs)
    [ -n "$irqs" ]
}

# Those of the first folder from here upwards that lists some, up to the card: what is above it is the port that it is plugged into, and the port's
# interrupts tell of other things.
irqs_above() {
    local at=$1 one
    while [ "${#at}" -gt "${#root}" ] && [ "$at" != / ]; do
        if [ -d "$at/msi_irqs" ]; then
            for one in "$at"/msi_irqs/*; do add_irq "${one##*/}"; done
            return
        fi
        # A disk that several controllers of one subsystem lead to (multipath of NVMe) stands below none of them: the subsystem has links to each.
        if [[ "$at" =~ /nvme-subsystem/nvme-subsys[0-9]+$ ]]; then
            for one in "$at"/nvme*; do
                [[ "${one##*/}" =~ ^nvme[0-9]+$ ]] && real_of "${one#"$root"}" && [[ "$real" != */nvme-subsystem/* ]] && irqs_above "$real"
            done
            return
        fi
        if [[ "${at##*/}" =~ ^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]; then
            # Without messages it has a line, or none.
            ! read_file "${at#"$root"}/irq" || add_irq "$text"
            return
        fi
        at=${at%/*}
    done
}

add_irq() { [[ ! "$1" =~ ^[1-9][0-9]*$ ]] || [ ! -d "$root/proc/irq/$1" ] || irqs+=" $1"; }

# Whether an interrupt's line in /proc/interrupts names what only configures the device, and so hardly ever comes.
is_quiet_irq() {
    local line
    stays /proc/interrupts || return 1
    line=$(grep -E "^ *$1:" "$root/proc/interrupts" 2>/dev/null) || return 1
    case "$line" in *-config | *-control | *-event | *-async | *-mbx | *q0) return 0 ;; *) return 1 ;; esac
}
