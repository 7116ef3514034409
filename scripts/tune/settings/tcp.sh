# Setting tcp: long-lived connections between machines that are near to each other.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_tcp="TCP keeps its window while idle, and grows it far enough"

want_tcp() {
    local at=/proc/sys/net/ipv4
    # Else a connection that was silent for a retransmission timeout (200 ms) begins anew with ten packets.
    want word "$at/tcp_slow_start_after_idle" 0
    # How far a window grows by itself.
    want least3 "$at/tcp_rmem" 67108864
    want least3 "$at/tcp_wmem" 67108864
    want least "$at/tcp_max_syn_backlog" 4096
    # Small sends do not wait for the one before to have left the card.
    [ "$profile" = throughput ] || want word "$at/tcp_autocorking" 0
}
