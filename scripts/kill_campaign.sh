#!/usr/bin/env bash
# The kill test at length: N rounds (default 200) of: produce with level durable, SIGKILL while writes are in flight,
# restart at once, check that every acknowledged record is there once and in order. Prints one line per round.
#
#   scripts/kill_campaign.sh [N]
#
# The seed is printed first; TRAMLINE_TEST_SEED=.. repeats the same choices (the timing of the machine is not repeated).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

rounds="${1:-200}"
case "$rounds" in
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *[!0-9]* | 0 | "") fail "'$rounds' is not a number of rounds (see --help)" ;;
esac

need_build_tools
say "building (release mode)"
cargo build --release --workspace --bins
cargo test --release --test durability --no-run
say "$rounds rounds"
TRAMLINE_KILL_ROUNDS="$rounds" cargo test --release --test durability -- --exact --nocapture acknowledged_records_survive_sigkill
say "$rounds rounds passed in $SECONDS s"
