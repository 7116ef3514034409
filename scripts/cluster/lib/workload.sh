# Sourced by faults.sh: what writes and reads during a fault, and what it found in the end. Files in `work`: FAULT.KIND.{acks,result,trouble,pid}, KIND stream or queue.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `work`, `fault`, `rate`, `here` and `dir` are faults.sh's

# `$1` kind, then its arguments. Not by way of `cluster`: the process becomes the witness, which is told to end by its id.
begin_witness() {
    local at="$work/$fault.$1"
    : >"$at.acks"
    "$here/cluster.sh" --dir "$dir" exec client "$(beside tramline-witness)" --server "$servers" --acks "$at.acks" "${@:2}" </dev/null >"$at.result" 2>"$at.trouble" &
    say $! >"$at.pid"
}

begin_witnesses() {
    begin_witness stream --topic "s-$1" --rate "$rate"
    begin_witness queue --topic "q-$1" --queue "q-$1" --rate 100
    all_acked
}

# Ends those that run, by a signal, and waits for their end: they are children of a shell that may be gone, so by their ids.
end_witnesses() {
    local file pid
    for file in "$work"/*.pid; do
        [ -e "$file" ] || continue
        kill "-$1" "$(<"$file")" 2>/dev/null || true
    done
    for file in "$work"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(<"$file")
        # Longest: flush, reading back and emptying the queue, a minute each.
        local until=$((SECONDS + 200))
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || fail "the witness $pid does not end"
            sleep 0.1
        done
        rm -f "$file"
    done
}

# A field of a witness's last line.
field() { sed -n "s/.*\b$2=\([0-9]*\).*/\1/p" "$work/$fault.$1.result"; }

# The sum of fields over both.
sum_of() {
    local kind name found sum=0
    for kind in stream queue; do
        for name in "$@"; do
            [ ! -e "$work/$fault.$kind.result" ] || found=$(field "$kind" "$name")
            sum=$((sum + ${found:-0}))
            found=""
        done
    done
    say "$sum"
}

check_witnesses() {
    local kind
    for kind in stream queue; do
        [ -s "$work/$fault.$kind.result" ] || fail "the witness of the $kind says nothing: $(tail -n 3 "$work/$fault.$kind.trouble")"
        step "$kind: $(<"$work/$fault.$kind.result")"
        [ "$(field "$kind" acked)" -gt 0 ] || fail "nothing was acknowledged in the $kind: that proves nothing"
    done
    [ "$(sum_of failed)" = 0 ] || fail "$(sum_of failed) records failed: $(grep -h ' failed: ' "$work/$fault".*.trouble | head -n 1)"
    [ "$(sum_of lost doubled wrong disordered revived stuck)" = 0 ] || fail "$(head -n 3 "$work/$fault".*.trouble)"
}

# Whether each of six partitions of both was acknowledged later than `$1` (microseconds UTC), by which any answer to what came before was there.
acked_since() {
    local kind
    for kind in stream queue; do
        [ "$(acked_partitions "$kind" "$1")" = 6 ] || return 1
    done
}

# How many partitions of one of them were. The end of the file is enough, and the file is long.
acked_partitions() { tail -n 4000 "$work/$fault.$1.acks" | awk -v t="$2" '$1 > t { p[$2] } END { print length(p) }'; }

# Waits until all partitions are acknowledged, from now on.
all_acked() {
    local since
    since=$(($(now_us) + 20000))
    eventually acked_since "$since"
}
