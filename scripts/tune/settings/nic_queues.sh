# Setting nic_queues: report only, since changing their number takes the link down for moments.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_nic_queues="a network card has a queue for each core that takes its interrupts (report only)"

want_nic_queues() {
    local one queue has wanted
    local -a cores_of
    read -r -a cores_of <<<"$([ "$profile" = latency ] && printf '%s' "${spare:-$shards}" || printf '%s' "$shards")"
    wanted=${#cores_of[@]}
    [ -n "$nics" ] || unknown /sys/class/net "no network card was found"
    for one in $nics; do
        has=0
        if stays "/sys/class/net/$one/queues"; then
            for queue in "$root/sys/class/net/$one/queues"/rx-*; do
                [ -d "$queue" ] && has=$((has + 1))
            done
        fi
        if [ "$has" = 0 ]; then
            unknown "/sys/class/net/$one/queues" "not there"
        elif [ "$has" -ge "$wanted" ]; then
            fine "/sys/class/net/$one/queues" "$has"
        else
            advise "/sys/class/net/$one/queues" "$has" "$wanted" "if the card has more: ethtool -L $one combined $wanted (the link goes down for moments)"
        fi
    done
}
