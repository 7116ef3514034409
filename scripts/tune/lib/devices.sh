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
        # As `tramline serve` does it: all but one, at least one.
        local -a all
        read -r -a all <<<"$online"
        [ "${#all[@]}" -gt 1 ] && unset 'all[-1]'
        shards="${all[*]-}"
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

# The device number of the file system that holds `disk`: of the mount with the longest path above it, of those the last one.
mounted_on() {
    local number place best=-1
    mount_number=""
    while read -r _ _ number _ place _; do
        printf -v place '%b' "${place//\\0/\\00}"
        [ "$place" = / ] && place=""
        case "$disk/" in
            "$place"/*) [ ${#place} -lt "$best" ] || { best=${#place}; mount_number=$number; } ;;
        esac
    done <"$root/proc/self/mountinfo"
    [ -n "$mount_number" ]
}

find_disks() {
    disks="" why_no_disk=""
    if ! [ -r "$root/proc/self/mountinfo" ] || ! mounted_on; then
        why_no_disk="/proc/self/mountinfo does not say what $disk is on"
        return
    fi
    local link="$root/sys/dev/block/$mount_number"
    if ! [ -e "$link" ]; then
        why_no_disk="$disk is on no block device (device number $mount_number)"
        return
    fi
    under "$(readlink -f "$link")"
    [ -n "$disks" ] || why_no_disk="the disks below device $mount_number were not found"
}

# The disks below a device's folder: the whole one of a partition, the members of a stack.
under() {
    local at=$1 slave
    [ ! -e "$at/partition" ] || at=$(dirname "$at")
    local -a slaves=("$at"/slaves/*)
    if [ -e "${slaves[0]}" ]; then
        for slave in "${slaves[@]}"; do under "$(readlink -f "$slave")"; done
        return
    fi
    [ -d "$at/queue" ] || return 0
    case " $disks " in *" ${at##*/} "*) ;; *) disks="${disks:+$disks }${at##*/}" ;; esac
}

find_nics() {
    local at
    for at in "$root"/sys/class/net/*; do
        [ -e "$at/device" ] && nics+=" ${at##*/}"
    done
    nics=${nics# }
}

# Numbers of a device's interrupts in `irqs`: those of the first folder above it that lists some.
irqs_of() {
    irqs=""
    local at one
    at=$(readlink -f "$root$1" 2>/dev/null) || return 1
    while [ "${#at}" -gt "${#root}" ] && [ "$at" != / ]; do
        if [ -d "$at/msi_irqs" ]; then
            for one in "$at"/msi_irqs/*; do
                [ -e "$one" ] && [ -d "$root/proc/irq/${one##*/}" ] && irqs+=" ${one##*/}"
            done
            break
        fi
        at=$(dirname "$at")
    done
    # By numbers, not by their first figures.
    irqs=$(tr ' ' '\n' <<<"$irqs" | sort -n | xargs)
    [ -n "$irqs" ]
}

# Whether an interrupt's line in /proc/interrupts names what only configures the device, and so hardly ever comes.
is_quiet_irq() {
    local line
    line=$(grep -E "^ *$1:" "$root/proc/interrupts" 2>/dev/null) || return 1
    case "$line" in *-config | *-control | *-event | *-async | *-mbx | *q0) return 0 ;; *) return 1 ;; esac
}
