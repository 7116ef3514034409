# Sourced by tune.sh: its options, and reading and writing below the root prefix. Not here: what is wanted, what is kept.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

verb="" profile="latency" cores="" disk="/var/lib/tramline" nics="" only="" dry_run=no root="" ethtool=""
# What the exit code will be.
outcome=0

usage() { printf 'tune.sh: %s (see --help)\n' "$*" >&2; exit 2; }

read_options() {
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) sed -n '2,/^# Exit codes/s/^# \{0,1\}//p' "$here/tune.sh"; exit 0 ;;
            --dry-run) dry_run=yes; shift; continue ;;
            --profile | --cores | --disk | --nic | --only | --root | --ethtool)
                [ $# -ge 2 ] && [ -n "$2" ] || usage "$1 needs a value"
                ;;
            -*) usage "unknown argument '$1'" ;;
            check | apply | revert | list)
                [ -z "$verb" ] || usage "'$verb' and '$1' are one verb too many"
                verb=$1; shift; continue
                ;;
            *) usage "unknown verb '$1'" ;;
        esac
        case "$1" in
            --profile) profile=$2 ;;
            --cores) cores=$2 ;;
            --disk) disk=$2 ;;
            --nic) nics=${2//,/ } ;;
            --only) only=${2//,/ } ;;
            --root) root=$2 ;;
            --ethtool) ethtool=$2 ;;
        esac
        shift 2
    done
    [ -n "$verb" ] || usage "no verb"
    case "$profile" in latency | throughput) ;; *) usage "there is no profile '$profile': latency or throughput" ;; esac
    case "$disk" in /*) ;; *) usage "--disk takes a path from the root, not '$disk'" ;; esac
    find_root
    local one
    for one in $only; do
        [[ " ${settings[*]} " == *" $one "* ]] || usage "there is no setting '$one': tune.sh list"
    done
    if [ -n "$cores" ]; then
        numbers_of "$cores" || usage "--cores takes numbers below 8192 and ranges that go up, as in 0-3,8, not '$cores'"
    fi
}

# The root prefix without links, so that its length is that of what lies below it. `/` by whatever name is the machine itself, and no copy.
find_root() {
    if [ -n "$root" ]; then
        [ -d "$root" ] || usage "--root: there is no directory '$root'"
        root=$(realpath -- "$root") || usage "--root: '$root' cannot be followed"
        [ "$root" != / ] || root=""
    fi
    store="$root/var/lib/tramline-tune"
    local part
    for part in "" /lock /boot /boot/refused /files; do
        stays "/var/lib/tramline-tune$part" || usage "/var/lib/tramline-tune$part $why_leaves"
    done
}

# Where a path below the root prefix leads, links followed, in `real`; false, with the reason in `why_leaves`, where that is outside: in a copy of the
# trees a link may name a file of this machine.
real_of() {
    real=$(readlink -m -- "$root$1")
    [ -n "$root" ] || return 0
    case "$real" in "$root" | "$root"/*) return 0 ;; esac
    why_leaves="leads out of $root, to ${real:-nowhere}: nothing is read or written there"
    return 1
}

# The same question alone. Asked before each read and write, so paths without a link do not cost a process.
stays() {
    [ -n "$root" ] || return 0
    local at=$root rest=${1#/} name
    while [ -n "$rest" ]; do
        name=${rest%%/*}
        at+="/$name"
        if [ "$name" = .. ] || [ -L "$at" ]; then
            real_of "$1"
            return
        fi
        [ "$rest" != "$name" ] || return 0
        rest=${rest#*/}
    done
}

# A copy of the trees anybody may change who may write to it.
needs_root() {
    [ -n "$root" ] || [ "$dry_run" = yes ] || [ "$(id -u)" = 0 ] || {
        printf 'tune.sh: %s needs root: run it with sudo, or look with --dry-run\n' "$verb" >&2
        exit 3
    }
}

is_selected() { [ -z "$only" ] || [[ " $only " == *" $1 "* ]]; }

# What a file holds, without the line's end, in `text`; false where it is not there or cannot be read.
read_file() {
    text=""
    stays "$1" && [ -f "$root$1" ] && [ -r "$root$1" ] || return 1
    { text=$(tr -d '\0' <"$root$1"); } 2>/dev/null
}

# The word in brackets of a text such as `[mq-deadline] none`; the text itself where there are no brackets.
chosen_of() {
    case "$1" in
        *\[*\]*) chosen=${1#*\[}; chosen=${chosen%%\]*} ;;
        *) chosen=$1 ;;
    esac
}

# Text with its blanks made single ones.
squeezed() { local -a words; read -r -a words <<<"${1//$'\n'/ }"; squeezed="${words[*]}"; }

# As a shell reads it back.
quoted() { printf -v quoted '%q' "$1"; }
