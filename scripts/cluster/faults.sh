#!/usr/bin/env bash
# Breaks a cluster of three nodes in every way of a list, while streams and queues are written and read, and looks whether anything acknowledged is lost. Needs root.
#
#   scripts/cluster/faults.sh [--only NAME[,NAME ..]] [--rate N] [--binary FILE] [--keep DIR] [-- SERVE FLAGS]
#
#   leader       SIGKILL of a partition's leader                  pause     SIGSTOP of a leader past its election time-out, then SIGCONT
#   follower     SIGKILL of a node that leads none of it          full      the disk of a leader has no free byte, until it refuses
#   metadata     SIGKILL of the leader of group 0                 slow      the disk of a leader is 100 times slower
#   all          SIGKILL of all, started again together           two       one node killed while another is stopped; one cut in two while the third has a slow disk
#   cut-leader   a leader is cut off from both others             rolling   drain, SIGTERM, start, undrain of each node in turn; not one record may fail
#   one-way      a leader's packets vanish, then those to it      flip      bits of one replica's segments are flipped while its node is down
#   isolate      each node is cut off, one after the other         move      replicas are moved to the node that has none, a leader's and a follower's, and back
#
# A name may come several times. Each fault runs on topics of its own (six partitions; three replicas, two for `move`, so that a node has none): tramline-witness writes --rate records a second (600) to one, and sends 100 messages a second
# through a queue on the other, received and acknowledged all along. While the fault holds, every partition has to be acknowledged again (where a majority is left; a full leader waits for space); when it is over,
# all nodes have to lead again what they are preferred for. Then the witnesses check: what was acknowledged is there once, where it was said to be, in order, and no acknowledged
# message came again; and every replica is read and compared byte for byte with the others. After a fault that failed the cluster is built anew. Nothing that has to come about is waited for
# longer than a minute.
# A line for each step, and per fault one with its result. Logs and notes of a fault that failed stay in the directory that is named then; with --keep, of all, in that one.
# The last line is
#   faults=14 passed=.. failed=.. acked=.. lost=..
# where lost counts whatever the witnesses found wrong. Exit codes: 0 all passed, 1 one failed, 2 wrong usage, 3 cannot be had on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

all_faults=(leader follower metadata all cut-leader one-way isolate pause full slow two rolling move flip)
only="" rate=600 binary="" keep="" flags=()
takes="only rate binary keep"
# shellcheck source=scripts/cluster/lib/arguments.sh
. "$here/lib/arguments.sh"
read_arguments "$@"
[[ "$rate" =~ ^[1-9][0-9]{0,4}$ ]] || wrong_usage "--rate is a number of records a second"
faults=("${all_faults[@]}")
if [ -n "$only" ]; then
    IFS=, read -ra faults <<<"$only"
    for name in "${faults[@]}"; do
        [[ " ${all_faults[*]} " == *" $name "* ]] || wrong_usage "there is no fault '$name'"
    done
fi

fail() { printf 'faults.sh: %s\n' "$*" >&2; exit 1; }
# shellcheck source=scripts/cluster/lib/watch.sh
. "$here/lib/watch.sh"
# shellcheck source=scripts/cluster/lib/damage.sh
. "$here/lib/damage.sh"
# shellcheck source=scripts/cluster/lib/faults.sh
. "$here/lib/faults.sh"
# shellcheck source=scripts/cluster/lib/workload.sh
. "$here/lib/workload.sh"
# shellcheck source=scripts/cluster/lib/replicas.sh
. "$here/lib/replicas.sh"

work=$(mktemp -d --tmpdir tramline-faults-XXXXXXXX)
dir="$work/cluster"
is_up=no
finish() {
    end_witnesses KILL
    cluster down >/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# A cluster without a history. Small segments: what is written in an experiment fills, seals and sorts some.
fresh() {
    if [ "$is_up" = yes ]; then cluster down >/dev/null; fi
    local up=(up --nodes 3)
    [ -z "$binary" ] || up+=(--binary "$binary")
    is_up=no
    cluster "${up[@]}" -- --shards 2 --set memory.bytes=128MiB --set segment.bytes=16MiB "${flags[@]}" >/dev/null || exit $?
    is_up=yes
    ask_all
    whole
}

# One fault from its topics to the check; `$1` is its name. In a shell of its own, which may end anywhere.
experiment() {
    local copies=3
    # Of three nodes one has to be left over for a replica to go to.
    [ "$1" != move ] || copies=2
    ctl topic create "s-$1" --partitions 6 --replicas "$copies" >/dev/null
    ctl topic create "q-$1" --partitions 6 --replicas "$copies" >/dev/null
    ctl queue create "q-$1" --topic "q-$1" --start earliest --max-deliveries -1 >/dev/null
    eventually even "s-$1"
    eventually even "q-$1"
    topic="s-$1"
    begin_witnesses "$1"
    "fault_${1//-/_}"
    ask_all
    step "back as it was"
    eventually three_active
    eventually even "s-$1"
    all_acked
    end_witnesses TERM
    check_witnesses
    compare_replicas "$copies" "s-$1" "q-$1"
}

# Every replica has the same records at the same offsets, also those that nobody reads as long as others lead. By now nothing is written.
compare_replicas() {
    local topic line
    read_replicas "$work/$fault.replicas" "${@:2}"
    for topic in "${@:2}"; do
        line=$(replicas_agree "$work/$fault.replicas" "$topic" 6 "$1") || fail "replicas are not the same: $line"
        eventually even "$topic"
    done
    step "the $1 replicas of each partition are the same: $(cat "$work/$fault.replicas"/*.[1-3] | wc -l) records read"
    rm -rf "$work/$fault.replicas"
}

step() { printf '%s  %-10s  %s\n' "$(date -u +%T)" "$fault" "$*"; }

# What is looked at when a fault failed, or what --keep asks for.
evidence() {
    local into="${keep:-$(mktemp -d --tmpdir tramline-fault-XXXXXXXX)}" number
    mkdir -p "$into/$fault"
    for number in 1 2 3; do cp "$dir/$number/log" "$into/$fault/node-$number.log"; done
    cp -r "$work/$fault".* "$into/$fault/" 2>/dev/null || true
    step "logs and notes are in $into/$fault"
}

passed=0 failed=0 acked=0 lost=0 began=$SECONDS seen=" "
for fault in "${faults[@]}"; do
    # One that comes again would find its topics.
    if [ "$is_up" = no ] || [[ "$seen" == *" $fault "* ]]; then fresh; seen=" "; fi
    seen+="$fault "
    at=$SECONDS
    # Not `if (..)`: in there, and in all that it calls, a failure would end nothing.
    set +e
    (set -e; experiment "$fault")
    code=$?
    set -e
    end_witnesses KILL
    acked=$((acked + $(sum_of acked))) lost=$((lost + $(sum_of lost doubled wrong disordered revived stuck)))
    if [ "$code" = 0 ]; then
        passed=$((passed + 1))
        step "PASSED in $((SECONDS - at)) s"
        [ -z "$keep" ] || evidence
    else
        failed=$((failed + 1))
        step "FAILED after $((SECONDS - at)) s"
        evidence
    fi
    if [ "$code" != 0 ]; then cluster down >/dev/null; is_up=no; fi
done
say "in $((SECONDS - began)) s"
say "faults=${#faults[@]} passed=$passed failed=$failed acked=$acked lost=$lost"
[ "$failed" = 0 ] && [ "$lost" = 0 ]
