#!/usr/bin/env bash
# What many partitions cost a cluster of three nodes: the processor time of each node while nothing happens, and how long after the death of a node all that it led
# is led by the others. Needs root.
#
#   scripts/cluster/many.sh [--partitions N] [--deaths N] [--binary FILE] [--dir DIR] [-- SERVE FLAGS]
#
# Builds three nodes (cluster.sh up, --spin never), and topics with N partitions (10000) of three replicas together. Processor time is taken from /proc over 20
# seconds without a client; then each of N times (3) a node is ended by SIGKILL, and the metadata of all topics are asked until no partition is led by it any more.
# What that asking takes counts, so the time is an upper bound.
# The last line is
#   partitions=10000 idle_percent_max=.. moved_ms_median=.. moved_ms_max=..
# where idle_percent_max is of one core, of the node that took most. Exit codes: 0 done, 1 something did not come about, 2 wrong usage, 3 cannot be had on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

partitions=10000 deaths=3 binary="" dir="" flags=()
takes="partitions deaths binary dir"
# shellcheck source=scripts/cluster/lib/arguments.sh
. "$here/lib/arguments.sh"
read_arguments "$@"
[[ "$partitions" =~ ^[1-9][0-9]{0,5}$ && "$deaths" =~ ^[0-9]{1,3}$ ]] || wrong_usage "--partitions and --deaths are numbers"

[ -n "$dir" ] || dir=$(mktemp -d --tmpdir tramline-many-XXXXXXXX)
fail() { printf "many.sh: %s\n" "$*" >&2; return 1; }
# shellcheck source=scripts/cluster/lib/watch.sh
. "$here/lib/watch.sh"

up=(up --nodes 3)
[ -z "$binary" ] || up+=(--binary "$binary")
cluster "${up[@]}" -- --shards 2 --spin never --set memory.bytes=256MiB "${flags[@]}" || exit $?
trap 'cluster down || true' EXIT
whole

topics=()
for ((left = partitions; left > 0; left -= 1000)); do
    topics+=("t${#topics[@]}")
    ctl topic create "${topics[-1]}" --partitions "$((left < 1000 ? left : 1000))" --replicas 3 >/dev/null
    say "topic ${topics[-1]}"
done
# Partitions led by the node `$1`, or that nobody is known to lead.
led_by() { ctl metadata "${topics[@]}" 2>/dev/null | awk -v n="$1" -v all="$partitions" '$1 ~ /^t[0-9]+$/ { rows++ } $1 ~ /^t[0-9]+$/ && ($3 == n || $6 == 0) { c++ } END { print c + all - rows }'; }
shares() { ctl metadata "${topics[@]}" 2>/dev/null | awk '$1 ~ /^t[0-9]+$/ && $6 > 0 { n[$3]++ } END { print n[1] + 0, n[2] + 0, n[3] + 0 }'; }
all_led() { [ "$(led_by 0)" = 0 ]; }
is_led_by_others() { [ "$(led_by "$1")" = 0 ]; }
eventually all_led
say "partitions led by each node: $(shares)"

ticks() { awk '{ print $14 + $15 }' "/proc/$(cut -d' ' -f1 "$dir/$1/pid")/stat"; }
IDLE_S=20
sleep 5
before=("$(ticks 1)" "$(ticks 2)" "$(ticks 3)")
sleep "$IDLE_S"
idle_max=$(for n in 1 2 3; do say "$(($(ticks "$n") - before[n - 1]))"; done | sort -n | tail -n 1 | awk -v hz="$(getconf CLK_TCK)" -v s="$IDLE_S" '{ printf "%.2f", $1 * 100 / hz / s }')
say "idle: at most $idle_max % of a core per node"

# What is looked at when something does not come about.
stuck() {
    local kept number
    kept=$(mktemp -d --tmpdir tramline-many-logs-XXXXXXXX)
    for number in 1 2 3; do cp "$dir/$number/log" "$kept/node-$number.log"; done
    say "led by node $1 or by nobody: $(led_by "$1") partitions; by each: $(shares); logs are in $kept"
    ctl cluster nodes || true
    ctl cluster groups || true
    exit 1
}

took=$(mktemp)
for ((i = 0; i < deaths; i++)); do
    node=$((i % 3 + 1))
    ask_all_but "$node"
    since=$(now_us)
    kill -KILL "$(cut -d' ' -f1 "$dir/$node/pid")"
    eventually is_led_by_others "$node" || stuck "$node"
    ms=$((($(now_us) - since) / 1000))
    say "$ms" >>"$took"
    say "death of node $node: all is led by others after $ms ms: $(shares)"
    cluster start "$node"
    ask_all
    eventually three_active
    eventually all_led
done
median=$(sort -n "$took" | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)]; else print "-" }')
highest=$(sort -n "$took" | tail -n 1 | grep . || say -)
rm -f "$took"
say "partitions=$partitions idle_percent_max=$idle_max moved_ms_median=$median moved_ms_max=$highest"
