#!/usr/bin/env bash
# The whole gate: format check, lints, build, all tests. Honours CARGO_TARGET_DIR. Exit code 0 only if everything passed.
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

step "format check"
cargo fmt --all --check || fail "the format differs. Run:  cargo fmt --all"

step "lints"
cargo clippy --workspace --all-targets -- -D warnings

step "build"
cargo build --workspace

step "tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# No --quiet: the name of a test that hangs has to be on the screen.
if ! cargo test --workspace --no-fail-fast 2>&1 | tee "$log"; then
    printf '\nFAILED:\n'
    grep -E '^test .* \.\.\. FAILED' "$log" || true
    fail "some tests failed or did not build ($((SECONDS - started)) s)."
fi

awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } END { print passed + 0, failed + 0, ignored + 0 }' "$log" | {
    read -r passed failed ignored
    say "$passed tests passed, $failed failed, $ignored ignored, in $((SECONDS - started)) s"
}
grep -h '^NOT RUN:' "$log" | sort -u || true
