#!/usr/bin/env bash
# Builds the broker in release mode and measures it against the limits of this machine, in interleaved pairs.
# Writes bench/results/latest.json and prints which targets are reached. Takes twelve to twenty-five minutes (it says how long at its
# start), and needs two cores and some 40 GiB of free space (which are given back) on the disk to be measured.
#
# usage: scripts/bench.sh [--dir DIR] [--only NAMES] [further arguments of tramline-bench, see --help]
#   --only NAMES       only these measures, with commas between them, e.g. --only memory_idle_mib,startup_10000_1gib_s
#   --dir DIR          work directory, on a local disk that allows O_DIRECT [default: bench-data in the build directory]
#   CARGO_TARGET_DIR   build directory, as for cargo
#
# exit code: 0 everything was measured (reached or not), else something could not be measured.
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in *" --help "* | *" -h "*) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
command -v cargo >/dev/null || { echo "bench.sh: cargo is missing: install Rust (https://rustup.rs), or run scripts/quickstart.sh, which says how" >&2; exit 1; }

target=${CARGO_TARGET_DIR:-target}
dir=$target/bench-data
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=${2:?--dir takes a directory}; shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done

cargo build --release --package tramline --package tramline-limits --package tramline-loadgen --package tramline-micro --package tramline-bench

mkdir -p "$dir"
# Whatever way this ends, no broker stays (it may be halted at that moment, so only KILL reaches it) and no gigabytes either.
clean() {
    local pid file
    for file in broker.pid own.pid node-{1,2,3}.pid; do
        if pid=$(cat "$dir/$file" 2>/dev/null) && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$(readlink -f "$target/release/tramline")" ]; then
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    rm -rf "$dir/data" "$dir/limits" "$dir/own" "$dir/broker.pid" "$dir/own.pid" "$dir"/node-{1,2,3}.pid
    rmdir "$dir" 2>/dev/null || true
}
trap clean EXIT
trap 'exit 130' INT TERM

"$target/release/tramline-bench" --dir "$dir" --out bench/results/latest.json ${arguments[@]+"${arguments[@]}"}
