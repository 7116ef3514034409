# Sourced by failover.sh and faults.sh: a cluster of three nodes made by cluster.sh, asked through tramctl, and waits for what it is to come to.
# Needs `here` (this directory's parent), `dir` (the cluster's), and a function `fail`. Not here: faults (cluster.sh), workloads.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `dir` and `here` are those of whoever sources it

servers=10.7.0.1:7410,10.7.0.2:7410,10.7.0.3:7410
# Whom `ctl` asks; a node that is stopped or cut off says nothing, or what was.
asked=$servers
ask_all() { asked=$servers; }
ask_all_but() { asked=$(tr , '\n' <<<"$servers" | grep -vF "10.7.0.$1:" | paste -sd,); }
# How long anything that has to come about by itself may take.
EVENTUALLY_S=60

say() { printf '%s\n' "$*"; }
now_us() { local t="$EPOCHREALTIME"; say "${t/./}"; }
cluster() { "$here/cluster.sh" --dir "$dir" "$@"; }
# One of our programs, which lie where the broker's binary does.
beside() { say "$(dirname "$(<"$dir/binary")")/$1"; }
ctl() { cluster exec client "$(beside tramctl)" --timeout 10s --server "$asked" "$@" </dev/null; }

eventually() {
    local until=$((SECONDS + EVENTUALLY_S))
    until "$@"; do
        if [ "$SECONDS" -ge "$until" ]; then
            [ "$1" != even ] || tell_leaders "$2"
            fail "it does not come about within $EVENTUALLY_S s: $*"
        fi
        sleep 0.05
    done
}

three_active() { [ "$(ctl cluster nodes 2>/dev/null | awk '$2 == "active" && $3 == "yes"' | wc -l)" -eq 3 ]; }
voters_of_metadata() { [ "$(ctl cluster groups 2>/dev/null | awk '$1 == 0 { print split($5, v, ",") }')" = 3 ]; }
# Leader, group and term of each partition of a topic, a line each: PARTITION NODE GROUP TERM.
owners() { ctl metadata "$1" 2>/dev/null | awk -v t="$1" '$1 == t { print $2, $3, $5, $6 }'; }
# Without the group.
leaders() { owners "$1" | awk '{ print $1, $2, $4 }'; }
leader_of() { leaders "$1" | awk -v p="$2" '$1 == p && $3 > 0 { print $2 }'; }
leader_of_metadata() { ctl cluster groups 2>/dev/null | awk '$1 == 0 && $2 != "-" { print $2 }'; }
# What each node says of a topic's `owners`, for whoever asks why a wait came to nothing.
tell_leaders() {
    local asked server
    for server in ${servers//,/ }; do
        asked=$server
        printf '%s says of %s: %s\n' "$server" "$1" "$(owners "$1" | tr ' \n' '/ ')" >&2
    done
}
# Every node leads two of six partitions: what was given to others has come back.
even() { [ "$(leaders "$1" | awk '$3 > 0 { n[$2]++ } END { print n[1] + 0, n[2] + 0, n[3] + 0 }')" = "2 2 2" ]; }

# The cluster as it should be after `up`.
whole() {
    eventually three_active
    eventually voters_of_metadata
}
