#!/usr/bin/env bash
# Counts the instructions of the core per record, under valgrind: produce (durable) and fetch, one partition, batches of 64 records of 1 KiB, a request each; with one
# request a turn of the shard (nobody else wants anything) and with eight (a shard at work: what a turn costs is shared).
# Checksums, copies and fills are told apart: they go by bytes. Some half a minute behind the build; not part of scripts/test.sh.
#
#   scripts/instructions.sh [FUNCTIONS]     and so many functions of each, those that take most (0 to 100; none without it)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

functions=0
case "${1:-}" in
    "") ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *[!0-9]* | ????*) fail "'$1' is no number of functions from 0 to 100 (see --help)" ;;
    *) functions=$1 ;;
esac
((10#$functions <= 100)) || fail "'$functions' is no number of functions from 0 to 100 (see --help)"
need_build_tools
need_commands valgrind:valgrind

batches=256
cargo build --release --package tramline-micro
program="$(target_dir)/release/tramline-micro"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for script in "produce 1" "fetch 1" "produce 8" "fetch 8"; do
    counted=${script% *} per_turn=${script#* }
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted_step*' --callgrind-out-file="$out/$counted" \
        "$program" steps --counted "$counted" --batches "$batches" --per-turn "$per_turn" >/dev/null 2>"$out/log" || { cat "$out/log"; fail "callgrind failed"; }
    callgrind_annotate --threshold=100 --auto=no "$out/$counted" | awk -v counted="$counted" -v per_turn="$per_turn" -v records=$((batches * 64)) -v functions="$functions" '
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
            printf "%s per_turn=%d core=%.1f checksums=%.1f copies=%.1f fills=%.1f (instructions per record)\n", counted, per_turn, sum["core"] / records,
                sum["checksums"] / records, sum["copies"] / records, sum["fills"] / records
            for (shown = 0; shown < functions; shown++) {
                best = ""
                for (name in of) if (best == "" || of[name] > of[best]) best = name
                if (best == "") break
                printf "  %8.2f  %s\n", of[best] / records, best
                delete of[best]
            }
        }'
done
