#!/usr/bin/env bash
# Counts the instructions of the core per record, under valgrind: produce (durable) and fetch, one partition, batches of 64 records of 1 KiB, a request each; with one
# request a turn of the shard (it has what a turn costs to itself), and with 8 and 15 (a shard at work: they share it; 15 fill a block). Background work each millisecond.
# Checksums, copies and fills are told apart: they go by bytes.
#
#   scripts/instructions.sh [FUNCTIONS]        and so many functions of each, those that take most (0 to 100; none without it)
#   scripts/instructions.sh --scaling          with 8 a turn, at 1, 16 and 64 shards; 1, 100 and 1,000 partitions; 1, 100 and 1,000 connections: some twenty minutes
#   scripts/instructions.sh --check PROGRAM    for scripts/test.sh: counts this tramline-micro, a development build made without incremental compilation, and
#                                              compares with bench/instructions.txt; fails where it takes 5 % more. With another rustc it says that it did not run
#   scripts/instructions.sh --write PROGRAM    writes that file anew: for a change that is worth what it costs, or saves
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

functions=0
is_scaling=no
baseline=bench/instructions.txt
compares=''
case "${1:-}" in
    "") ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --scaling) is_scaling=yes ;;
    --check | --write) compares=${1#--}; program=${2:-}; [ -x "$program" ] || fail "$1 takes the program tramline-micro, not '$program' (see --help)" ;;
    *[!0-9]* | ????*) fail "'$1' is no number of functions from 0 to 100 (see --help)" ;;
    *) functions=$1 ;;
esac
((10#$functions <= 100)) || fail "'$functions' is no number of functions from 0 to 100 (see --help)"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# count SCRIPT BATCHES [FLAGS of the program]: a line of what it takes.
count() {
    local counted=$1 batches=$2 what
    shift 2
    what=$(sed -E 's/ --([a-z-]+) ([0-9]+)/ \1=\2/g; s/-/_/g' <<<"$counted $*")
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted_step*' --callgrind-out-file="$out/counted" \
        "$program" steps --counted "$counted" --batches "$batches" "$@" >/dev/null 2>"$out/log" || { cat "$out/log" >&2; fail "callgrind failed"; }
    callgrind_annotate --threshold=100 --auto=no "$out/counted" | awk -v what="$what" -v records=$((batches * 64)) -v functions="$functions" '
        # A line is "1,234 (56.7%)  file:function [binary]".
        $1 ~ /^[0-9,]+$/ && !/PROGRAM TOTALS/ {
            count = $1; gsub(",", "", count)
            name = $0; sub(/^[^)]*\) *[^:]*:/, "", name); sub(/ \[[^\]]*\]$/, "", name)
            kind = name ~ /crc32c/ ? "checksums" : name ~ /mem(cpy|move)/ ? "copies" : name ~ /memset/ ? "fills" : "core"
            sum[kind] += count
            if (kind == "core") of[name] += count
        }
        END {
            if (!sum["core"]) { print "nothing was counted" > "/dev/stderr"; exit 1 }
            printf "%s core=%.1f checksums=%.1f copies=%.1f fills=%.1f (instructions per record)\n", what, sum["core"] / records,
                sum["checksums"] / records, sum["copies"] / records, sum["fills"] / records
            for (shown = 0; shown < functions; shown++) {
                best = ""
                for (name in of) if (best == "" || of[name] > of[best]) best = name
                if (best == "") break
                printf "  %8.2f  %s\n", of[best] / records, best
                delete of[best]
            }
        }'
}

need_commands valgrind:valgrind
if [ -n "$compares" ]; then
    # A development build is not optimized as a released one, but what takes more there takes more here; another rustc changes the counts of both.
    version=$(rustc --version)
    seen=$(for counted in produce fetch; do count "$counted" 120 --per-turn 15 | sed -E 's/^([a-z]+) .* core=([0-9.]+) .*/\1 \2/'; done)
    if [ "$compares" = write ]; then
        {
            printf '# Instructions of the core per record, 15 requests a turn, of a development build (CARGO_INCREMENTAL=0); written by scripts/instructions.sh --write.\n'
            printf 'rustc %s\n%s\n' "${version#rustc }" "$seen"
        } >"$baseline"
        cat "$baseline"
        exit 0
    fi
    if [ "$(sed -n 's/^rustc //p' "$baseline")" != "${version#rustc }" ]; then
        printf 'NOT RUN: instructions per record: %s is of another rustc than %s\n' "$baseline" "$version"
        exit 0
    fi
    while read -r counted now; do
        before=$(sed -n "s/^$counted //p" "$baseline")
        printf '%s: %s instructions per record in a development build, %s in %s\n' "$counted" "$now" "$before" "$baseline"
        awk -v now="$now" -v before="$before" 'BEGIN { exit !(now <= before * 1.05) }' ||
            fail "$counted takes more than 5 % more instructions per record than before: scripts/instructions.sh 40 tells where; if it is worth that, --write the file anew, and say so in the commit"
    done <<<"$seen"
    exit 0
fi
need_build_tools
cargo build --release --package tramline-micro
program="$(target_dir)/release/tramline-micro"
if [ "$is_scaling" = yes ]; then
    for counted in produce fetch; do
        # Eight partitions on each, so that a turn has eight requests everywhere.
        for shards in 1 16 64; do count "$counted" 512 --per-turn 8 --shards "$shards" --partitions $((8 * shards)); done
        for partitions in 1 100 1000; do count "$counted" 1000 --per-turn 8 --partitions "$partitions"; done
        for connections in 1 100 1000; do count "$counted" 1000 --per-turn 8 --connections "$connections"; done
    done
    exit 0
fi
for per_turn in 1 8 15; do
    for counted in produce fetch; do count "$counted" $((240 / per_turn * per_turn)) --per-turn "$per_turn"; done
done
