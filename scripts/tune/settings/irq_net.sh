# Setting irq_net: who takes packets in. latency: cores without shards. throughput: one queue per shard's core, since one or two spare cores could not
# take in what all shards can handle.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_irq_net="network interrupts go to cores without shards (latency) or are spread over the shards' (throughput)"

want_irq_net() {
    local one irq i=0
    local -a cores_of
    if [ -z "$nics" ]; then
        unknown /sys/class/net "no network card was found"
        return
    fi
    if [ "$profile" = latency ] && [ -z "$spare" ]; then
        unknown /proc/irq "the shards have all cores"
        return
    fi
    read -r -a cores_of <<<"$shards"
    for one in $nics; do
        if ! irqs_of "/sys/class/net/$one/device" "$one"; then
            unknown "/sys/class/net/$one" "$why_no_irqs"
            continue
        fi
        for irq in $irqs; do
            is_quiet_irq "$irq" && continue
            if [ "$profile" = latency ]; then
                want irq "/proc/irq/$irq/smp_affinity_list" "$spare_list"
            elif [ "${#cores_of[@]}" -gt 0 ]; then
                want irq "/proc/irq/$irq/smp_affinity_list" "${cores_of[i % ${#cores_of[@]}]}"
                i=$((i + 1))
            fi
        done
    done
}
