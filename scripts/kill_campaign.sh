#!/usr/bin/env bash
# The kill test at length: N rounds (default 200) of: load at level durable, SIGKILL while writes are in flight and segments are sealed, sorted and
# freed, topics created and deleted, partitions trimmed; starts are killed as well; then everything that was acknowledged or read has to be
# there, once and in order. Prints one line per round, and at the end how many kills met what; from 200 rounds on each has to be met.
#
#   scripts/kill_campaign.sh [N]
#
# The seed is printed first; TRAMLINE_TEST_SEED=.. repeats the same choices (the timing of the machine is not repeated).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

rounds="${1:-200}"
case "$rounds" in
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *[!0-9]* | 0 | "") fail "'$rounds' is not a number of rounds (see --help)" ;;
esac

need_build_tools
say "building (release mode)"
cargo test --release --test nodes --no-run
say "$rounds rounds"
TRAMLINE_KILL_ROUNDS="$rounds" cargo test --release --test nodes -- --exact --nocapture durability::acknowledged_records_survive_sigkill
say "$rounds rounds passed in $SECONDS s"
