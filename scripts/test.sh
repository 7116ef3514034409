#!/usr/bin/env bash
# The whole gate: format check, lints, build, all tests, some seeds of the simulator. Honours CARGO_TARGET_DIR. Exit code 0 only if everything passed.
#
#   scripts/test.sh
#
# TRAMLINE_FLIGHTS_CSV=FILE (plain or .gz) lets the read-back test use the real flights table instead of generated data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

case "${1:-}" in
    "") ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument '$1' (it takes none; see --help)" ;;
esac

started=$SECONDS
step() { say "$* ($((SECONDS - started)) s since the start)"; }

step "tools"
need_build_tools
need_component rustfmt fmt rustfmt
need_component clippy clippy rust-clippy
rustc --version

# For one test of a full disk; where it cannot be had, the test says aloud that it did not run.
command -v mkfs.xfs >/dev/null || (need_commands mkfs.xfs:xfsprogs) || say "mkfs.xfs is missing: a full disk of XFS will not be tried"

# For the tests of clusters, which need root; elsewhere they say aloud that they did not run.
command -v nft >/dev/null || (need_commands nft:nftables) || say "nft is missing: faults of a cluster's network will not be tried"

# For the instructions of the core, counted beside the tests where nothing is compiled incrementally.
[ "${CARGO_INCREMENTAL:-1}" != 0 ] || need_commands valgrind:valgrind

# For the test of the Python client of docs/; without it, the test says aloud that it did not run.
command -v python3 >/dev/null || (need_commands python3:python3) || say "python3 is missing: the Python client will not be tried"

# For the tests of the C interface; without it, they say aloud that they did not run.
command -v pkg-config >/dev/null || (need_commands pkg-config:pkg-config) || say "pkg-config is missing: the C interface will not be tried"

step "format check"
cargo fmt --all --check || fail "the format differs. Run:  cargo fmt --all"
cargo fmt --manifest-path bench/peers/Cargo.toml --check || fail "the format differs. Run:  cargo fmt --manifest-path bench/peers/Cargo.toml"

# One choice of packages and features for everything, or cargo compiles the client and all that uses it once per choice: the client's runtime is in it, which no
# member of the workspace turns on. The simulator is not: it is the core once more, without tests of its own, and is built where it runs, below.
all=(--workspace --exclude tramline-sim --features tramline-client/tokio)

step "lints"
cargo clippy "${all[@]}" --all-targets -- -D warnings
cargo clippy --package tramline-sim -- -D warnings
# The client as most have it: without a runtime. (tests/capi.rs runs it.)
cargo clippy --package tramline-client -- -D warnings

step "fuzz targets"
# Workspaces of their own, which nothing else builds: a change of the core must not leave them behind. Into the same directory and with the same level: what they
# have in common with the rest is there already.
need_commands c++:g++
for fuzz in wire/fuzz fuzz; do
    CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo check --manifest-path "$fuzz/Cargo.toml" --target-dir "$(target_dir)"
done

step "build"
cargo build "${all[@]}" --bins --examples

step "tests"
log=$(mktemp)
sim_log=$(mktemp)
trap 'rm -f "$log" "$sim_log" "${count_log:-}"' EXIT
# Beside the tests, of which many wait: a directory of its own within the target directory, and only what the tests leave over.
simulate() {
    local sim run units="${CARGO_PROFILE_SIM_CODEGEN_UNITS:-16}"
    # The crates on a record's path are compiled in one piece for a release (Cargo.toml), which here would only take longer.
    CARGO_PROFILE_SIM_CODEGEN_UNITS="$units" cargo build --profile sim --package tramline-sim \
        --config "profile.sim.package.tramline.codegen-units=$units" --config "profile.sim.package.tramline-wire.codegen-units=$units" || return
    sim="$(target_dir)/sim/tramline-sim"
    for run in "calm 0..12" "faults 0..60" "disk 0..16" "swarm 0..16" "cluster 0..20"; do
        printf '%s\n' "-- $run"
        "$sim" --profile "${run% *}" --seeds "${run#* }" || return
    done
    printf '%s\n' "-- latency"
    "$sim" --latency 3 || return
    printf '%s\n' "-- bugs on purpose"
    "$sim" --check-mutants 300
}
export -f simulate target_dir
nice -n 19 bash -euo pipefail -c simulate >"$sim_log" 2>&1 &
simulator=$!
# Counts, which nothing beside it changes.
count_log=$(mktemp)
if [ "${CARGO_INCREMENTAL:-1}" = 0 ]; then
    nice -n 19 scripts/instructions.sh --check "$(target_dir)/debug/tramline-micro" >"$count_log" 2>&1 &
else
    echo "NOT RUN: instructions per record: they are compared where nothing is compiled incrementally (.ci/run)" >"$count_log" &
fi
counter=$!
# No --quiet: the name of a test that hangs has to be on the screen.
if ! TRAMLINE_TESTS_BUILT=1 cargo test "${all[@]}" --no-fail-fast 2>&1 | tee "$log"; then
    printf '\nFAILED:\n'
    grep -E '^test .* \.\.\. FAILED' "$log" || true
    fail "some tests failed or did not build ($((SECONDS - started)) s)."
fi

step "instructions per record"
counted=0
wait "$counter" || counted=$?
tee -a "$log" <"$count_log"
[ "$counted" = 0 ] || fail "the core takes more instructions than it did ($((SECONDS - started)) s)."

step "simulation"
wait "$simulator" || { cat "$sim_log"; fail "the simulator found something, or a bug on purpose was not found ($((SECONDS - started)) s)."; }
grep -E '^(--|[a-z]+ [0-9]+\.\.|[0-9]+ of [0-9]+)' "$sim_log"

awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } END { print passed + 0, failed + 0, ignored + 0 }' "$log" | {
    read -r passed failed ignored
    say "$passed tests passed, $failed failed, $ignored ignored, in $((SECONDS - started)) s"
}
grep -h '^NOT RUN:' "$log" | sort -u || true
