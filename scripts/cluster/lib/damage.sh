# Sourced by faults.sh and million.sh: bits of one node's segments are flipped, and what it says of that. Needs watch.sh.
# Not here: that the node is down meanwhile, and what becomes of what was flipped.
# shellcheck shell=bash
# shellcheck disable=SC2154 # `dir` is that of whoever sources it

# Flips one bit in the values of so many records of the node `$1`, which does not run, evenly over what its segments hold; says how many. `$2` is a file for what is found.
FLIPS=30
flip_bits() {
    local files found file place byte count=0
    mapfile -t files < <(find "$dir/$1/data/node" -name 'seg-*' -size +0 | sort)
    # Bytes of the second part of every value whose number is below 2^24, which changes the three bytes before them (tools/loadgen/src/bin/tramline-witness/sender.rs).
    LC_ALL=C grep -aobUPH '\x7f\xb9\x79\x37\x9e' "${files[@]}" | LC_ALL=C cut -d: -f1,2 >"$2" || true
    # Not the very last: at the end of a log it looks like what a crash tore.
    while read -r found; do
        file=${found%:*} place=$((${found##*:} + 39))
        byte=$(od -An -tu1 -j "$place" -N 1 "$file")
        # shellcheck disable=SC2059 # the format is the byte
        printf "\\x$(printf %02x $((byte ^ 16)))" | dd of="$file" bs=1 seek="$place" conv=notrunc status=none
        count=$((count + 1))
    done < <(awk -v total="$(wc -l <"$2")" -v flips="$FLIPS" 'BEGIN { part = 1 } part <= flips && NR == int(total * part / (flips + 2)) { print } NR >= int(total * part / (flips + 2)) { part++ }' "$2")
    say "$count"
}

# The sum of a metric over a node's shards.
metric() { cluster exec client curl -sf "http://10.7.0.$1:7401/metrics" | awk -v n="$2" '$1 == n || index($1, n "{") == 1 { sum += $2 } END { print sum + 0 }'; }
is_repaired() {
    [ "$(metric "$1" tramline_repaired_ranges_total)" -gt 0 ] && [ "$(metric "$1" tramline_unrepaired_ranges)" = 0 ] &&
        [ "$(metric "$1" tramline_suspect_replicas)" = 0 ]
}

