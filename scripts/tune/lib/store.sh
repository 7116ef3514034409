# Sourced by tune.sh: what was there before, below /var/lib/tramline-tune. One folder per path; the first value found is the one that is kept, however
# often apply runs. In it:
#
#   setting, kind, path   whose it is
#   was, before           `value` or `file` and its bytes; `absent`, without them, where there was no file
#   sum                   of all these: what is damaged is neither put back nor written over
#   left                  of a file: the sums of what this script made of it. A file with any other bytes was changed by somebody
#   wrote.NAME            of a line: the values that this script gave it, so that the owner's part can be told from ours
#
# `boot/` is for values of the kernel: they end with the machine's run, and so do these notes. `files/` is for files of the system.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

store=""
parts=(boot files)

open_store() {
    if [ "$dry_run" = yes ]; then
        is_of_this_boot || parts=(files)
        return
    fi
    local why
    why=$({ mkdir -p "$store/boot" "$store/files" && : >>"$store/lock"; } 2>&1) || store_fails "$why"
    exec 9>>"$store/lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        printf 'tune.sh: another tune.sh is at work here: wait until it has ended\n' >&2
        exit 1
    fi
    # Numbers of interrupts and names of disks mean something else after a restart of the machine. The new number comes last, and whole: with an empty
    # one the next run would throw away what this one keeps.
    if ! is_of_this_boot; then
        why=$({ rm -rf "${store:?}/boot" && mkdir -p "$store/boot" && boot_id >"$store/boot/id.new" && mv "$store/boot/id.new" "$store/boot/id"; } 2>&1) ||
            store_fails "$why"
    fi
    # Cut off while they were made: nothing was changed by the run that made them.
    rm -rf "${store:?}"/{boot,files}/*.new
}

store_fails() {
    printf 'tune.sh: cannot write in %s, where what was there before is kept (%s): nothing was changed\n' "$store" "${1##*: }" >&2
    exit 1
}

boot_id() { local text; if read_file /proc/sys/kernel/random/boot_id; then printf '%s\n' "$text"; else printf 'none\n'; fi; }

is_of_this_boot() { [ "$(cat "$store/boot/id" 2>/dev/null)" = "$(boot_id)" ]; }

# The folder for a path of a kind, in `entry`. The lines of one file share one.
entry_of() {
    local path=$2 part=boot
    case "$1" in
        line) path=${2%:*} part=files ;;
        whole) part=files ;;
    esac
    entry="$store/$part/${path//\//%}"
}

# The path that a folder is for, in `path`, by its name: also where it is damaged.
path_of() { path=${1##*/} path=${path//%//}; }

# The folders of a part, in `entries`.
entries_in() {
    entries=()
    local one
    for one in "$store/$1"/*/; do
        one=${one%/}
        case "$one" in *.new | "$store/boot/refused") ;; *) [ ! -d "$one" ] || entries+=("$one") ;; esac
    done
}

# Keeps what is there, unless something is kept already. Complete or not at all: the name comes last.
keep_before() {
    local setting=$1 kind=$2 path=$3 entry
    entry_of "$kind" "$path"
    [ ! -d "$entry" ] || return 0
    [ "$kind" != line ] || path=${path%:*}
    rm -rf "$entry.new"
    if ! { fill_entry "$entry.new" && mv "$entry.new" "$entry"; } 2>/dev/null; then
        rm -rf "$entry.new"
        return 1
    fi
    # What the loss of power must not take: the kernel's values end with it anyway.
    case "$kind" in whole | line) sync "$store/files" ;; esac
}

fill_entry() {
    local was=value
    mkdir "$1" && printf '%s\n' "$setting" >"$1/setting" && printf '%s\n' "$kind" >"$1/kind" && printf '%s\n' "$path" >"$1/path" || return 1
    case "$kind" in
        coalesce) look "$kind" "$path" && printf '%s\n' "$is" >"$1/before" ;;
        whole | line)
            stays "$path" || return 1
            if [ -e "$root$path" ]; then was="file"; else was=absent; fi
            [ "$was" = absent ] || { cp -p "$root$path" "$1/before" && cmp -s "$root$path" "$1/before"; }
            ;;
        *) stays "$path" && cat "$root$path" >"$1/before" ;;
    esac || return 1
    printf '%s\n' "$was" >"$1/was" && sum_of "$1" >"$1/sum" && [ -s "$1/sum" ] || return 1
    case "$kind" in whole | line) sync "$1"/* "$1" ;; esac
}

# Fails where a file is missing that has to be there.
sum_of() {
    local -a names=(setting kind path was)
    [ "$(cat "$1/was")" = absent ] || names+=(before)
    (cd "$1" && sha256sum "${names[@]}" | sha256sum)
}

why_damaged="what is kept of it is damaged: it was left as it is. Put it back by hand, then remove"

# Whether an entry is as keep_before left it.
is_whole() {
    local sum
    [ ! -L "$1" ] && sum=$(sum_of "$1" 2>/dev/null) && [ "$sum" = "$(cat "$1/sum" 2>/dev/null)" ]
}

# Whether a file has what an entry's apply found or left, or is gone, so that nothing is lost by writing it.
is_ours() {
    local sum
    [ -e "$2" ] || return 0
    [ -f "$1/before" ] && cmp -s "$2" "$1/before" && return 0
    sum=$(sha256sum <"$2") && grep -qxF -- "$sum" "$1/left" 2>/dev/null
}

# Before a file is put in place: from then on its bytes are ours. All earlier ones stay, since the run may end right here.
note_left() {
    { [ ! -f "$1/left" ] || cat "$1/left"; } >"$1/left.new" && sha256sum <"$2" >>"$1/left.new" && sync "$1/left.new" && mv "$1/left.new" "$1/left"
}

# A line's value: before it is written with those of earlier runs, since this one may end before; afterwards alone.
note_wrote() {
    local entry at
    entry_of line "$1"
    at="$entry/wrote.${1##*:}"
    { [ "$3" = alone ] || [ ! -f "$at" ] || cat "$at"; } >"$at.new" && printf '%s\n' "$2" >>"$at.new" && mv "$at.new" "$at"
}

forget() { rm -rf "${1:?}"; }

# A path that the kernel does not let go: remembered, so that check does not ask for it again and again.
keep_refused() { mkdir -p "$store/boot/refused" && : >"$store/boot/refused/${1//\//%}"; }

no_more_refused() { rm -f "$store/boot/refused/${1//\//%}"; }

is_refused() { [ -e "$store/boot/refused/${1//\//%}" ] && is_of_this_boot; }
