# Sourced by tune.sh: the table of what was found and done.
# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of tune.sh's other parts

show_rows() {
    [ "${#rows[@]}" -gt 0 ] || return 0
    printf '%s\n' "${rows[@]}" | order_rows | awk -F '\037' -v head='SETTING\037STATE\037WHERE\037IS\037WANTED\037WHY' '
        function cut(text, most) { return length(text) > most ? substr(text, 1, most - 2) ".." : text }
        BEGIN { n = split(head, names, "\037"); for (i = 1; i <= n; i++) { cell[0, i] = names[i]; width[i] = length(names[i]) } }
        {
            for (i = 1; i <= 6; i++) {
                cell[NR, i] = i == 4 || i == 5 ? cut($i == "" ? "-" : $i, 44) : $i
                if (length(cell[NR, i]) > width[i]) width[i] = length(cell[NR, i])
            }
        }
        END {
            for (r = 0; r <= NR; r++) {
                line = ""
                for (i = 1; i <= 5; i++) line = line sprintf("%-" width[i] "s  ", cell[r, i])
                line = line cell[r, 6]
                sub(/ +$/, "", line)
                print line
            }
        }'
    printf '\n'
    printf '%s\n' "${rows[@]}" | awk -F '\037' '{ n[$2]++ } END {
        split("ok changed back differs kept advice unknown failed", order, " ")
        for (i = 1; i <= 8; i++) if (order[i] in n) { printf "%s%d %s", sep, n[order[i]], order[i]; sep = ", " }
        printf "\n" }'
}

# All rows of a setting together, in the order of the settings, each as it came; last what belongs to none.
order_rows() {
    awk -F '\037' -v names="${settings[*]} -" '
        BEGIN { count = split(names, order, " ") }
        { line[$1] = line[$1] $0 "\n" }
        END { for (i = 1; i <= count; i++) printf "%s", line[order[i]] }'
}
