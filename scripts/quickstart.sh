#!/usr/bin/env bash
# From a fresh clone to a running node: builds in release mode, starts one node on ./data, creates a topic, drives it with
# the load generator for ten seconds, prints latency percentiles and throughput, and leaves the node running until Ctrl-C.
#
#   scripts/quickstart.sh [--exit] [--data-dir DIR] [--listen 127.0.0.1:7410] [--admin 127.0.0.1:7401] [--rate N]
#
#   --exit       end the node after the run instead of leaving it
#   --data-dir   where the node keeps its data (default ./data); a second run goes on with what is there
#   --listen     address for clients (default 127.0.0.1:7410; the shards' own ports follow it)
#   --admin      address for /metrics, /livez and /readyz (default 127.0.0.1:7401)
#   --rate       records per second of the load (default 10000 of 1,000 bytes)
#
# Honours CARGO_TARGET_DIR. Ends only the node it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

exit_after=no
data_dir=./data
listen=127.0.0.1:7410
admin=127.0.0.1:7401
rate=10000
while [ $# -gt 0 ]; do
    case "$1" in
        --exit) exit_after=yes ;;
        --data-dir | --listen | --admin | --rate)
            [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
            case "$1" in
                --data-dir) data_dir="$2" ;;
                --listen) listen="$2" ;;
                --admin) admin="$2" ;;
                --rate) rate="$2" ;;
            esac
            shift
            ;;
        -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument '$1' (see --help)" ;;
    esac
    shift
done
for address in "$listen" "$admin"; do
    [[ "$address" =~ ^[^:[:space:]]+:[0-9]+$ ]] || fail "'$address' is not HOST:PORT"
done

# Whether something accepts connections there. Looked at before the build, so that nobody waits minutes for a refusal.
in_use() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }
check_port() {
    in_use "$1" || return 0
    fail "$1 is in use ($2): another node or program listens there. End it, or choose other ports, for example:
    scripts/quickstart.sh --data-dir ./data2 --listen 127.0.0.1:7510 --admin 127.0.0.1:7501"
}
check_port "$listen" "the port for clients"
check_port "${listen%:*}:$((${listen##*:} + 1))" "the port of the first shard"
check_port "$admin" "the port for metrics"

need_build_tools
say "building in release mode (minutes the first time, seconds later)"
cargo build --release --workspace --bins
# What the build left in the page cache would be written out during the ten seconds: p99 5.6 ms with it, 1.5 ms without.
sync
bin="$(target_dir)/release"

work=$(mktemp -d)
log="$(target_dir)/quickstart-node.log"
node_pid=
finish() {
    trap - EXIT INT TERM HUP
    if [ -n "$node_pid" ] && kill -0 "$node_pid" 2>/dev/null; then
        say "stopping the node (its data stays in $data_dir)"
        kill -TERM "$node_pid" 2>/dev/null || true
        wait "$node_pid" || printf 'the node ended with exit code %s; its log is %s\n' "$?" "$log" >&2
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

say "starting one node on $data_dir"
mkfifo "$work/out"
# A session of its own: Ctrl-C reaches this script alone, which then ends the node in order.
setsid "$bin/tramline" serve --data-dir "$data_dir" --listen "$listen" --admin "$admin" >"$work/out" 2>"$log" &
node_pid=$!
exec 4<"$work/out"
ready=
if ! IFS= read -r -t 60 ready <&4; then
    if ! kill -0 "$node_pid" 2>/dev/null; then
        code=0
        wait "$node_pid" || code=$?
        node_pid=
        sed 's/^/    /' "$log" >&2
        fail "the node did not start (exit code $code): the reason stands above."
    fi
    fail "the node printed nothing within 60 s; its log is $log"
fi
printf '%s\n(its log is %s)\n' "$ready" "$log"

say "creating the topic 'quickstart' with 8 partitions"
"$bin/tramctl" --server "$listen" topic create quickstart --partitions 8 --if-not-exists

say "ten seconds of load: $rate records a second of 1,000 bytes, written (level durable) and read at once, every record checked"
code=0
"$bin/tramline-loadgen" both --server "$listen" --topic quickstart --partitions 8 --rate "$rate" --duration 10s --warmup 1s || code=$?
case "$code" in
    0) ;;
    3) printf 'This machine did not keep up with %s records a second: the latencies above are those of an overloaded system. Try --rate %s.\n' "$rate" "$((rate / 4))" ;;
    *) fail "the load generator ended with exit code $code: see its message above; the node's log is $log" ;;
esac

if [ "$exit_after" = yes ]; then exit 0; fi

say "the node runs until Ctrl-C. Commands to try in another terminal:"
shown="$bin"
case "$shown" in "$PWD"/*) shown=".${shown#"$PWD"}" ;; esac
server=
[ "$listen" = 127.0.0.1:7410 ] || server=" --server $listen"
cat <<NEXT
    export PATH="$shown:\$PATH"
    tramctl$server topic create orders --partitions 4
    seq 1 100000 | tramctl$server produce orders
    tramctl$server consume orders --until-end | wc -l
    tramctl$server offsets orders
    tramctl$server topic describe quickstart
    tramline-loadgen produce$server --topic quickstart --closed --duration 10s      (as fast as it goes)
    curl -s http://$admin/metrics | grep ^tramline_ | head
    tramline inspect $data_dir                                       (after Ctrl-C: checks every block on the disk)
NEXT

trap 'exit 0' INT TERM
# `wait` returns early when a signal comes; the trap then ends the node. If the node ends by itself, that is told.
code=0
wait "$node_pid" || code=$?
node_pid=
fail "the node ended by itself with exit code $code; its log is $log"
