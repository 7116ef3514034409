# Sourced by tune.sh: what was there before, below /var/lib/tramline-tune. One folder per path, with what apply found (`before`; none where there was no
# file), what it left (`after`), and whose it is. The first value found is the one that is kept, however often apply runs.
#
# `boot/` is for values of the kernel: they end with the machine's run, and so do these notes. `files/` is for files of the system.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

store=""
parts=(boot files)

open_store() {
    store="$root/var/lib/tramline-tune"
    if [ "$dry_run" = yes ]; then
        is_of_this_boot || parts=(files)
        return
    fi
    if ! mkdir -p "$store/boot" "$store/files" 2>/dev/null; then
        printf 'tune.sh: cannot make %s, where what was there before is kept\n' "$store" >&2
        exit 1
    fi
    exec 9>"$store/lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        printf 'tune.sh: another tune.sh is at work here\n' >&2
        exit 1
    fi
    # Numbers of interrupts and names of disks mean something else after a restart of the machine.
    if ! is_of_this_boot; then
        rm -rf "${store:?}/boot"
        mkdir -p "$store/boot"
        boot_id >"$store/boot/id"
    fi
}

boot_id() { local text; read_file /proc/sys/kernel/random/boot_id && printf '%s\n' "$text" || printf 'none\n'; }

is_of_this_boot() { [ "$(cat "$root/var/lib/tramline-tune/boot/id" 2>/dev/null)" = "$(boot_id)" ]; }

# The folder for a path of a kind, in `entry`. The lines of one file share one.
entry_of() {
    local path=$2 part=boot
    case "$1" in
        line) path=${2%:*} part=files ;;
        whole) part=files ;;
    esac
    entry="$store/$part/${path//\//%}"
}

# Keeps what is there, unless something is kept already. Complete or not at all: the name comes last.
keep_before() {
    local setting=$1 kind=$2 path=$3 entry new
    entry_of "$kind" "$path"
    [ ! -d "$entry" ] || return 0
    new="$entry.new"
    rm -rf "$new"
    mkdir -p "$new" || return 1
    [ "$kind" != line ] || path=${path%:*}
    printf '%s\n' "$setting" >"$new/setting" && printf '%s\n' "$kind" >"$new/kind" && printf '%s\n' "$path" >"$new/path" || return 1
    case "$kind" in
        coalesce) look "$kind" "$path" && printf '%s\n' "$is" >"$new/before" ;;
        whole | line) [ ! -f "$root$path" ] || cp -p "$root$path" "$new/before" ;;
        *) cat "$root$path" >"$new/before" ;;
    esac || return 1
    mv "$new" "$entry"
}

keep_after() {
    local entry
    entry_of "$1" "$2"
    case "$1" in
        line | whole) cp "$root${2%:*}" "$entry/after" ;;
        *) return 0 ;;
    esac
}

forget() { rm -rf "${1:?}"; }

# A path that the kernel does not let go: remembered, so that check does not ask for it again and again.
keep_refused() {
    local entry
    entry_of "$1" "$2"
    forget "$entry"
    mkdir -p "$store/boot/refused" && : >"$store/boot/refused/${2//\//%}"
}

is_refused() {
    [ -e "$root/var/lib/tramline-tune/boot/refused/${1//\//%}" ] && is_of_this_boot
}
