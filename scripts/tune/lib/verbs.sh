# Sourced by tune.sh: check, apply, revert. Each looks at one path at a time: what it holds, what it should, and what came of it in one row.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154,SC2015 # variables of tune.sh's other parts; what stands behind && cannot fail

verb_check() {
    local i kind path value is shown
    for i in "${!want_paths[@]}"; do
        setting=${want_settings[i]} kind=${want_kinds[i]} path=${want_paths[i]} value=${want_values[i]}
        look "$kind" "$path" "$value"
        shown "$kind" "$value"
        if is_as_wanted "$kind" "$value"; then
            row "$setting" ok "$path" "$is" "$shown"
        elif is_refused "$path"; then
            row "$setting" kept "$path" "$is" "$shown" "$why_refused"
        else
            row "$setting" differs "$path" "$is" "$shown"
            outcome=1
        fi
    done
}

why_refused="the kernel does not let it be moved"

verb_apply() {
    # What an apply before this one wanted and this one does not: another profile, other cores, another disk.
    local entry part
    for part in "${parts[@]}"; do
        for entry in "$store/$part"/*/; do
            [ ! -f "$entry/path" ] || is_still_wanted "$(cat "$entry/kind")" "$(cat "$entry/path")" || put_back "${entry%/}"
        done
    done
    local i changed=""
    for i in "${!want_paths[@]}"; do
        apply_one "${want_settings[i]}" "${want_kinds[i]}" "${want_paths[i]}" "${want_values[i]}"
    done
    finish_changed
}

# Of a setting that is not looked at, everything is.
is_still_wanted() {
    local i owner
    entry_of "$1" "$2"
    owner=$(cat "$entry/setting")
    is_selected "$owner" || return 0
    for i in "${!want_paths[@]}"; do
        case "${want_kinds[i]}" in
            line) [ "${want_paths[i]%:*}" != "$2" ] || return 0 ;;
            *) [ "${want_paths[i]}" != "$2" ] || return 0 ;;
        esac
    done
    return 1
}

apply_one() {
    local setting=$1 kind=$2 path=$3 value=$4 is shown new
    look "$kind" "$path" "$value"
    shown "$kind" "$value"
    if is_as_wanted "$kind" "$value"; then
        row "$setting" ok "$path" "$is" "$shown"
        return
    fi
    new_of "$kind" "$value"
    if [ "$dry_run" = yes ]; then
        command_of "$kind" "$path" "$new"
        row "$setting" differs "$path" "$is" "$shown"
        changed+=" $setting"
        return
    fi
    local before=$is entry was_kept=no
    entry_of "$kind" "$path"
    [ ! -d "$entry" ] || was_kept=yes
    if ! keep_before "$setting" "$kind" "$path"; then
        row "$setting" failed "$path" "$before" "$shown" "what is there could not be kept in $store: nothing was changed"
        outcome=1
        return
    fi
    if put "$kind" "$path" "$new" && look "$kind" "$path" "$value" && is_as_wanted "$kind" "$value"; then
        keep_after "$kind" "$path"
        row "$setting" changed "$path" "$before" "$is"
        changed+=" $setting"
    elif [ "$kind" = irq ]; then
        keep_refused "$kind" "$path"
        row "$setting" kept "$path" "$before" "$shown" "$why_refused"
    else
        look "$kind" "$path" "$value"
        # Nothing was changed, so there is nothing to give back.
        if [ "$was_kept" = no ] && [ "$is" = "$before" ]; then forget "$entry"; fi
        row "$setting" failed "$path" "$is" "$shown" "writing it was refused${why_not_put:+: $why_not_put}"
        outcome=1
    fi
}

# Writes one value. In a copy of the trees no kernel answers, so the copy gets what a kernel would show.
put() {
    local kind=$1 path=$2 new=$3 text
    why_not_put=""
    case "$kind" in
        coalesce) why_not_put=$("$ethtool" -C "${path%:*}" "${path#*:}" "$new" 2>&1) && why_not_put="" ;;
        line) put_line "${path%:*}" "${path#*:}" "$new" ;;
        whole) put_file "$path" <<<"$new" ;;
        choice)
            if [ -z "$root" ]; then
                put_value "$path" "$new"
            else
                read_file "$path"
                case " ${text//[\[\]]/ } " in *" $new "*) ;; *) why_not_put="there is no '$new' among '$text'"; return 1 ;; esac
                put_text "$path" "$(sed "s/[][]//g; s/\(^\|[[:space:]]\)$new\([[:space:]]\|$\)/\1[$new]\2/" "$root$path"; printf x)"
            fi
            ;;
        *) put_value "$path" "$new" ;;
    esac
}

put_value() { put_text "$1" "$2"$'\n'x; }

# With an x behind it, which the shell's substitution would else cut the line's end from.
put_text() { why_not_put=$({ printf '%s' "${2%x}" >"$root$1"; } 2>&1) && why_not_put="" || { why_not_put=${why_not_put##*: }; return 1; }; }

# A file of the system changes at once or not at all, and keeps its owner and mode.
put_file() {
    local new="$root$1.tramline-new"
    if [ -f "$root$1" ]; then cp -p "$root$1" "$new"; else : >"$new" && chmod 644 "$new"; fi 2>/dev/null && cat >"$new" && mv "$new" "$root$1"
}

put_line() {
    local text
    text=$(awk -v name="$2" -v value="$3" '
        index($0, name "=") == 1 { if (!done) print name "=" value; done = 1; next }
        { print }
        END { if (!done) print name "=" value }' "$root$1"; printf x)
    printf '%s' "${text%x}" | put_file "$1"
}

# The command that does the same by hand.
command_of() {
    local quoted
    quoted "$3"
    case "$1" in
        coalesce) printf 'ethtool -C %s %s %s\n' "${2%:*}" "${2#*:}" "$quoted" ;;
        line) printf "cp -p %s %s/; sed -i '/^%s=/d' %s; printf '%%s\\\\n' %s >>%s\n" "${2%:*}" "$store/files" "${2#*:}" "${2%:*}" "${2#*:}=$quoted" "${2%:*}" ;;
        *) printf "printf '%%s\\\\n' %s >%s\n" "$quoted" "$root$2" ;;
    esac
}

verb_revert() {
    local entry part changed="" found=no
    for part in "${parts[@]}"; do
        for entry in "$store/$part"/*/; do
            [ -f "$entry/path" ] && is_selected "$(cat "$entry/setting")" || continue
            found=yes
            put_back "${entry%/}"
        done
    done
    [ "$dry_run" = yes ] || [ -n "$only" ] || rm -rf "${store:?}/boot/refused"
    [ "$found" = yes ] || printf 'nothing to revert: no value is kept in %s\n' "$store"
    finish_changed
}

# Puts back what was kept in one folder.
put_back() {
    local entry=$1 setting kind path before text is now
    setting=$(cat "$entry/setting") kind=$(cat "$entry/kind") path=$(cat "$entry/path")
    case "$kind" in line | whole) put_file_back; return ;; esac
    before=$(cat "$entry/before"; printf x)
    squeezed "${before%x}"
    local old=$squeezed
    [ "$kind" != choice ] || { chosen_of "${before%x}"; old=$chosen; }
    if [ "$kind" != coalesce ] && [ ! -e "$root$path" ]; then
        row "$setting" unknown "$path" - "$old" "not there any more"
        [ "$dry_run" = yes ] || forget "$entry"
        return
    fi
    look "$kind" "$path"
    now=$is
    if [ "$dry_run" = yes ]; then
        [ "$now" = "$old" ] || command_of "$kind" "$path" "$old"
        row "$setting" differs "$path" "$now" "$old"
        return
    fi
    if [ "$now" != "$old" ]; then
        case "$kind" in
            choice | coalesce) put "$kind" "$path" "$old" ;;
            *) put_text "$path" "$before" ;;
        esac
        look "$kind" "$path"
    fi
    if [ "$is" = "$old" ]; then
        row "$setting" back "$path" "$is" "$old"
        forget "$entry"
    else
        row "$setting" failed "$path" "$is" "$old" "writing it was refused${why_not_put:+: $why_not_put}"
        outcome=1
    fi
    changed+=" $setting"
}

# A file that somebody changed after apply is not ours to overwrite.
put_file_back() {
    if [ -f "$root$path" ] && [ -f "$entry/after" ] && ! cmp -s "$root$path" "$entry/after" && ! cmp -s "$root$path" "$entry/before"; then
        row "$setting" failed "$path" changed "as before" "it was changed since: put it back by hand from ${entry#"$root"}/before, then remove that folder"
        outcome=1
        return
    fi
    if [ "$dry_run" = yes ]; then
        if [ -f "$entry/before" ]; then printf 'cp -p %s %s\n' "$entry/before" "$root$path"; else printf 'rm %s\n' "$root$path"; fi
        row "$setting" differs "$path" changed "as before"
        return
    fi
    if if [ -f "$entry/before" ]; then cp -p "$entry/before" "$root$path"; else rm -f "$root$path"; fi 2>/dev/null; then
        row "$setting" back "$path" "as before" "as before"
        forget "$entry"
        changed+=" $setting"
    else
        row "$setting" failed "$path" changed "as before" "writing it was refused"
        outcome=1
    fi
}

# Some settings are taken in only when a service is told.
finish_changed() {
    case "$changed " in
        *" irqbalance "*)
            if [ "$dry_run" = yes ]; then
                printf 'systemctl try-restart irqbalance\n'
            elif [ -n "$root" ] || ! command -v systemctl >/dev/null || ! systemctl try-restart irqbalance 2>/dev/null; then
                printf 'restart irqbalance, if it runs: it reads its file only then\n'
            fi
            ;;
    esac
}
