#!/usr/bin/env bash
# Fuzzes what reads bytes from the network (wire/fuzz) and from the disk (fuzz/). Needs Rust's nightly toolchain and cargo-fuzz, and
# installs both where they are missing.
#
#   scripts/fuzz.sh [MINUTES] [TARGET...]      default: 1 minute each of all targets
#
# MINUTES are of processor time, each target, so that a busy machine does not make them fewer. One target after the other; run the script
# twice with other targets to use two processors. Inputs that reach something new are kept in DIR/corpus/TARGET (not in the repository) and
# begun with the next time.
#
# Targets: frame batch metas node (the protocols), recovery manifest footers control (the disk).
# Exit code 0: nothing found; 1: something was found (the path of the input is the last line); 2: usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

PIECE_SECONDS=60   # of wall clock: after each, one line of progress
PIECES_PER_MINUTE=20 # bound of the wall clock where the processor goes to others: 20 minutes for one
INPUT_SECONDS="${INPUT_SECONDS:-20}" # one input may take that long, by the clock on the wall: a loop otherwise
MALLOC_MB=64       # one allocation may be that large: all inputs are far below, so more is a declared length that was believed
WIRE="frame batch metas node"
DISK="recovery manifest footers control"

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; }
wrong() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; usage >&2; exit 2; }

minutes=1
case "${1:-}" in
    -h | --help) usage; exit 0 ;;
    [0-9]*) case "$1" in *[!0-9]* | 0) wrong "'$1' is not a number of minutes" ;; esac; minutes="$1"; shift ;;
esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || read -ra targets <<<"$WIRE $DISK"
for target in "${targets[@]}"; do
    case " $WIRE $DISK " in *" $target "*) ;; *) wrong "'$target' is not a target" ;; esac
done

# The sanitizer finds misuse of memory. The disk's targets do without: see fuzz/src/allocator.rs.
sanitizer_of() { case " $WIRE " in *" $1 "*) echo address ;; *) echo none ;; esac; }
dir_of() { case " $WIRE " in *" $1 "*) echo wire/fuzz ;; *) echo fuzz ;; esac; }

need_build_tools
need_commands c++:g++ # libFuzzer itself is C++
need_fuzzer

log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# One piece; sets `ended`, `processor_ms` and `units`.
run_piece() {
    local dir="$1" target="$2" TIMEFORMAT='%U %S' spent
    ended=0
    spent=$( { time cargo +nightly fuzz run -s "$(sanitizer_of "$target")" --fuzz-dir "$dir" "$target" "$dir/corpus/$target" "$dir/seeds/$target" -- \
        -max_total_time="$PIECE_SECONDS" -timeout="$INPUT_SECONDS" -malloc_limit_mb="$MALLOC_MB" -rss_limit_mb=4096 -print_final_stats=1 \
        >"$log" 2>&1; } 2>&1 ) || ended=1
    processor_ms=$(awk '{printf "%d", ($1 + $2) * 1000}' <<<"$spent")
    units=$(awk '/^stat::number_of_executed_units/ {print $2}' "$log")
    units=${units:-0}
}

fuzz() {
    local target="$1" dir; dir="$(dir_of "$target")"
    say "$target: building"
    cargo +nightly fuzz build -s "$(sanitizer_of "$target")" --fuzz-dir "$dir" "$target"
    mkdir -p "$dir/corpus/$target"
    say "$target: $minutes minute(s) of processor time"
    local total_ms=0 total_units=0 pieces=0
    while [ "$total_ms" -lt $((minutes * 60000)) ] && [ "$pieces" -lt $((minutes * PIECES_PER_MINUTE)) ]; do
        run_piece "$dir" "$target"
        total_ms=$((total_ms + processor_ms)); total_units=$((total_units + units)); pieces=$((pieces + 1))
        printf '%s: %d.%d of %d minutes, %d inputs, %s\n' "$target" $((total_ms / 60000)) $((total_ms % 60000 / 6000)) "$minutes" \
            "$total_units" "$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -n 1)"
        if [ "$ended" -ne 0 ]; then
            tail -n 60 "$log"
            local input; input="$(grep -oE 'Test unit written to .*' "$log" | tail -n 1 | sed 's/Test unit written to //')" || true
            [ -n "$input" ] || fail "$target ended without an input: its output is above"
            printf '\n%s: something was found; once more with:  cargo +nightly fuzz run -s %s --fuzz-dir %s %s INPUT\n%s\n' "$target" "$(sanitizer_of "$target")" "$dir" "$target" "$input"
            exit 1
        fi
    done
    [ "$total_ms" -ge $((minutes * 60000)) ] || fail "$target got $((total_ms / 1000)) s of processor time in $pieces minutes: the machine is too busy"
}

for target in "${targets[@]}"; do fuzz "$target"; done
say "nothing found: $minutes minute(s) of processor time each of ${targets[*]}"
