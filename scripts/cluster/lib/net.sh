# Sourced by cluster.sh: namespaces, their wires, and faults of the network.
# shellcheck shell=bash
# shellcheck disable=SC2015 # `A && B || fail`: it does not come back
# shellcheck disable=SC2154 # `dir`, `id`, `nodes` and `here` are cluster.sh's

# Nothing of this is seen on the machine's own network: a hub namespace holds a bridge, which is also where clients are, and each node's namespace
# hangs on it by a veth pair. So addresses are the same in every cluster, and clusters do not meet.
#
# Faults are rules in the namespace of who RECEIVES. A rule at the sender would not be silent: the kernel tells a sender whose packet was dropped
# on its way out. ARP is left alone for the same reason: without it a sender learns that its neighbour is unreachable.
# All rules of a namespace are made anew from `faults/` and put in place as one transaction, so there is no state to get out of step.

netns() { printf '%s-%s' "$id" "$1"; }
netns_file() { printf '/run/netns/%s' "$(netns "$1")"; }
address() { if [ "$1" = client ]; then printf 10.7.0.254; else printf '10.7.0.%s' "$1"; fi; }
everybody() { seq "$nodes"; printf 'client\n'; }

net_up() {
    local hub number
    hub=$(netns client)
    ip netns add "$hub"
    ip -n "$hub" link set lo up
    ip -n "$hub" link add bridge type bridge
    ip -n "$hub" address add "$(address client)/24" dev bridge
    ip -n "$hub" link set bridge up
    for number in $(seq "$nodes"); do
        ip netns add "$(netns "$number")"
        ip -n "$(netns "$number")" link set lo up
        ip -n "$hub" link add "node$number" type veth peer name eth0 netns "$(netns "$number")"
        ip -n "$hub" link set "node$number" master bridge up
        ip -n "$(netns "$number")" address add "$(address "$number")/24" dev eth0
        ip -n "$(netns "$number")" link set eth0 up
    done
}

# Wires and rules go with their namespace.
net_down() {
    local file
    for file in "/run/netns/$id"-*; do
        [ -e "$file" ] || continue
        ip netns delete "${file##*/}"
    done
}

# Reads A, B and the flags of a fault into `from`, `to`, `ways` (pairs `A B`), and the rest into `words`.
fault_arguments() {
    local verb="$1" one_way=no
    shift
    words=()
    while [ $# -gt 0 ]; do
        case "$1" in
            --one-way) one_way=yes ;;
            --*)
                [ "$verb $1" = "delay --jitter" ] || usage "$verb does not know '$1'"
                [ $# -ge 2 ] || usage "--jitter needs a time"
                jitter="$2"
                shift
                ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    [ ${#words[@]} -ge 2 ] || usage "$verb needs two nodes"
    place "$verb" "${words[0]}"
    place "$verb" "${words[1]}"
    [ "${words[0]}" != "${words[1]}" ] || usage "$verb needs two different nodes"
    ways=("${words[0]} ${words[1]}")
    [ "$one_way" = yes ] || ways+=("${words[1]} ${words[0]}")
    words=("${words[@]:2}")
}

fault_cut() {
    local way words ways
    fault_arguments cut "$@"
    no_more "${words[@]}"
    for way in "${ways[@]}"; do
        : >"$dir/faults/cut-${way/ /-}"
        net_apply "${way#* }"
    done
}

fault_isolate() {
    local other
    for other in $(seq "$nodes"); do
        [ "$other" != "$1" ] || continue
        : >"$dir/faults/cut-$1-$other"
        : >"$dir/faults/cut-$other-$1"
        net_apply "$other"
    done
    net_apply "$1"
}

fault_lossy() {
    local way words ways percent hundredths
    fault_arguments lossy "$@"
    [ ${#words[@]} -ge 1 ] || usage "lossy needs a percentage, as in 5%"
    no_more "${words[@]:1}"
    percent="${words[0]%\%}"
    [[ "$percent" =~ ^([0-9]{1,3})(\.([0-9]{1,2}))?$ ]] || usage "'${words[0]}' is no percentage: write 5% or 0.25%"
    hundredths="${BASH_REMATCH[3]:-}00"
    hundredths=$((10#${BASH_REMATCH[1]} * 100 + 10#${hundredths:0:2}))
    [ "$hundredths" -le 10000 ] || usage "'${words[0]}' is more than all"
    for way in "${ways[@]}"; do
        if [ "$hundredths" -eq 0 ]; then rm -f "$dir/faults/lossy-${way/ /-}"; else say "$hundredths" >"$dir/faults/lossy-${way/ /-}"; fi
        net_apply "${way#* }"
    done
}

fault_heal() {
    local file
    for file in "$dir"/faults/proxy-*; do
        [ -d "$file" ] || continue
        proxy_end "$file"
    done
    rm -f "$dir"/faults/{cut,lossy,delay}-*
    for file in $(everybody); do net_apply "$file"; done
}

# The faults of one kind that a place receives, as `sender content`.
faults_at() {
    local file pair
    for file in "$dir/faults/$1"-*-"$2"; do
        [ -e "$file" ] || continue
        pair="${file##*/"$1"-}"
        printf '%s %s\n' "${pair%-*}" "$(<"$file")"
    done
}

# Makes the rules of a namespace anew. Cuts come first: what is cut is not lost.
net_apply() {
    local sender rest
    {
        # Declared first: deleting what is not there would fail.
        printf 'table inet faults\ndelete table inet faults\ntable inet faults {\n'
        printf 'chain input {\ntype filter hook input priority filter\n'
        while read -r sender rest; do
            printf 'ip saddr %s counter drop\n' "$(address "$sender")"
        done < <(faults_at cut "$1")
        while read -r sender rest; do
            printf 'ip saddr %s numgen random mod 10000 < %s counter drop\n' "$(address "$sender")" "$rest"
        done < <(faults_at lossy "$1")
        printf '}\n'
        proxy_rules "$1"
        printf '}\n'
    } | nsenter --net="$(netns_file "$1")" nft -f - || fail "nft does not take the rules of $1"
}

# Packets that the rules of a place have dropped since they were last changed.
dropped() {
    nsenter --net="$(netns_file "$1")" nft list chain inet faults input 2>/dev/null \
        | awk '{ for (i = 1; i < NF; i++) if ($i == "packets") sum += $(i + 1) } END { print sum + 0 }'
}

# Delays. A rule at A redirects what A connects to at B to a proxy of A's own, which connects to where it was to go; its packets carry a mark
# that the rule passes over. B sees A's address. Connections that stand already are not redirected.

# Any number that no other rule uses.
PROXY_MARK=7700
# Proxies listen at A on this port plus B's number: outside of the range that the kernel gives to others.
PROXY_PORT=20000

proxy_rules() {
    local file to
    # The number of `dstnat`, a name that is not allowed here.
    printf 'chain output {\ntype nat hook output priority -100\n'
    for file in "$dir/faults/proxy-$1"-*; do
        [ -d "$file" ] || continue
        to="${file##*-}"
        printf 'ip daddr %s meta mark != %s tcp dport 1-65535 redirect to :%s\n' "$(address "$to")" "$PROXY_MARK" $((PROXY_PORT + to))
    done
    printf '}\n'
}

# delay A B: connections that A opens to B, and those that B opens to A, go through a proxy at who opens. Each proxy delays both directions by its
# own numbers: what A sends is `up` at A's proxy, and `down` at B's.
fault_delay() {
    local words ways jitter=0ms time a b way
    fault_arguments delay "$@"
    [ ${#words[@]} -ge 1 ] || usage "delay needs a time, as in 2ms"
    no_more "${words[@]:1}"
    time="${words[0]}"
    for way in "$time" "$jitter"; do
        [[ "$way" =~ ^[0-9]{1,9}(us|ms|s)$ ]] || usage "'$way' is no time: write 50us, 2ms or 1s"
    done
    read -r a b <<<"${ways[0]}"
    [ "$a" != client ] && [ "$b" != client ] || usage "delay is for nodes: a client can put tramline-proxy in front of itself"
    proxy_begin "$a" "$b"
    proxy_begin "$b" "$a"
    for way in "${ways[@]}"; do
        say "$time+$jitter" >"$dir/faults/delay-${way/ /-}"
        if [ "$way" = "$a $b" ]; then
            proxy_tell "$a" "$b" up "$time" "$jitter"
            proxy_tell "$b" "$a" down "$time" "$jitter"
        else
            proxy_tell "$a" "$b" down "$time" "$jitter"
            proxy_tell "$b" "$a" up "$time" "$jitter"
        fi
    done
}

# Starts the proxy of connections from A to B, if it does not run.
proxy_begin() {
    local state="$dir/faults/proxy-$1-$2" binary
    [ ! -d "$state" ] || return 0
    binary=$(beside_broker tramline-proxy)
    mkdir "$state"
    mkfifo "$state/commands"
    : >"$state/out"
    # `redirect` sends what this namespace itself sends to its loopback address.
    # Opened for both, so that a command neither waits for a reader nor ends its input.
    nsenter --net="$(netns_file "$1")" setsid "$binary" --listen "127.0.0.1:$((PROXY_PORT + $2))" --to original --mark "$PROXY_MARK" \
        <>"$state/commands" >"$state/out" 2>"$state/log" 9>&- &
    remember_process $! "$state/pid"
    eventually has_answered "$state" 1 || fail "the proxy does not start: $(cat "$state/log")"
    net_apply "$1"
}

has_answered() {
    is_dead "$1/pid" && fail "the proxy has ended: $(cat "$1/log")"
    [ "$(wc -l <"$1/out")" -ge "$2" ]
}

proxy_tell() {
    local state="$dir/faults/proxy-$1-$2" lines
    lines=$(wc -l <"$state/out")
    printf 'delay %s %s\njitter %s %s\n' "$3" "$4" "$3" "$5" >"$state/commands"
    eventually has_answered "$state" $((lines + 2)) || fail "the proxy does not answer"
    ! tail -n 2 "$state/out" | grep '^error' >&2 || fail "the proxy refuses that"
}

# Connections through it break, as they do when a cable is changed.
proxy_end() {
    local pair="${1##*/proxy-}"
    kill_process "$1/pid"
    rm -rf "$1"
    net_apply "${pair%-*}"
}
