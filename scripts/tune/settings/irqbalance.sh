# Setting irqbalance: the daemon would move the interrupts again. It is told which cores and which interrupts are not its own.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_irqbalance="irqbalance leaves the shards' cores and the placed interrupts alone"

want_irqbalance() {
    local file irq own placed=""
    for file in /etc/default/irqbalance /etc/sysconfig/irqbalance; do
        [ -f "$root$file" ] || continue
        [ -z "$shards" ] || want line "$file:IRQBALANCE_BANNED_CPULIST" "$shards_list"
        # Those that irq_disk and irq_net have placed, also where these are not selected now.
        own=$(own_arguments "$file")
        for irq in $(placed_irqs); do
            [[ " $own" == *" --banirq=$irq "* ]] || placed+=" --banirq=$irq"
        done
        [ -z "$placed" ] || want line "$file:IRQBALANCE_ARGS" "\"$own${placed# }\""
        return
    done
    unknown /etc/default/irqbalance "irqbalance is not installed, and moves nothing"
}

# What is given to the daemon already, without the interrupts that an apply before this one named.
own_arguments() {
    local word before="$root/var/lib/tramline-tune/files/${1//\//%}/before" first
    first=" $(arguments_in "$before") "
    for word in $(arguments_in "$root$1"); do
        case "$word" in
            --banirq=*) [ -f "$before" ] && [[ "$first" != *" $word "* ]] || printf '%s ' "$word" ;;
            *) printf '%s ' "$word" ;;
        esac
    done
}

arguments_in() { sed -n 's/^IRQBALANCE_ARGS=//p' "$1" 2>/dev/null | tail -n 1 | tr -d "\"'"; }

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
