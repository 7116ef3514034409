#!/usr/bin/env bash
# Measures Tramline side by side with other brokers: installs what is missing, builds, measures, writes one report, leaves nothing running.
# What it runs is bench/peers/src; what it measures is in bench/peers/README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
    cat <<'END'
Usage: bench/peers/run.sh [options]

  --peers LIST       tramline,nats,redis,rabbit-stream,rabbit-quorum,kafka (default: all)
  --classes LIST     synced,memory (default: both)
  --seconds N        measured seconds of each trial (default 3)
  --rounds N         interleaved repetitions; medians are reported (default 3)
  --partitions LIST  numbers of partitions or queues (default 1,100,1000)
  --cells LIST       only these cells (a wrong name is answered with the list)
  --output DIR       where report.md, report.json and the plots go (default bench/peers/results)
  --work-dir DIR     where the brokers' data goes while they run: on the disk to be measured (default: a new folder below the build directory)
  --broker-cpus L    cores of the broker, as 0-2,5 (default: the lower half)
  --client-cpus L    cores of the generator (default: the rest)
  --nats PATH        another nats-server than Debian's, e.g. one of 2.10 or newer, which can sync before it acknowledges
  --minutes-max N    end after so long, with the report of what was measured until then (default 120)
  --no-install       install nothing; a peer that is missing is reported as one that does not start
  --help             this text

As root it installs what is missing (Debian's packages; Apache Kafka's jars from Maven's central repository) and never starts a service of the system.
PEERS_KAFKA_LIBS (folder of jars) and CARGO_TARGET_DIR are taken from the environment. Exit code 0: all was measured; 1: something failed, see the report.
END
}

fail() { printf 'run.sh: %s\n' "$1" >&2; exit 2; }

peers=tramline,nats,redis,rabbit-stream,rabbit-quorum,kafka
output=$here/results work_dir='' broker_cpus='' client_cpus='' nats='' minutes_max=120 install=yes
pass=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --no-install) install=no; shift; continue ;;
    esac
    case $1 in
        --peers | --classes | --seconds | --rounds | --partitions | --cells | --output | --work-dir | --broker-cpus | --client-cpus | --nats | --minutes-max) ;;
        *) fail "there is no option $1: see --help" ;;
    esac
    [ $# -ge 2 ] || fail "$1 needs a value: see --help"
    case $1 in
        --peers) peers=$2 ;;
        --output) output=$2 ;;
        --work-dir) work_dir=$2 ;;
        --broker-cpus) broker_cpus=$2 ;;
        --client-cpus) client_cpus=$2 ;;
        --nats) nats=$2 ;;
        --minutes-max) minutes_max=$2 ;;
        *) pass+=("$1" "$2") ;;
    esac
    shift 2
done
[[ $minutes_max =~ ^[1-9][0-9]{0,3}$ ]] || fail "--minutes-max is '$minutes_max': give whole minutes, 1 to 9999"
wants() { [[ ,$peers, == *,$1,* ]]; }

target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target"
made_work_dir=no
if [ -z "$work_dir" ]; then
    work_dir=$(mktemp -d "$target/peers-work.XXXXXX")
    made_work_dir=yes
else
    mkdir -p "$work_dir"
    work_dir=$(cd "$work_dir" && pwd)
fi
kafka_libs=${PEERS_KAFKA_LIBS:-$target/peers-kafka-libs}

runner=''
policy=''
clean_up() {
    trap - EXIT INT TERM
    # The runner ends its brokers itself, and the kernel ends them with it. What a pid file still names is one that both missed.
    if [ -n "$runner" ] && kill -0 "$runner" 2>/dev/null; then
        kill -TERM "$runner" 2>/dev/null || true
        wait "$runner" 2>/dev/null || true
    fi
    local file pid
    for file in "$work_dir"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(basename "$file" .pid)
        # Only if it is still the process that was started: its working folder is ours.
        if [[ $(readlink "/proc/$pid/cwd" 2>/dev/null) == "$work_dir"/* ]]; then
            kill -KILL "$pid" 2>/dev/null || true
        fi
        rm -f "$file"
    done
    if [ -n "$policy" ]; then rm -f "$policy"; fi
    if [ "$made_work_dir" = yes ]; then rm -rf "$work_dir"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf 'run.sh: %s\n' "$1" >&2; }

# Debian's packages of what is not there yet.
install_missing() {
    local missing=()
    need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
    if wants redis; then need redis-server redis-server; fi
    if wants nats && [ -z "$nats" ]; then need nats-server nats-server; fi
    if wants rabbit-stream || wants rabbit-quorum; then [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server); fi
    if wants kafka; then
        need java default-jre-headless
        need make make
        need g++ g++
        compgen -G "$kafka_libs/kafka_2.13-*.jar" >/dev/null || need mvn maven
    fi
    need strace strace
    need taskset util-linux
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "$(id -u)" = 0 ] || { say "not root, so not installed: ${missing[*]}"; return 0; }
    say "installing ${missing[*]}"
    # Debian starts services when they are installed; this one file keeps it from doing so, and goes away again.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$work_dir/install.log" 2>&1; then
        tail -n 5 "$work_dir/install.log" >&2
        say "some packages could not be installed; their peers will be reported as not started"
    fi
    if [ -n "$policy" ]; then rm -f "$policy"; policy=''; fi
}

fetch_kafka() {
    compgen -G "$kafka_libs/kafka_2.13-*.jar" >/dev/null && return 0
    say "fetching Apache Kafka from Maven's central repository"
    if ! timeout 600 mvn -q -B -f "$here/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$kafka_libs" >"$work_dir/kafka.log" 2>&1; then
        tail -n 5 "$work_dir/kafka.log" >&2
        say "Kafka could not be fetched; it will be reported as not started"
    fi
}

if [ "$install" = yes ]; then
    install_missing
    if wants kafka; then fetch_kafka; fi
fi

cpu_count=$(nproc --all)
[ "$cpu_count" -ge 2 ] || fail "one core only: broker and generator need one each"
half=$((cpu_count / 2))
: "${broker_cpus:=$([ "$half" = 1 ] && echo 0 || echo "0-$((half - 1))")}"
: "${client_cpus:=$([ "$half" -eq $((cpu_count - 1)) ] && echo "$half" || echo "$half-$((cpu_count - 1))")}"

say "building Tramline and the generator"
export CARGO_TARGET_DIR=$target
jobs=${CARGO_BUILD_JOBS:-$cpu_count}
(cd "$root" && cargo build -q --release -j "$jobs" --bin tramline)
(cd "$here" && cargo build -q --release --locked -j "$jobs")

arguments=(--peers "$peers" --work-dir "$work_dir" --output "$output" --tramline "$target/release/tramline" --kafka-libs "$kafka_libs"
    --broker-cpus "$broker_cpus" --client-cpus "$client_cpus")
if [ -n "$nats" ]; then arguments+=(--nats "$nats"); fi
# SIGTERM makes the runner stop its brokers and write what it has; a minute later it is killed.
timeout --signal=TERM --kill-after=60 "$((minutes_max * 60))" "$target/release/tramline-peers" "${arguments[@]}" "${pass[@]}" &
runner=$!
code=0
wait "$runner" || code=$?
if [ "$code" = 124 ]; then say "ended after $minutes_max minutes: the report has what was measured until then"; fi
exit "$code"
