# Sourced by faults.sh: the faults, one function each. A fault leaves every node running and every cut healed; the caller checks that all is as before.
# A function may use `topic` (six partitions, under load), and says what it does with `step`.
# Not here: workload and checks (workload.sh), how a fault is made (cluster.sh), how bits are flipped (damage.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154 # `dir`, `work`, `fault` and `topic` are faults.sh's

# Longer than any election time-out (at most 1.95 s), and than what stands between it and the leader's last beat.
PAST_ELECTION_S=3
# How long a fault of a disk holds at least.
DISK_S=15
# What uses up the segments that a node had prepared: of 16 MiB, on two shards.
BALLAST_BYTES=400000000
# How long they are used up for.
BALLAST_S=25

victim() { leader_of "$topic" "${1:-0}"; }
parts_led_by() { leaders "$topic" | awk -v n="$1" '$2 == n && $3 > 0 { print $1 }'; }

# Kills a node, and starts it again when the others have taken over.
crash_and_return() {
    step "SIGKILL of node $1"
    cluster kill "$1"
    ask_all_but "$1"
    all_acked
    step "the others acknowledge; node $1 starts"
    cluster start "$1"
}

fault_leader() { crash_and_return "$(victim)"; }

# A node that is made to lead nothing of it: drained, so it follows everywhere.
fault_follower() {
    local node
    node=$(victim 2)
    ctl cluster drain "$node" >/dev/null
    eventually is_drained "$node"
    [ -z "$(parts_led_by "$node")" ] || fail "node $node is drained and leads"
    crash_and_return "$node"
    ask_all
    eventually three_running
    ctl cluster undrain "$node" >/dev/null
}

fault_metadata() { crash_and_return "$(leader_of_metadata)"; }

fault_all() {
    step "SIGKILL of all three nodes at once"
    # One after the other takes as long as three commands; one kill does not.
    # shellcheck disable=SC2046 # ids
    kill -KILL $(cut -d' ' -f1 "$dir"/[123]/pid)
    local number
    for number in 1 2 3; do eventually is_state "$number" dead; done
    step "all start"
    cluster start 1 2 3
}

# The one that is cut off acknowledges nothing once its election time-out is over, also to somebody who reaches nobody else; the others go on.
fault_cut_leader() {
    local node part
    node=$(victim)
    ctl topic create probe --partitions 6 --replicas 3 --if-not-exists >/dev/null
    eventually even probe
    part=$(leaders probe | awk -v n="$node" '$2 == n { print $1; exit }')
    [ "$(probe "$node" "$part")" = 1 ] || fail "before the cut node $node does not take a record from beside it: the probe proves nothing"
    step "node $node is cut off"
    cluster isolate "$node"
    ask_all_but "$node"
    sleep "$PAST_ELECTION_S"
    [ "$(probe "$node" "$part")" = 0 ] || fail "node $node acknowledges a record while it is cut off"
    step "it acknowledges nothing"
    all_acked
    step "the others acknowledge"
    cluster heal
}

# How many of one record, for a partition of the probe's topic, are acknowledged to a client in the node's own namespace.
probe() {
    cluster exec "$1" "$(beside tramctl)" --timeout 3s --server "10.7.0.$1:7410" produce probe --partition "$2" <<<x 2>&1 |
        sed -n 's/^1 records, \([01]\) acknowledged.*/\1/p'
}

fault_one_way() {
    local node other
    node=$(victim 1)
    ask_all_but "$node"
    step "packets from node $node vanish"
    for other in 1 2 3; do [ "$other" = "$node" ] || cluster cut "$node" "$other" --one-way; done
    sleep "$PAST_ELECTION_S"
    all_acked
    cluster heal
    ask_all
    eventually even "$topic"
    step "packets to node $node vanish"
    ask_all_but "$node"
    for other in 1 2 3; do [ "$other" = "$node" ] || cluster cut "$other" "$node" --one-way; done
    sleep "$PAST_ELECTION_S"
    all_acked
    cluster heal
}

fault_isolate() {
    local node
    for node in 1 2 3; do
        step "node $node is cut off"
        ask_all_but "$node"
        cluster isolate "$node"
        sleep "$PAST_ELECTION_S"
        all_acked
        cluster heal
        ask_all
        eventually three_active
        eventually even "$topic"
    done
}

fault_pause() {
    local node
    node=$(victim)
    step "SIGSTOP of node $node"
    cluster stop "$node"
    ask_all_but "$node"
    sleep "$PAST_ELECTION_S"
    all_acked
    step "the others acknowledge; SIGCONT"
    cluster cont "$node"
}

# What was prepared for the log can still be written, so a second load uses it up, until the node refuses. It goes on leading: what it leads waits for space,
# well within the time that producers have, and has to come through then.
fault_full() {
    local node since
    node=$(victim)
    ctl topic create ballast --partitions 6 --replicas 3 --if-not-exists >/dev/null
    step "the disk of node $node is filled"
    cluster fill-disk "$node" >/dev/null
    # SIGINT: it tells what came of its lines, each of which has 15 seconds, so that it tells the obstacle too.
    head -c "$BALLAST_BYTES" /dev/zero | tr '\0' x | fold -w 4000 |
        "$here/cluster.sh" --dir "$dir" exec client timeout --signal INT "$BALLAST_S" "$(beside tramctl)" --timeout 15s --server "$servers" produce ballast >"$work/$fault.ballast" 2>&1 || true
    grep -q "disk_full" "$work/$fault.ballast" || fail "node $node never refused: $(tail -n 1 "$work/$fault.ballast")"
    since=$(now_us)
    sleep 1
    step "it refuses; acknowledged within a second: $(acked_partitions stream "$since") of 6 partitions; it gets its space back"
    cluster free-disk "$node" >/dev/null
    [ "$(state_of "$node")" = running ] || fail "node $node has ended over a full disk"
}

fault_slow() {
    local node
    node=$(victim)
    step "$(cluster slow-disk "$node" 100x)"
    all_acked
    sleep "$DISK_S"
    all_acked
    step "all partitions are acknowledged; it is as fast as before"
    cluster normal-disk "$node"
}

fault_two() {
    local killed stopped slow=2
    killed=$(victim 0) stopped=$(victim 2)
    step "SIGKILL of node $killed while node $stopped is stopped"
    cluster stop "$stopped"
    cluster kill "$killed"
    sleep "$PAST_ELECTION_S"
    cluster cont "$stopped"
    ask_all_but "$killed"
    all_acked
    cluster start "$killed"
    ask_all
    eventually three_active
    eventually even "$topic"
    step "nodes 1 and 3 do not hear each other, and the disk of node $slow is 100 times slower"
    cluster slow-disk "$slow" 100x >/dev/null
    cluster cut 1 3
    ask_all_but 1
    sleep "$PAST_ELECTION_S"
    all_acked
    cluster heal
    cluster normal-disk "$slow"
}

fault_rolling() {
    local node
    for node in 1 2 3; do
        step "node $node drains, ends, starts, takes part again"
        ask_all
        ctl cluster drain "$node" >/dev/null
        eventually is_drained "$node"
        cluster term "$node"
        ask_all_but "$node"
        all_acked
        cluster start "$node"
        ask_all
        eventually three_running
        ctl cluster undrain "$node" >/dev/null
        eventually three_active
        eventually even "$topic"
    done
}

# How long records come before replicas are moved: they have to come along.
MOVE_S=5

# Of two groups of the topic at once: of one the leader's replica goes to the node that has none, of the other the follower's. Then all go back, to nodes that had
# given theirs up. Meanwhile everything has to be acknowledged.
fault_move() {
    local one two since
    sleep "$MOVE_S"
    one=$(route 0 leader)
    two=$(route 4 follower)
    since=$(now_us)
    # shellcheck disable=SC2086 # words
    move_both $one $two
    all_acked
    # shellcheck disable=SC2086
    move_both $(turned $one) $(turned $two)
    all_acked
    step "both are back; longest pause of a partition meanwhile: $(longest_pause_ms "$since") ms"
}

# A partition's group, the two nodes that have it, and those that have it when the replica of its leader, or of its follower, goes to the third one.
route() {
    local leader group voters follower third
    read -r leader group < <(owners "$topic" | awk -v p="$1" '$1 == p { print $2, $3 }')
    voters=$(voters_of "$group")
    follower=$(tr , '\n' <<<"$voters" | grep -vx "$leader")
    third=$(seq 3 | grep -vxF "$(tr , '\n' <<<"$voters")")
    [[ "$follower,$third" =~ ^[1-3],[1-3]$ ]] || fail "group $group is on nodes $voters: two of three nodes were to have it"
    if [ "$2" = leader ]; then say "$group $voters $follower,$third"; else say "$group $voters $leader,$third"; fi
}
turned() { say "$1 $3 $2"; }

# Moves two groups, and waits until they are nowhere else: of each GROUP FROM TO.
move_both() {
    step "replicas move: group $1 from nodes $2 to $3, group $4 from nodes $5 to $6"
    ctl cluster move "$1" --to "$3" >/dev/null
    ctl cluster move "$4" --to "$6" >/dev/null
    eventually is_at "$1" "$3"
    eventually is_at "$4" "$6"
}

voters_of() { ctl cluster groups 2>/dev/null | awk -v g="$1" '$1 == g { print $5 }'; }
# Whether a group has voters on these nodes and on no others, and neither learners nor a move that is under way.
is_at() {
    [ "$(ctl cluster groups 2>/dev/null | awk -v g="$1" '$1 == g && $2 != "-" && $6 == "-" && $7 == "-" { print $5 }' | tr , '\n' | sort | paste -sd,)" = "$(tr , '\n' <<<"$2" | sort | paste -sd,)" ]
}
longest_pause_ms() {
    awk -v t="$1" '$1 > t { if (last[$2] && $1 - last[$2] > most) most = $1 - last[$2]; last[$2] = $1 } END { printf "%.0f\n", most / 1000 }' "$work/$fault.stream.acks"
}

# Damage of one replica. What is served may be refused for a while, and is never wrong; the others bring back what is damaged, while it leads and takes records, and then
# everything can be read there.
fault_flip() {
    local node flipped line
    node=$(victim 4)
    sleep "$DISK_S"
    step "node $node ends"
    cluster term "$node"
    ask_all_but "$node"
    all_acked
    flipped=$(flip_bits "$node" "$work/$fault.values")
    step "$flipped bits of its segments are flipped; it starts"
    [ "$flipped" -gt 0 ] || fail "there was nothing to flip"
    if ! cluster start "$node" 2>"$work/$fault.start"; then
        step "node $node refuses to start: $(grep -m 1 ERROR "$dir/$node/log" || tail -n 1 "$dir/$node/log")"
        fail "a node with a damaged record does not start"
    fi
    ask_all
    eventually three_active
    eventually even "$topic"
    all_acked
    line=$(check_now) || fail "what is served is wrong: $line"
    step "read while it leads: $line"
    grep -q damaged "$dir/$node/log" || fail "node $node says nothing of its damage: what was flipped was not looked at, and that proves nothing"
    eventually is_repaired "$node"
    line=$(check_now) || fail "what is served is wrong: $line"
    step "$(metric "$node" tramline_repaired_ranges_total) batches are repaired; read while it leads: $line"
    [[ "$line" == *" unread=0" ]] || fail "what whole replicas have cannot be read"
}

# The last bytes of the acknowledgements may be of records that come after what is read: a copy is older than the reading.
check_now() {
    cp "$work/$fault.stream.acks" "$work/$fault.check.acks"
    cluster exec client "$(beside tramline-witness)" --server "$servers" --topic "$topic" --acks "$work/$fault.check.acks" --check </dev/null 2>>"$work/$fault.check.trouble"
}

state_of() { cluster status | sed -n "s/^node=$1 state=\([a-z]*\).*/\1/p"; }
is_state() { [ "$(state_of "$1")" = "$2" ]; }
is_drained() { [ "$(ctl cluster nodes 2>/dev/null | awk -v n="$1" '$1 == n { print $2 }')" = drained ]; }
three_running() { [ "$(ctl cluster nodes 2>/dev/null | awk '$3 == "yes"' | wc -l)" -eq 3 ]; }
