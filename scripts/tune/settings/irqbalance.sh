# Setting irqbalance: the daemon would move the interrupts again. It is told which cores and which interrupts are not its own, beside those that its owner
# has told it.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_irqbalance="irqbalance leaves the shards' cores and the placed interrupts alone"

want_irqbalance() {
    local file
    for file in /etc/default/irqbalance /etc/sysconfig/irqbalance; do
        [ -f "$root$file" ] || continue
        [ -z "$shards" ] || want_banned_cores "$file:IRQBALANCE_BANNED_CPULIST"
        want_banned_irqs "$file:IRQBALANCE_ARGS"
        return
    done
    unknown /etc/default/irqbalance "irqbalance is not installed, and moves nothing"
}

want_banned_cores() {
    local is bare quote numbers rest list now ours both
    look line "$1"
    if ! unquote "$is" || ! numbers_of "$bare"; then
        advise "$1" "$is" "$shards_list" "that is no list of cores: add $shards_list to it by hand"
        return
    fi
    now=$numbers
    cores_in "$(wrote "$1")"; ours=$both
    cores_in "$(found "$1")"
    # What we have added goes, what the owner had or has added stays.
    without "$ours" "$both"; without "$now" "$rest"
    both="$rest $shards"; both=${both# }
    numbers_of "${both// /,}"
    list_of "$numbers"
    # As it is written, where it says the same.
    [ "$numbers" != "$now" ] || list=$is
    want line "$1" "$list"
}

# The cores that some values name together, in `both`.
cores_in() {
    local line
    both=""
    while IFS= read -r line; do
        unquote "$line" && numbers_of "$bare" && both+=" $numbers"
    done <<<"$1"
}

want_banned_irqs() {
    local is bare quote word irq ours had own="" placed=""
    local -a words
    # Those that irq_disk and irq_net have placed, also where these are not selected now.
    local -a irqs_placed
    mapfile -t irqs_placed < <(placed_irqs)
    [ "${#irqs_placed[@]}" -gt 0 ] || return 0
    look line "$1"
    if ! unquote "$is"; then
        advise "$1" "$is" - "it is quoted in a way that this script does not change: add by hand ${irqs_placed[*]/#/--banirq=}"
        return
    fi
    ours=" $(wrote "$1" | tr "\"'\n" '   ') " had=" $(found "$1" | tr "\"'\n" '   ') "
    read -r -a words <<<"$bare"
    for word in "${words[@]}"; do
        # What an apply before this one has added goes: the interrupt may be another's by now.
        case "$word" in --banirq=*) [[ "$ours" != *" $word "* || "$had" == *" $word "* ]] || continue ;; esac
        own+="$word "
    done
    for irq in "${irqs_placed[@]}"; do
        [[ " $own" == *" --banirq=$irq "* ]] || placed+="--banirq=$irq "
    done
    own+=$placed
    want line "$1" "$quote${own% }$quote"
}

# The values that earlier runs gave a line, and what was in it before the first: each on a line of its own.
wrote() { local entry; entry_of line "$1"; cat "$entry/wrote.${1##*:}" 2>/dev/null; }
found() { local entry; entry_of line "$1"; sed -n "s/^${1##*:}=//p" "$entry/before" 2>/dev/null | tail -n 1; }

# A value without the quotes around it in `bare`, and in `quote` those to write it with; false where quotes or backslashes in it might mean more than that.
unquote() {
    read -r bare <<<"$1"
    quote='"'
    case "$bare" in
        \"*\") bare=${bare:1:${#bare}-2}; [[ "$bare" != *\"* ]] ;;
        \'*\')
            bare=${bare:1:${#bare}-2}
            case "$bare" in *[\"\\\$\`]*) quote=\' ;; esac
            [[ "$bare" != *\'* ]]
            ;;
        *) [[ "$bare" != *[\"\'\\\$\`]* ]] ;;
    esac
}

placed_irqs() {
    want_paths=() rows=()
    want_irq_disk
    want_irq_net
    local path
    for path in "${want_paths[@]-}"; do
        path=${path#/proc/irq/}
        [ -z "$path" ] || printf '%s\n' "${path%%/*}"
    done
}
