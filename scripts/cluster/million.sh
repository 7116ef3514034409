#!/usr/bin/env bash
# A million acknowledged records under the loss of all nodes at once and bits that rot on one of them: is any lost? Needs root.
#
#   scripts/cluster/million.sh [--records N] [--cuts N] [--rate N] [--limit SECONDS] [--binary FILE] [--keep DIR] [-- SERVE FLAGS]
#
# Builds three nodes (cluster.sh up) and two topics of six partitions and three replicas. Two writers (tramline-witness, level durable) send --rate numbered records a
# second together (20000) until --records (1000000) are acknowledged. Meanwhile, --cuts times (5) and evenly spread, all nodes are ended by SIGKILL at once, under load;
# before they start again, one bit is flipped in each of some records (30) in the segments of one node, each time the same. In the end the writers read everything back, and then
# it is read from each of the three nodes, also from the damaged one, and compared with what was acknowledged: there once, at the offset that was told, in order, with its bytes.
# SIGKILL takes a node's process and not what the kernel holds of its files, so it is the loss of power only as far as the broker writes past the kernel's cache.
# --limit: so long writing may take at most (900); what there is then is checked. A line for each step. With --keep, or when something is wrong, logs and notes stay in a directory that is named.
# The last line is
#   acked=.. lost=.. doubled=.. wrong=.. power_cuts=.. flips=..
# where lost, doubled and wrong (bytes that nobody wrote, or out of order) are sums over all readings. Exit codes: 0 all is right, 1 something is lost, doubled or wrong, or too
# few records were acknowledged, or a step failed, 2 wrong usage, 3 cannot be had on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

records=1000000 cuts=5 rate=20000 limit=900 binary="" keep="" flags=()
takes="records cuts rate limit binary keep"
# shellcheck source=scripts/cluster/lib/arguments.sh
. "$here/lib/arguments.sh"
read_arguments "$@"
[[ "$records" =~ ^[1-9][0-9]{0,6}$ ]] || wrong_usage "--records is a number of records, at most 9999999"
[[ "$cuts" =~ ^[0-9]{1,2}$ ]] || wrong_usage "--cuts is a number, at most 99"
[[ "$rate" =~ ^[1-9][0-9]{1,5}$ ]] && [ "$rate" -le 200000 ] || wrong_usage "--rate is a number of records a second, 10 to 200000"
[[ "$limit" =~ ^[1-9][0-9]{0,4}$ ]] || wrong_usage "--limit is a number of seconds"

work=$(mktemp -d --tmpdir tramline-million-XXXXXXXX)
dir="$work/cluster"
step() { printf '%s  %s\n' "$(date -u +%T)" "$*"; }
fail() { printf 'million.sh: %s\n' "$*" >&2; exit 1; }
# shellcheck source=scripts/cluster/lib/watch.sh
. "$here/lib/watch.sh"
# shellcheck source=scripts/cluster/lib/damage.sh
. "$here/lib/damage.sh"
# shellcheck source=scripts/cluster/lib/replicas.sh
. "$here/lib/replicas.sh"

# Whose bits rot: a minority.
DAMAGED=2
topics=(w1 w2)
writers=()
is_right=no
has_told=no
# Logs and notes are kept where they are wanted or needed; before the last line, so that it is the last one.
tell_logs() {
    local number into
    [ "$has_told" = no ] || return 0
    has_told=yes
    [ "$is_right" = no ] || [ -n "$keep" ] || return 0
    into="${keep:-$(mktemp -d --tmpdir tramline-million-logs-XXXXXXXX)}"
    mkdir -p "$into"
    for number in 1 2 3; do cp "$dir/$number/log" "$into/node-$number.log" 2>/dev/null || true; done
    cp "$work"/w[12].* "$into/" 2>/dev/null || true
    step "logs and notes are in $into"
}
finish() {
    local number
    # Waited for, or the shell tells of each that it was killed.
    for number in "${writers[@]}"; do { kill -KILL "$number" && wait "$number"; } 2>/dev/null || true; done
    tell_logs
    cluster down >/dev/null || true
    rm -rf "$work"
}
up=(up --nodes 3 --disk 8589934592)
[ -z "$binary" ] || up+=(--binary "$binary")
cluster "${up[@]}" -- --shards 2 --set memory.bytes=256MiB --set segment.bytes=16MiB "${flags[@]}" >/dev/null || { code=$?; rm -rf "$work"; exit "$code"; }
trap finish EXIT
whole
for topic in "${topics[@]}"; do
    ctl topic create "$topic" --partitions 6 --replicas 3 >/dev/null
    eventually even "$topic"
done

# Not by way of `cluster`: it becomes the witness, which is told to end.
began=$SECONDS
for topic in "${topics[@]}"; do
    : >"$work/$topic.acks"
    "$here/cluster.sh" --dir "$dir" exec client "$(beside tramline-witness)" --server "$servers" --topic "$topic" --rate "$((rate / ${#topics[@]}))" --acks "$work/$topic.acks" \
        </dev/null >"$work/$topic.result" 2>"$work/$topic.trouble" &
    writers+=($!)
done

acked() { cat "$work"/w[12].acks | wc -l; }
# Waits until so many are acknowledged, and tells every ten seconds how many are. Fails when time is up: then what there is is checked.
reach() {
    local now told=$SECONDS
    while now=$(acked) && [ "$now" -lt "$1" ]; do
        [ $((SECONDS - began)) -lt "$limit" ] || { step "only $now records are acknowledged after $limit s: no more time"; return 1; }
        for number in "${writers[@]}"; do kill -0 "$number" 2>/dev/null || fail "a writer has ended: $(tail -n 1 "$work"/w[12].trouble)"; done
        if [ $((SECONDS - told)) -ge 10 ]; then
            step "$now acknowledged"
            told=$SECONDS
        fi
        sleep 0.5
    done
}

is_dead() { [ "$(cluster status | grep -c ' state=dead ')" = 3 ]; }
flips=0 cuts_done=0
for ((cut = 1; cut <= cuts; cut++)); do
    reach $((records * cut / (cuts + 1))) || break
    # shellcheck disable=SC2046 # ids; one kill for all
    kill -KILL $(cut -d' ' -f1 "$dir"/[123]/pid)
    eventually is_dead
    before=$(acked)
    flipped=$(flip_bits "$DAMAGED" "$work/values")
    [ "$flipped" -gt 0 ] || fail "there was nothing to flip"
    flips=$((flips + flipped))
    cluster start 1 2 3
    cuts_done=$cut
    step "cut $cut/$cuts: all nodes were killed with $before acknowledged, $flipped bits of node $DAMAGED are flipped, all run again"
done
[ "$cuts_done" -lt "$cuts" ] || reach "$records" || true
step "$(acked) acknowledged after $((SECONDS - began)) s: writers end and read back"

lost=0 doubled=0 wrong=0
# Adds what a witness says; `$1` its line.
add() {
    local line="$1" name sum
    field() { sed -n "s/.*\b$1=\([0-9]*\).*/\1/p" <<<"$line"; }
    for name in lost doubled wrong disordered; do [ -n "$(field "$name")" ] || fail "a witness says nothing of what is $name: '$line'"; done
    lost=$((lost + $(field lost))) doubled=$((doubled + $(field doubled))) wrong=$((wrong + $(field wrong) + $(field disordered)))
}
for number in "${writers[@]}"; do kill -TERM "$number"; done
for number in "${writers[@]}"; do wait "$number" || true; done
writers=()
for topic in "${topics[@]}"; do
    [ -s "$work/$topic.result" ] || fail "the writer of $topic says nothing: $(tail -n 3 "$work/$topic.trouble")"
    step "$topic: $(<"$work/$topic.result")"
    add "$(<"$work/$topic.result")"
done

# What its metrics say counts from its last start; its log begins with the first.
[ "$flips" = 0 ] || grep -q damaged "$dir/$DAMAGED/log" || fail "node $DAMAGED says nothing of its damage: what was flipped was not looked at, and that proves nothing"
is_whole() { [ "$(metric "$DAMAGED" tramline_unrepaired_ranges)" = 0 ] && [ "$(metric "$DAMAGED" tramline_suspect_replicas)" = 0 ]; }
eventually is_whole
step "nothing of node $DAMAGED is damaged any more: $(metric "$DAMAGED" tramline_repaired_ranges_total) batches are repaired since its last start"

# One reading of a topic while a node leads all of it. Nothing if the lead did not last.
read_from() {
    local before line
    lead_alone "$1" "$2"
    leads_all_it_has "$1" "$2" || return 0
    before=$(owners "$2")
    line=$(cluster exec client "$(beside tramline-witness)" --server "$servers" --topic "$2" --acks "$work/$2.acks" --check </dev/null 2>>"$work/$2.trouble") || true
    if [ "$(owners "$2")" = "$before" ] && leads_all_it_has "$1" "$2" && [[ "$line" == *" unread=0" ]]; then say "$line"; fi
}
for node in "$DAMAGED" 3 1; do
    for topic in "${topics[@]}"; do
        # On a loaded machine a restart takes longer than an election, and then another node may lead.
        for _ in $(seq 8); do
            line=$(read_from "$node" "$topic")
            [ -z "$line" ] || break
        done
        [ -n "$line" ] || fail "node $node did not lead all of $topic for long enough, or $(tail -n 3 "$work/$topic.trouble")"
        step "$topic, read from node $node: $line"
        add "$line"
    done
done

total=$(acked)
[ "$lost" = 0 ] && [ "$doubled" = 0 ] && [ "$wrong" = 0 ] && [ "$total" -ge "$records" ] && is_right=yes
tell_logs
say "acked=$total lost=$lost doubled=$doubled wrong=$wrong power_cuts=$cuts_done flips=$flips"
[ "$is_right" = yes ]
