# Setting nic_coalescing: how long a card gathers packets before it interrupts.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_nic_coalescing="network cards tell at once (latency) or gather by load (throughput)"

want_nic_coalescing() {
    local one
    [ -n "$nics" ] || unknown /sys/class/net "no network card was found"
    for one in $nics; do
        if [ "$profile" = throughput ]; then
            want coalesce "$one:adaptive-rx" on
            continue
        fi
        # Off before the times, which it would change.
        want coalesce "$one:adaptive-rx" off
        want coalesce "$one:rx-usecs" 0
    done
}
