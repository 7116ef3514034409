#!/usr/bin/env bash
# Runs the tests of the rooms that have `unsafe` (buffers, ring) under valgrind. Some seconds behind the build; not part of scripts/test.sh.
#
#   scripts/memcheck.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/setup.sh

case "${1:-}" in
    "") ;;
    -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument '$1' (it takes none; see --help)" ;;
esac
need_build_tools
need_commands valgrind:valgrind

# The path of the library's test binary, from cargo's own report.
binary=$(cargo test --lib --no-run --message-format=json 2>/dev/null | grep -o '"executable":"[^"]*/tramline-[^"]*"' | head -n 1 | cut -d'"' -f4)
[ -x "$binary" ] || fail "the test binary could not be built. Run:  cargo test --lib --no-run"
exec valgrind --quiet --error-exitcode=9 --fair-sched=yes "$binary" --test-threads=1 bytes:: ring::tests::files ring::tests::sockets
