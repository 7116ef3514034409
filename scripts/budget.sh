#!/usr/bin/env bash
# Where a shard's time goes, in nanoseconds per record: a node with one shard on one core, the load generator on another one, and perf's samples of the shard's thread,
# put to stages by what they were taken in. docs/PERFORMANCE.md has a run of it.
#
#   scripts/budget.sh [--dir DIR] [--seconds N] [--cpus BROKER,CLIENT]
#   --dir DIR       data directory of the node, on the disk to be measured; removed afterwards [default: budget-data in the build directory]
#   --seconds N     of samples for each load, 1 to 60 [default: 4]
#   --cpus A,B      the shard's core and the generator's [default: 0,1]
#
# Needs root (or kernel.perf_event_paranoid at most 1) and perf (Debian: linux-perf). Without hardware counters perf samples by the clock, which is enough.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

seconds=4 cpus=0,1 dir="$(target_dir)/budget-data"
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --dir | --seconds | --cpus) [ $# -ge 2 ] || fail "$1 takes a value (see --help)"; declare "${1#--}=$2"; shift 2 ;;
        *) fail "unknown argument '$1' (see --help)" ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]?$ ]] && ((seconds <= 60)) || fail "--seconds takes 1 to 60, not '$seconds'"
[[ $cpus =~ ^[0-9]+,[0-9]+$ ]] || fail "--cpus takes two cores, as 0,1, not '$cpus'"
[ ! -e "$dir" ] || fail "$dir is there already: remove it, or name another one with --dir"

need_build_tools
need_commands perf:linux-perf
cargo build --quiet --release --package tramline --package tramline-loadgen
bin="$(target_dir)/release"

mkdir -p "$dir"
out=$(mktemp -d)
broker=''
clean() {
    [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir" "$out"
}
trap clean EXIT
trap 'exit 130' INT TERM

# Each of 400 producers is remembered in each of 100 partitions.
TRAMLINE_PRODUCERS_MAX=200000 "$bin/tramline" serve --data-dir "$dir" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --shards 1 --cpus "${cpus%,*}" --spin always >"$out/broker" 2>&1 &
broker=$!
for _ in $(seq 100); do grep -q '^ready ' "$out/broker" && break; sleep 0.1; done
address=$(sed -n 's/^ready .*client=\([^ ]*\).*/\1/p' "$out/broker")
[ -n "$address" ] || { cat "$out/broker" >&2; fail "the node did not become ready"; }
# Of the threads with its name the one that spins.
sleep 1
thread=$(for task in "/proc/$broker/task/"*; do printf '%s %s\n' "$(cat "$task/comm")" "$(awk '{ print $14 + $15, $1 }' "$task/stat")"; done |
    awk '$1 ~ /^shard-0/ && $2 > most { most = $2; thread = $3 } END { print thread }')
[ -n "$thread" ] || fail "the node has no thread of shard 0"

# load NAME WORDS...: samples while the generator runs with these arguments.
load() {
    local name=$1 rate
    shift
    "$bin/tramline-loadgen" produce --server "$address" --topic "$name" --closed --size 1024 --warmup 2s --duration "$((seconds + 2))s" --quiet \
        --cpu "${cpus#*,}" --json "$out/$name.json" "$@" >"$out/$name.log" 2>&1 &
    local generator=$!
    sleep 3
    perf record --quiet -e cpu-clock -F 1999 -g --tid "$thread" --output "$out/$name.perf" sleep "$seconds" >"$out/perf.log" 2>&1 || { cat "$out/perf.log" >&2; fail "perf record failed"; }
    wait "$generator" || { tail -n 3 "$out/$name.log" >&2; fail "the generator failed"; }
    rate=$(sed -n 's/.*"records_per_s": *\([0-9.]*\).*/\1/p' "$out/$name.json" | head -n 1)
    [ -n "$rate" ] || fail "the generator's report has no rate"
    perf script --input "$out/$name.perf" --fields ip,sym 2>/dev/null | awk -v name="$name" -v rate="$rate" '
        # Samples have a line per function, the innermost first, and an empty line behind them.
        function stage(leaf, chain) {
            if (chain ~ /(^| )(sched_yield|do_sched_yield|__x64_sys_sched_yield|__sched_yield)( |$)/) return "waiting"
            if (chain ~ / io_recv(msg)? /) return "receive: TCP to memory"
            if (chain ~ / io_send(msg|_zc)? /) return "reply: memory to TCP"
            if (chain ~ / io_write(_fixed)? | io_issue_sqe .*blk_/) return "write: handing blocks to the disk"
            if (chain ~ / io_read(_fixed)? /) return "read"
            if (chain ~ / (asm_)?(common_interrupt|sysvec_[a-z_]*) | __do_softirq | handle_softirqs /) return "interrupts"
            if (chain ~ /entry_SYSCALL_64|do_syscall_64|io_uring_enter/) return "io_uring: entering, completions"
            if (leaf ~ /crc32c/) return "checksums"
            if (leaf ~ /mem(cpy|move|set)/) return "copies: into the open block"
            if (leaf ~ /try_recv|clock_gettime|Instant|Timespec|shard_loop|maybe_sweep|glommio|Ring::(reap|drain)|Queue::take|sched_yield|fill_metrics/) return "waiting"
            if (leaf ~ /batch::|validate|check_batch/) return "look at the batch"
            if (leaf ~ /ring::/) return "ring: queues of ours"
            if (leaf ~ /log::|block_writer/) return "log: block, segment"
            if (leaf ~ /replication|raft/) return "replication: commit"
            if (leaf ~ /tramline|hdrhistogram|hashbrown|alloc|core::/) return "request, partition, acknowledgement"
            return "other"
        }
        NF == 0 { if (leaf != "") { all++; of[stage(leaf, chain " ")]++ } leaf = chain = ""; next }
        { sym = $0; sub(/^ *[0-9a-f]+ */, "", sym); if (leaf == "") leaf = sym; chain = chain " " sym }
        END {
            if (leaf != "") { all++; of[stage(leaf, chain " ")]++ }
            if (!all) { print "no samples" > "/dev/stderr"; exit 1 }
            ns = 1e9 / rate
            busy = all - of["waiting"]
            printf "\n%s: %d records/s; a record each %.0f ns, of which the shard works %.0f ns (%d samples)\n", name, rate, ns, ns * busy / all, all
            while (1) {
                best = ""
                for (s in of) if (s != "waiting" && (best == "" || of[s] > of[best])) best = s
                if (best == "") break
                printf "%10.1f ns  %5.1f %%  %s\n", ns * of[best] / all, 100 * of[best] / busy, best
                delete of[best]
            }
        }'
}

load batches --level durable --partitions 1
load single --level leader --partitions 1 --outstanding 1 --busy-poll
load single-durable --level durable --partitions 1 --outstanding 1 --busy-poll
load many --level durable --partitions 100 --keys 100000 --producers 400 --outstanding 1
