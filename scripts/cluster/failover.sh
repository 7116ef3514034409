#!/usr/bin/env bash
# How long a cluster takes nobody's records when the leader of a partition dies or is cut off, and whether anything acknowledged is lost. Needs root.
#
#   scripts/cluster/failover.sh [--rounds N] [--cuts N] [--binary FILE] [--dir DIR] [-- SERVE FLAGS]
#
# Builds three nodes (cluster.sh up), writes a steady 600 records a second to six partitions at level durable, and N times (20) ends the leader of a partition by
# SIGKILL, every fourth time the node that leads the metadata; then N times (5) cuts a leader's node off from the other nodes, silently. What is told is the time
# from the fault until the first record of a partition that the victim led is acknowledged again, as the client sees it.
# The last line is
#   rounds=20 acked=.. lost=.. crash_ms_median=.. crash_ms_max=.. cut_ms_median=..
# Exit codes: 0 done, 1 something acknowledged is lost or a round failed, 2 wrong usage, 3 cannot be had on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

rounds=20 cuts=5 binary="" dir="" flags=()
takes="rounds cuts binary dir"
# shellcheck source=scripts/cluster/lib/arguments.sh
. "$here/lib/arguments.sh"
read_arguments "$@"
[[ "$rounds" =~ ^[0-9]{1,4}$ && "$cuts" =~ ^[0-9]{1,4}$ ]] || wrong_usage "--rounds and --cuts are numbers"

[ -n "$dir" ] || dir=$(mktemp -d --tmpdir tramline-failover-XXXXXXXX)
fail() { printf 'failover.sh: %s\n' "$*" >&2; exit 1; }
# shellcheck source=scripts/cluster/lib/watch.sh
. "$here/lib/watch.sh"

up=(up --nodes 3)
[ -z "$binary" ] || up+=(--binary "$binary")
cluster "${up[@]}" -- --shards 2 --set memory.bytes=256MiB "${flags[@]}" || exit $?
work=$(mktemp -d --tmpdir tramline-witness-XXXXXXXX)
finish() {
    [ -z "${witness:-}" ] || kill "$witness" 2>/dev/null || true
    cluster down || true
    rm -rf "$work"
}
trap finish EXIT
whole
ctl topic create t --partitions 6 --replicas 3
eventually even t

# Not by way of `cluster`: it becomes the witness, which is told to end.
"$here/cluster.sh" --dir "$dir" exec client "$(beside tramline-witness)" --server "$servers" --topic t --acks "$work/acks" </dev/null >"$work/result" 2>"$work/trouble" &
witness=$!
acks_flow() { [ -s "$work/acks" ] && [ "$(tail -n 1 "$work/acks" | cut -d' ' -f1)" -gt "$(($(now_us) - 200000))" ]; }
eventually acks_flow

# Milliseconds from the moment `$1` until the first acknowledgement of one of the partitions `$3` that comes 10 ms or more behind `$2`, when the fault was
# there for certain: what was under way then had its answer by that time. Nothing as long as there is none.
outage_ms() {
    awk -v since="$1" -v there="$2" -v parts=" $3 " \
        '$1 > there + 10000 && index(parts, " " $2 " ") { printf "%.0f\n", ($1 - since) / 1000; exit }' "$work/acks"
}
has_outage_ended() { [ -n "$(outage_ms "$@")" ]; }

crash() { kill -KILL "$(cut -d' ' -f1 "$dir/$1/pid")"; }
cut_off() { cluster isolate "$1"; }

# A round: fault, time until it is over, and its end. `$1` is the node, `$2` what is done, `$3` what undoes it.
round() {
    local victim="$1" parts since there took
    parts=$(leaders t | awk -v n="$victim" '$2 == n { printf "%s ", $1 }')
    [ -n "$parts" ] || fail "node $victim leads nothing"
    since=$(now_us)
    "$2" "$victim"
    there=$(now_us)
    eventually has_outage_ended "$since" "$there" "${parts% }"
    took=$(outage_ms "$since" "$there" "${parts% }")
    # shellcheck disable=SC2086 # a verb and its arguments
    cluster $3
    eventually three_active
    eventually even t
    eventually acks_flow
    say "$took"
}

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)]; else print "-" }'; }
highest() { sort -n | tail -n 1 | grep . || say -; }

touch "$work"/{crash,crash0,cut}
for ((i = 1; i <= rounds; i++)); do
    victim=$(leader_of t $((i % 6))) kind=crash
    if ((i % 4 == 0)); then victim=$(leader_of_metadata) kind=crash0; fi
    took=$(round "$victim" crash "start $victim")
    say "$took" >>"$work/$kind"
    say "crash $i/$rounds: node $victim$([ "$kind" = crash ] || printf ', which led the metadata'): $took ms"
done
for ((i = 1; i <= cuts; i++)); do
    victim=$(leader_of t $((i % 6)))
    took=$(round "$victim" cut_off heal)
    say "$took" >>"$work/cut"
    say "cut $i/$cuts: node $victim: $took ms"
done

kill -TERM "$witness"
wait "$witness" && ok=yes || ok=no
witness=""
[ -s "$work/result" ] || fail "the witness says nothing: $(tail -n 5 "$work/trouble")"
result=$(<"$work/result")
say "$result"
field() { sed -n "s/.*\b$1=\([0-9]*\).*/\1/p" <<<"$result"; }
say "crash of the metadata's leader: ms_median=$(median <"$work/crash0") ms_max=$(highest <"$work/crash0")"
cat "$work/crash" "$work/crash0" >"$work/crashes"
say "rounds=$rounds acked=$(field acked) lost=$(field lost) crash_ms_median=$(median <"$work/crashes") crash_ms_max=$(highest <"$work/crashes") cut_ms_median=$(median <"$work/cut")"
[ "$ok" = yes ]
