//! Tidy: the repository checks itself. Text only, no compiler; each check has a test that it can fail.
//!
//! Checks: module docs, room arrows and packages against docs/ARCHITECTURE.md, banned words, leftovers, long files, tests that no binary has, the code map
//! against the tree. Rust text is looked at without comments and without what stands in strings (`bare`).
//!
//! Not here: format and lints (rustfmt, clippy), documents made from tables (`documents.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines above which a file is two jobs. The house aims at 600; this is the wall.
const LINES_MAX: usize = 800;
const CORE_ROOMS: [&str; 7] = ["log", "replication", "control", "partition", "subscription", "api", "shard"];

/// One text file: its path from the root with `/`, and what is in it.
struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(endings: &[&str]) -> Vec<Source> {
    fn walk(dir: &Path, endings: &[&str], found: &mut Vec<Source>) {
        // A cargo target directory, wherever it is, says what it is.
        if dir.join("CACHEDIR.TAG").exists() {
            return;
        }
        let mut entries: Vec<PathBuf> = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "data", ".git"].contains(&name.as_str()) {
                    walk(&path, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let from_root = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path: from_root, text: fs::read_to_string(&path).unwrap_or_default() });
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), endings, &mut found);
    assert!(!found.is_empty());
    found
}

/// Rust text with comments and the insides of strings and characters replaced by spaces; lines stay where they are.
fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let blank = |out: &mut Vec<u8>, part: &[u8]| out.extend(part.iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let raw = raw_string(bytes, at);
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(len) = raw {
            len
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
            quoted(rest, b'\'')
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        blank(&mut out, &rest[..len]);
        at += len;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn quoted(rest: &[u8], end: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != end {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        match &rest[at..] {
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            _ => at += 1,
        }
    }
    at.min(rest.len())
}

/// Length of the raw string that begins at `at`, if one does.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|i| bytes[i]);
    if bytes[at] != b'r' || before.is_some_and(|b| b.is_ascii_alphanumeric() && b != b'b' || b == b'_') {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let start = at + 2 + hashes;
    let found = bytes[start..]
        .windows(end.len())
        .position(|window| window == end)
        .unwrap_or(bytes.len() - start - end.len().min(bytes.len() - start));
    Some((start + found + end.len()).min(bytes.len()) - at)
}

/// Splits bare text into what runs in production and the test module at its end.
fn production_and_tests(bare: &str) -> (&str, &str) {
    let mut from = 0;
    while let Some(found) = bare[from..].find("#[cfg(test)]") {
        let at = from + found;
        let after = bare[at + "#[cfg(test)]".len()..].trim_start();
        let line = after.lines().next().unwrap_or_default();
        if line.starts_with("mod ") && line.contains('{') {
            return bare.split_at(at);
        }
        from = at + 1;
    }
    (bare, "")
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The folder or file of `src/` that a path belongs to.
fn room(path: &str) -> Option<&str> {
    let first = path.strip_prefix("src/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Line number of a byte position, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|b| *b == b'\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Places where `word` stands with no letter, digit or underscore beside it (where it begins or ends with one itself).
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (bytes, inner) = (text.as_bytes(), word.as_bytes());
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let free_before = !is_word(inner[0]) || *at == 0 || !is_word(bytes[at - 1]);
        let end = at + inner.len();
        free_before && (!is_word(inner[inner.len() - 1]) || end == bytes.len() || !is_word(bytes[end]))
    })
}

/// Paths that follow `crate::`, groups opened: `crate::{a::b, c}` is `a::b` and `c`.
fn crate_paths(bare: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(bare, "crate::").filter(|at| *at == 0 || bare.as_bytes()[at - 1] != b'$') {
        let rest = &bare[at + "crate::".len()..];
        let path = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect() };
        match rest.strip_prefix('{') {
            None => found.push((at, path(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut item = String::new();
                for letter in group.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push((at, path(std::mem::take(&mut item).trim()))),
                        _ if depth == 0 => item.push(letter),
                        _ => {}
                    }
                }
                found.push((at, path(item.trim())));
            }
        }
    }
    found.retain(|(_, path)| !path.is_empty());
    found
}

/// Rows of the two-column table that follows `<!-- mark: ...`.
fn table(document: &str, mark: &str) -> BTreeMap<String, Vec<String>> {
    let start = document.find(&format!("<!-- {mark}:")).unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no table marked '{mark}'"));
    let rows = document[start..].lines().skip(3).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells
        .map(|row| (row[0].clone(), row[1].split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()))
        .collect()
}

/// What docs/ARCHITECTURE.md allows.
struct Allowed {
    rooms: BTreeMap<String, Vec<String>>,
    roots: BTreeMap<String, Vec<String>>,
    packages: BTreeMap<String, Vec<String>>,
}

impl Allowed {
    fn read(document: &str) -> Allowed {
        Allowed { rooms: table(document, "rooms"), roots: table(document, "root files"), packages: table(document, "packages") }
    }

    fn may(&self, from: &str, path: &str) -> bool {
        let target = path.split("::").next().unwrap_or_default();
        let listed = |list: &[String]| list.iter().any(|entry| path == entry || path.starts_with(&format!("{entry}::")));
        let known = self.rooms.contains_key(target) || self.roots.contains_key(target) || target == "wire";
        // Items of lib.rs itself (macros) are nobody's room.
        !known
            || target == from
            || match (self.rooms.get(from), self.roots.get(from)) {
                (Some(list), _) => self.roots.contains_key(target) || listed(list),
                (None, Some(list)) => listed(list),
                (None, None) => false,
            }
    }
}

fn check_arrows(file: &Source, allowed: &Allowed) -> Vec<String> {
    let Some(from) = room(&file.path).filter(|from| !["lib", "main"].contains(from)) else { return Vec::new() };
    if is_test_file(&file.path) {
        return Vec::new();
    }
    if !allowed.rooms.contains_key(from) && !allowed.roots.contains_key(from) {
        return vec![format!("{}: room '{from}' is in no table of docs/ARCHITECTURE.md", file.path)];
    }
    let bare = bare(&file.text);
    let (code, _) = production_and_tests(&bare);
    let mut uses = crate_paths(code);
    uses.extend(words(code, "tramline_wire").map(|at| (at, "wire".to_owned())));
    let refused = uses.into_iter().filter(|(_, path)| !allowed.may(from, path));
    refused.map(|(at, path)| format!("{}:{}: '{from}' may not use '{path}' (docs/ARCHITECTURE.md)", file.path, line_of(code, at))).collect()
}

fn check_packages(file: &Source, allowed: &Allowed) -> Vec<String> {
    let Some(from) = room(&file.path).filter(|_| !is_test_file(&file.path)) else { return Vec::new() };
    let bare = bare(&file.text);
    let (code, _) = production_and_tests(&bare);
    let mut problems = Vec::new();
    for (package, rooms) in allowed.packages.iter().filter(|(_, rooms)| !rooms.iter().any(|room| room == from)) {
        let (path, whole) = (format!("{package}::"), format!("use {package};"));
        // `crate::raft::x` or `self.raft` is somebody's module or field, not the package.
        let named = words(code, &path).filter(|at| !code[..*at].ends_with("::")).chain(words(code, &whole));
        problems.extend(
            named.map(|at| format!("{}:{}: only {} may name the package '{package}'", file.path, line_of(code, at), rooms.join(", "))),
        );
    }
    problems
}

fn check_module_doc(file: &Source) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or_default();
    match first.starts_with("//! ") {
        true => Vec::new(),
        false => vec![format!("{}: opens without `//!` (job, invariants, what is not here)", file.path)],
    }
}

fn check_length(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines > LINES_MAX { vec![format!("{}: {lines} lines, more than {LINES_MAX}; split it by job", file.path)] } else { Vec::new() }
}

fn check_core(file: &Source) -> Vec<String> {
    // The off-line checker reads files; it is no part of the core, only of its room.
    let exempt = file.path.starts_with("src/log/inspect");
    if exempt || is_test_file(&file.path) || !room(&file.path).is_some_and(|room| CORE_ROOMS.contains(&room)) {
        return Vec::new();
    }
    let banned = [
        ("Instant::now", "time is an argument (`Now`)"),
        ("SystemTime", "time is an argument (`Now`)"),
        ("std::thread", "the edge has the threads"),
        ("std::fs", "files are effects"),
        ("TcpStream", "sockets are effects"),
        ("TcpListener", "sockets are effects"),
        ("thread_rng", "dice are an argument"),
        ("rand::random", "dice are an argument"),
        ("HashMap::new", "its order is random; use `ids::IdMap` or a BTreeMap"),
        ("HashSet::new", "its order is random; use a BTreeSet"),
        ("RandomState", "its order is random"),
    ];
    let bare = bare(&file.text);
    let (code, _) = production_and_tests(&bare);
    let found = banned.iter().flat_map(|(word, why)| words(code, word).map(move |at| (at, word, why)));
    found.map(|(at, word, why)| format!("{}:{}: '{word}' in the core: {why}", file.path, line_of(code, at))).collect()
}

fn check_unsafe(file: &Source) -> Vec<String> {
    let free = [
        "src/ring/",
        "src/bytes/region.rs",
        "bench/limits/",
        "bench/micro/src/allocator.rs",
        "client/src/transport/",
        "client/capi/src/",
        "fuzz/src/allocator.rs",
    ]
    .iter()
    .any(|dir| file.path.starts_with(dir));
    let allocator = file.path.split('/').any(|part| part == "tests" || part == "tests.rs") && file.path.contains("alloc");
    if free || allocator {
        return Vec::new();
    }
    let bare = bare(&file.text);
    words(&bare, "unsafe")
        .map(|at| format!("{}:{}: unsafe outside src/ring/ and src/bytes/region.rs", file.path, line_of(&bare, at)))
        .collect()
}

fn check_leftovers(file: &Source) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let anywhere = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("/wo", "rk/")];
    let in_code = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!"), concat!("#[ig", "nore")];
    let mut problems = Vec::new();
    let mut report = |text: &str, word: &'static str| {
        let found = words(text, word).map(|at| format!("{}:{}: leftover '{word}'", file.path, line_of(text, at)));
        problems.extend(found);
    };
    anywhere.iter().for_each(|word| report(&file.text, word));
    if file.path.ends_with(".rs") {
        let bare = bare(&file.text);
        in_code.iter().for_each(|word| report(&bare, word));
    }
    problems
}

fn check_unwrap(file: &Source) -> Vec<String> {
    let shipped = ["src/", "wire/src/", "client/src/", "tools/"].iter().any(|dir| file.path.starts_with(dir));
    // A fake broker for tests is a test.
    if !shipped || is_test_file(&file.path) || file.path.starts_with("client/src/fake/") {
        return Vec::new();
    }
    let bare = bare(&file.text);
    let (code, _) = production_and_tests(&bare);
    let found = words(code, ".unwrap()");
    found
        .map(|at| format!("{}:{}: unwrap; say with expect() why it cannot fail, or return the error", file.path, line_of(code, at)))
        .collect()
}

fn check_sleeps(file: &Source) -> Vec<String> {
    let bare = bare(&file.text);
    let tests = if is_test_file(&file.path) { bare.as_str() } else { production_and_tests(&bare).1 };
    let start = bare.len() - tests.len();
    words(tests, "thread::sleep")
        .map(|at| format!("{}:{}: a test waits for something that happens, it does not sleep", file.path, line_of(&bare, start + at)))
        .collect()
}

/// Paths in back-ticks of the first cells of the code map.
fn code_map(document: &str) -> Vec<String> {
    let start = document.find("## Code map").expect("docs/ARCHITECTURE.md has a code map");
    let section = document[start + 3..].split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn check_map(map: &[String], exists: impl Fn(&str) -> bool, present: &[String]) -> Vec<String> {
    let gone = map.iter().filter(|path| !exists(path)).map(|path| format!("docs/ARCHITECTURE.md names '{path}', which is not there"));
    let missing =
        present.iter().filter(|path| !map.contains(path)).map(|path| format!("'{path}' is not in the code map of docs/ARCHITECTURE.md"));
    gone.chain(missing).collect()
}

/// Links of a document to files of the repository that are not there.
fn check_links(file: &Source, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let targets = file
        .text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default());
    let local = targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '));
    local
        .filter(|target| !exists(&folder.join(target)))
        .map(|target| format!("{}: links to '{target}', which is not there", file.path))
        .collect()
}

/// Files of `tests/` that no binary has: cargo does not look for them by itself (`autotests`), so they would not be compiled and nobody would be told.
fn check_left_out(files: &[Source], manifest: &str) -> Vec<String> {
    let name = |file: &Source| file.path.strip_prefix("tests/")?.strip_suffix(".rs").filter(|name| !name.contains('/')).map(str::to_owned);
    let is_target = |name: &str| manifest.contains(&format!("[[test]]\nname = \"{name}\"\n"));
    let (targets, others): (Vec<_>, Vec<_>) =
        files.iter().filter_map(|file| Some((name(file)?, file))).partition(|(name, _)| is_target(name));
    let is_in_one = |name: &str| targets.iter().any(|(_, target)| target.text.lines().any(|line| line == format!("mod {name};")));
    let left_out = others.iter().filter(|(name, _)| !is_in_one(name));
    left_out
        .map(|(_, file)| format!("{}: is in no binary; write 'mod' with its name into tests/nodes.rs or tests/clusters.rs", file.path))
        .collect()
}

fn assert_tidy(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn each(files: &[Source], check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    files.iter().flat_map(check).collect()
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md is there")
}

#[test]
fn every_file_says_what_it_is() {
    assert_tidy(each(&sources(&[".rs"]), check_module_doc));
}

#[test]
fn no_file_is_too_long() {
    assert_tidy(each(&sources(&[".rs"]), check_length));
}

#[test]
fn rooms_know_only_what_the_table_allows() {
    let allowed = Allowed::read(&architecture());
    assert_tidy(each(&sources(&[".rs"]), |file| check_arrows(file, &allowed)));
}

#[test]
fn packages_stay_in_their_rooms() {
    let allowed = Allowed::read(&architecture());
    assert_tidy(each(&sources(&[".rs"]), |file| check_packages(file, &allowed)));
}

#[test]
fn the_core_has_no_clock_thread_file_socket_or_dice() {
    assert_tidy(each(&sources(&[".rs"]), check_core));
}

#[test]
fn unsafe_stays_in_the_ring() {
    assert_tidy(each(&sources(&[".rs"]), check_unsafe));
}

#[test]
fn nothing_is_left_over() {
    assert_tidy(each(&sources(&[".rs", ".sh", ".md", ".toml"]), check_leftovers));
}

#[test]
fn what_is_shipped_says_why_it_cannot_fail() {
    assert_tidy(each(&sources(&[".rs"]), check_unwrap));
}

#[test]
fn every_test_is_in_a_binary() {
    assert_tidy(check_left_out(&sources(&[".rs"]), &fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml is there")));
}

#[test]
fn tests_do_not_sleep() {
    assert_tidy(each(&sources(&[".rs"]), check_sleeps));
}

#[test]
fn the_code_map_is_the_tree() {
    let folders = |of: &str| -> Vec<String> {
        let entries = fs::read_dir(root().join(of)).expect("readable").map(|entry| entry.expect("readable"));
        let dirs = entries.filter(|entry| entry.path().is_dir()).map(|entry| format!("{of}{}/", entry.file_name().to_string_lossy()));
        dirs.collect()
    };
    let root_files =
        sources(&[".rs"]).into_iter().map(|file| file.path).filter(|path| path.starts_with("src/") && path.matches('/').count() == 1);
    let present: Vec<String> = folders("src/").into_iter().chain(folders("tools/")).chain(root_files).collect();
    assert_tidy(check_map(&code_map(&architecture()), |path| root().join(path).exists(), &present));
}

#[test]
fn documents_link_to_what_is_there() {
    assert_tidy(each(&sources(&[".md"]), |file| check_links(file, |path| root().join(path).exists())));
}

mod the_checks_can_fail {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn allowed() -> Allowed {
        Allowed::read(
            "<!-- rooms: x -->\n| room | may use |\n|---|---|\n| log | wire |\n| shard | log, ring::words |\n| ring | |\n\n\
             <!-- root files: x -->\n| f | m |\n|---|---|\n| ids | |\n| effects | ids, shard::mesh |\n\n\
             <!-- packages: x -->\n| p | n |\n|---|---|\n| raft | shard |\n",
        )
    }

    #[test]
    fn bare_text_has_no_comments_and_no_strings() {
        let text = "a /* b /* c */ d */ e // f\ng(\"h \\\" i\", 'j', '\\'', r#\"k \" l\"#, 'm) n";
        assert_eq!(bare(text).split_whitespace().collect::<String>(), "aeg(,,,,'m)n");
        assert_eq!(bare("x\n\"a\nb\"\ny").lines().count(), 4);
        assert_eq!(bare("for r in rows").trim(), "for r in rows");
        assert_eq!(bare("r\"open").trim(), "");
    }

    #[test]
    fn the_test_module_is_told_from_production() {
        let text = "#[cfg(test)]\nmod far;\nfn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n";
        let (production, tests) = production_and_tests(text);
        assert!(production.contains("fn a") && !production.contains("fn b") && tests.contains("fn b"));
    }

    #[test]
    fn arrows() {
        let count = |path: &str, text: &str| check_arrows(&file(path, text), &allowed()).len();
        assert_eq!(count("src/log/a.rs", "use crate::shard::X;"), 1);
        assert_eq!(count("src/log/a.rs", "use crate::{ids::Y, shard::{X, Z}, log::B};"), 1);
        assert_eq!(count("src/log/a.rs", "fn f() { crate::shard::g() }"), 1);
        assert_eq!(count("src/log/a.rs", "use crate::ids::X; use crate::log::Y; use tramline_wire::Z; // crate::shard"), 0);
        assert_eq!(count("src/ring/a.rs", "use tramline_wire::Z;"), 1);
        assert_eq!(count("src/shard/a.rs", "use crate::ring::words::A; use crate::ring::Ring; use crate::ring::wordsmith::X;"), 2);
        assert_eq!(count("src/shard.rs", "use crate::log::A;"), 0);
        assert_eq!(count("src/effects.rs", "use crate::shard::mesh::M; use crate::log::L;"), 1);
        assert_eq!(count("src/new/a.rs", ""), 1);
        assert_eq!(count("src/log/tests.rs", "use crate::shard::X;"), 0);
        assert_eq!(count("src/log/a.rs", "#[cfg(test)]\nmod tests {\n use crate::shard::X;\n}"), 0);
        assert_eq!(count("src/main.rs", "use crate::shard::X;"), 0);
    }

    #[test]
    fn packages() {
        let count = |path: &str, text: &str| check_packages(&file(path, text), &allowed()).len();
        assert_eq!(count("src/log/a.rs", "use raft::Config; let x: raft::Ready;"), 2);
        assert_eq!(count("src/log/a.rs", "self.raft.step(); crate::x::raft::Y; draft::z()"), 0);
        assert_eq!(count("src/shard/a.rs", "use raft::Config;"), 0);
    }

    #[test]
    fn files() {
        assert_eq!(check_module_doc(&file("a.rs", "use x;\n")).len(), 1);
        assert_eq!(check_module_doc(&file("a.rs", "//! Job.\n")).len(), 0);
        assert_eq!(check_length(&file("a.rs", &"\n".repeat(LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn words_in_the_core() {
        let count = |path: &str, text: &str| check_core(&file(path, text)).len();
        let text = "let t = Instant::now(); let m = HashMap::new(); // SystemTime\n\"std::fs\"";
        assert_eq!(count("src/log/a.rs", text), 2);
        assert_eq!(count("src/runtime/a.rs", text), 0);
        assert_eq!(count("src/log/inspect.rs", "std::fs::read"), 0);
    }

    #[test]
    fn unsafe_blocks() {
        assert_eq!(check_unsafe(&file("src/log/a.rs", "unsafe { x }")).len(), 1);
        assert_eq!(check_unsafe(&file("src/log/a.rs", "#![deny(unsafe_code)] // unsafe")).len(), 0);
        assert_eq!(check_unsafe(&file("src/ring/a.rs", "unsafe { x }")).len(), 0);
    }

    #[test]
    fn leftovers() {
        let text = [concat!("// FIX", "ME"), concat!("to", "do!()"), concat!("mktemp aXX", "XX"), concat!("cd /wo", "rk/x")].join("\n");
        assert_eq!(check_leftovers(&file("a.rs", &text)).len(), 3);
        assert_eq!(check_leftovers(&file("a.sh", &text)).len(), 2);
    }

    #[test]
    fn files_without_a_binary() {
        let manifest = "[[test]]\nname = \"nodes\"\n\n[lints]\n";
        let files = [
            file("tests/nodes.rs", "mod a;\n// mod b;\n"),
            file("tests/a.rs", ""),
            file("tests/b.rs", ""),
            file("tests/a/c.rs", ""),
            file("src/d.rs", ""),
        ];
        let problems = check_left_out(&files, manifest);
        assert!(problems.len() == 1 && problems[0].starts_with("tests/b.rs:"), "{problems:?}");
    }

    #[test]
    fn unwraps_and_sleeps() {
        let text = "fn a() { x.unwrap(); sleep() }\n#[cfg(test)]\nmod tests {\n fn b() { y.unwrap(); std::thread::sleep(z); }\n}";
        assert_eq!(check_unwrap(&file("src/a.rs", text)).len(), 1);
        assert_eq!(check_unwrap(&file("bench/a.rs", text)).len(), 0);
        let sleeps = check_sleeps(&file("src/a.rs", text));
        assert!(sleeps.len() == 1 && sleeps[0].starts_with("src/a.rs:4:"), "{sleeps:?}");
        assert_eq!(check_sleeps(&file("src/a.rs", "fn a() { std::thread::sleep(z) }")).len(), 0);
    }

    #[test]
    fn map_and_links() {
        let map = code_map("## Code map\n\n| where | what |\n|---|---|\n| `src/a.rs`, `src/a/` | x `y` |\n\n## Next\n| `src/z/` | |\n");
        assert_eq!(map, ["src/a.rs", "src/a/"]);
        let problems = check_map(&map, |path| path == "src/a/", &["src/a/".to_owned(), "src/new/".to_owned()]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let links =
            check_links(&file("docs/A.md", "[a](B.md#part) [b](https://x.y/z) [c](../gone.md)"), |path| path == Path::new("docs/B.md"));
        assert_eq!(links.len(), 1, "{links:?}");
    }
}
