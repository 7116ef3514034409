# Sourced by faults.sh and million.sh: every replica of a topic is read, and compared with the others. Needs watch.sh.
# A node serves only what it leads, and from its own files. Draining both others would make it lead all, but is refused (two of three voters of the metadata would stand
# aside), and a drain of one gives away in its own time. So both others end in an orderly way, one after the other: each gives away at once what it leads, to whoever is
# left, and when they are back nobody has what the third one does not have. For five seconds (STEADY_US in src/shard/preferring.rs) it leads everything, and is read.
# Files are in a directory that whoever calls names: TOPIC.PARTITION.NODE, a line per record as `tramctl consume --print json` tells it: partition, offset, time, key,
# value, headers.
# Not here: what was acknowledged (workload.sh). Nothing may be written meanwhile.
# shellcheck shell=bash

# Groups that a node votes in.
groups_on() { ctl cluster groups 2>/dev/null | awk -v n="$1" '$1 ~ /^[0-9]+$/ && index("," $5 ",", "," n ",") { print $1 }'; }

# Whether a node leads all of a topic that it has replicas of.
leads_all_it_has() {
    local groups rows
    groups=" $(groups_on "$1" | xargs) "
    rows=$(owners "$2")
    [ -n "$rows" ] && [ "$groups" != "  " ] &&
        awk -v n="$1" -v g="$groups" '$4 == 0 || index(g, " " $3 " ") && $2 != n { other++ } END { exit other > 0 }' <<<"$rows"
}

# Reads a topic into the directory `$2`. What had the same leader at the same term before and after is that node's replica; the rest is left out.
read_led() {
    local before after all="$2/$1.all" part node
    before=$(owners "$1")
    ctl consume "$1" --from earliest --until-end --print json >"$all" 2>"$2/$1.trouble" || return 1
    after=$(owners "$1")
    while read -r part node; do
        # A partition without a record is a replica too.
        grep -F "\"partition\":$part," "$all" >"$2/$1.$part.$node" || true
    done < <(grep -xFf <(printf '%s\n' "$before") <<<"$after" | awk '$2 > 0 && $4 > 0 { print $1, $2 }')
    rm -f "$all"
}

# Partitions of a topic that a node has a replica of, and that were not read from it into the directory `$3`.
unread() {
    local groups rows part
    groups=" $(groups_on "$1" | xargs) "
    rows=$(owners "$2")
    # Nobody told: then nothing is known to be read.
    [ -n "$rows" ] && [ "$groups" != "  " ] || { say "?"; return; }
    for part in $(awk -v g="$groups" 'index(g, " " $3 " ") { print $1 }' <<<"$rows"); do
        [ -e "$3/$2.$part.$1" ] || say "$part"
    done
}

# Compares the files of a topic in a directory: partitions, and replicas of each, as many as are told. Says in a sentence what differs first, with exit code 1.
replicas_agree() {
    local into="$1" topic="$2" parts="$3" copies="$4" part files file first place shorter
    for ((part = 0; part < parts; part++)); do
        mapfile -t files < <(find "$into" -name "$topic.$part.[1-9]" | sort)
        [ "${#files[@]}" = "$copies" ] || { say "topic $topic, partition $part: ${#files[@]} of $copies replicas were read"; return 1; }
        first=${files[0]}
        [ "$(wc -l <"$first")" = "$(grep -co '"offset":' "$first")" ] || { say "topic $topic, partition $part: not every line is a record"; return 1; }
        for file in "${files[@]:1}"; do
            ! cmp -s "$first" "$file" || continue
            shorter=$(wc -l <"$first")
            [ "$(wc -l <"$file")" -ge "$shorter" ] || shorter=$(wc -l <"$file")
            # The number of the first line that differs, of those that both have.
            place=$(cmp <(head -n "$shorter" "$first") <(head -n "$shorter" "$file") 2>/dev/null | sed 's/.*line \([0-9]*\)$/\1/')
            if [ -n "$place" ]; then
                say "topic $topic, partition $part: record $place differs: node ${first##*.} has it at offset $(offset_in "$first" "$place"), node ${file##*.} at $(offset_in "$file" "$place")"
            else
                say "topic $topic, partition $part: node ${first##*.} has $(wc -l <"$first") records, node ${file##*.} has $(wc -l <"$file"); those that both have agree"
            fi
            return 1
        done
    done
}
offset_in() { sed -n "$2p" "$1" | sed 's/.*"offset":\([0-9]*\).*/\1/'; }

# Waits as long as a leadership stays where it is put, and not for ever.
within() {
    local until=$((SECONDS + $1))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
}
LEADS_S=4

# Makes a node lead alone, as a rule: where the others take longer to come back than an election does, or there are only two replicas, another one may lead in the end.
# Whoever calls looks, and does it again.
lead_alone() {
    local other others=() topic
    for other in 1 2 3; do [ "$other" = "$1" ] || others+=("$other"); done
    for other in "${others[@]}"; do cluster term "$other" || fail "node $other does not end"; done
    cluster start "${others[@]}" || fail "nodes ${others[*]} do not start again"
    for topic in "${@:2}"; do within "$LEADS_S" leads_all_it_has "$1" "$topic" || true; done
}

# Reads every replica of these topics into the directory `$1`. In the end all is as it was.
read_replicas() {
    local into="$1" topics=("${@:2}") round node topic left
    mkdir -p "$into"
    for round in $(seq "$ROUNDS"); do
        left=""
        for node in 2 3 1; do
            [ -n "$(for topic in "${topics[@]}"; do unread "$node" "$topic" "$into"; done)" ] || continue
            left+=" $node"
            lead_alone "$node" "${topics[@]}"
            for topic in "${topics[@]}"; do read_led "$topic" "$into" || true; done
        done
        [ -n "$left" ] || break
    done
    [ -z "$left" ] || fail "after $round rounds not all replicas of nodes$left were read: $(cat "$into"/*.trouble)"
    eventually three_active
}
ROUNDS=8
