# Sourced by the scripts beside it: finds what a fresh Debian machine lacks and installs it (as root) or names the
# command (otherwise). Nothing here starts or stops a process of somebody else.

RUST_MIN="1.89" # `rust-version` in Cargo.toml

say() { printf '\n== %s\n' "$*"; }
fail() { printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Debian packages, given as command:package pairs: installed when root, named otherwise.
need_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "these are missing: ${missing[*]} (Debian's names). Install them with this system's package manager, then run this again."
    elif [ "$(id -u)" -ne 0 ]; then
        fail "these packages are missing. Run:  sudo apt-get update && sudo apt-get install -y ${missing[*]}  and then this again."
    fi
    say "installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" \
        || fail "apt-get could not install ${missing[*]}: see its message above."
}

need_rust() {
    # rustup puts cargo here, and a shell opened before the installation does not have it in PATH yet.
    command -v cargo >/dev/null 2>&1 || [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    command -v cargo >/dev/null 2>&1 || fail "Rust is missing. Install it from https://rustup.rs (the default choices are right), then run this again."
    local have
    have=$(rustc --version | awk '{print $2}') || fail "rustc does not run: reinstall Rust from https://rustup.rs"
    [ "$(printf '%s\n%s\n' "$RUST_MIN" "${have%%-*}" | sort -V | head -n 1)" = "$RUST_MIN" ] \
        || fail "Rust $have is too old: $RUST_MIN or newer is needed. Run:  rustup update stable  (see https://rustup.rs)."
}

# What compiling needs beside Rust: some packages contain C (glommio's liburing, zstd), built with gcc and make.
need_build_tools() {
    need_commands cc:gcc make:make
    # A cc without the C library's headers compiles nothing; Debian ships them apart.
    if ! printf '#include <stdio.h>\n' | cc -E -x c - >/dev/null 2>&1; then need_commands stdio.h:libc6-dev; fi
    need_rust
}

# A component of the Rust installation, e.g. need_component rustfmt fmt rustfmt
need_component() {
    local component="$1" subcommand="$2" debian_package="$3"
    cargo "$subcommand" --version >/dev/null 2>&1 && return 0
    if command -v rustup >/dev/null 2>&1; then
        say "installing the Rust component $component"
        rustup component add "$component" || fail "rustup could not add $component: see its message above."
    elif dpkg -s rustc >/dev/null 2>&1; then
        need_commands "cargo-$subcommand:$debian_package"
    else
        fail "this Rust installation has no $component. Reinstall Rust from https://rustup.rs, or install the component the way Rust was installed."
    fi
    cargo "$subcommand" --version >/dev/null 2>&1 || fail "cargo $subcommand still does not run after $component was installed."
}

# The directory cargo builds into, absolute.
target_dir() {
    local dir="${CARGO_TARGET_DIR:-target}"
    case "$dir" in /*) printf '%s' "$dir" ;; *) printf '%s/%s' "$PWD" "$dir" ;; esac
}

# What fuzzing needs beside: the nightly toolchain (the sanitizer and the counters of coverage) and cargo-fuzz.
need_fuzzer() {
    if ! cargo +nightly --version >/dev/null 2>&1; then
        command -v rustup >/dev/null 2>&1 || fail "fuzzing needs Rust's nightly toolchain, which rustup installs: see https://rustup.rs"
        say "installing Rust's nightly toolchain"
        rustup toolchain install nightly --profile minimal || fail "rustup could not install it: see its message above."
    fi
    cargo fuzz --version >/dev/null 2>&1 && return 0
    say "installing cargo-fuzz"
    cargo install --locked cargo-fuzz || fail "cargo could not install cargo-fuzz: see its message above."
}
