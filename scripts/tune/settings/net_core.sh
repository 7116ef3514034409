# Setting net_core: what all sockets share.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of tune.sh
about_net_core="queues and buffers of the network hold what comes at once"

want_net_core() {
    local at=/proc/sys/net/core
    # A node asks for 4096 waiting connections per port (all clients coming back at once); less cuts that down silently.
    want least "$at/somaxconn" 4096
    # Buffers that a program may ask for: 64 MiB hold 5 ms at 100 Gbit/s.
    want least "$at/rmem_max" 67108864
    want least "$at/wmem_max" 67108864
    # Packets of a core that wait for the stack; counts where packets are handed to other cores (loopback among them).
    want least "$at/netdev_max_backlog" 16384
    # Programs that wait in a blocking read or in poll look at the card themselves for 50 us. A node's own ring does not wait there: for clients.
    if [ "$profile" = latency ]; then
        want word "$at/busy_poll" 50
        want word "$at/busy_read" 50
    fi
}
