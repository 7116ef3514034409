//! docs/PROTOCOL.md and the code are one: every kind and every error code stands there with its number, name and whether
//! it is retriable, and so do the constants a client needs. The same for kinds and refusals between nodes, in docs/REPLICATION.md.

use std::path::PathBuf;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::{batch, frame, node};

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    file("PROTOCOL.md")
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')).unwrap_or(line);
    inner.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
}

/// The cells of the first table row that starts with these two cells.
fn row(document: &str, first: &str, second: &str) -> Option<Vec<String>> {
    let mut rows = document.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.find(|cells| cells.len() > 1 && cells[0] == first && cells[1] == second)
}

/// The rows below the heading that begins so, each with its first cells, as many as the heading has.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let columns = cells(heading).len();
    let lines = document.lines().skip_while(|line| !line.starts_with(heading)).skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| cells(line).into_iter().take(columns).collect()).collect()
}

#[test]
fn kinds_between_nodes_are_those_of_their_table() {
    let expected: Vec<Vec<String>> = node::Kind::ALL
        .iter()
        .map(|kind| {
            let classes: Vec<_> = kind.classes().iter().map(|class| class.name()).collect();
            let classes = if kind.classes() == node::Class::ALL { "all".to_owned() } else { classes.join(", ") };
            let from = kind.side().map_or("either", node::Side::name);
            vec![kind.as_u8().to_string(), kind.name().to_owned(), from.to_owned(), classes, kind.payload().to_owned()]
        })
        .collect();
    assert_eq!(table(&file("REPLICATION.md"), "| kind | name | from | class | payload |"), expected);
}

#[test]
fn refusals_between_nodes_are_those_of_their_table() {
    let expected: Vec<Vec<String>> = node::Refusal::ALL
        .iter()
        .map(|refusal| {
            let retriable = if refusal.retriable() { "yes" } else { "no" };
            vec![refusal.as_u16().to_string(), refusal.name().to_owned(), retriable.to_owned()]
        })
        .collect();
    assert_eq!(table(&file("REPLICATION.md"), "| code | name | retriable |"), expected);
}

#[test]
fn every_kind_is_listed_with_its_versions() {
    let document = document();
    for kind in Kind::ALL {
        let cells = row(&document, &kind.as_u8().to_string(), kind.name()).unwrap_or_else(|| panic!("no row for kind {kind}"));
        let (min, max) = kind.versions();
        assert_eq!(cells[2], format!("{min}..{max}"), "versions of {kind}");
    }
}

#[test]
fn every_error_code_is_listed_with_whether_it_is_retriable() {
    let document = document();
    for code in ErrorCode::ALL {
        let cells = row(&document, &code.as_u16().to_string(), code.name()).unwrap_or_else(|| panic!("no row for error {}", code.name()));
        assert_eq!(cells[2], if code.retriable() { "yes" } else { "no" }, "retriable of {}", code.name());
        assert!(cells[3].len() > 10 || code.is_ok(), "{} says what to do", code.name());
    }
}

#[test]
fn no_error_code_is_listed_that_does_not_exist() {
    let document = document();
    let table = document.split("## Error codes").nth(1).expect("a section on error codes").split("\n## ").next().expect("its text");
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).count();
    assert_eq!(rows, ErrorCode::ALL.len());
}

#[test]
fn the_limits_of_the_layouts_are_told() {
    let document = document();
    for (what, number) in [
        ("frame header", frame::HEADER_BYTES as u64),
        ("meta", frame::META_BYTES_MAX as u64),
        ("payload", frame::PAYLOAD_BYTES_MAX as u64),
        ("meta + payload, default", frame::FRAME_BYTES_MAX_DEFAULT as u64),
        ("batch header", batch::BATCH_HEADER_BYTES as u64),
        ("records of a batch", batch::RECORDS_MAX as u64),
        ("batch", batch::Limits::default().batch_bytes_max as u64),
        ("values of a batch, uncompressed", batch::Limits::default().values_bytes_max as u64),
        ("record", batch::Limits::default().record_bytes_max as u64),
        ("key", batch::Limits::default().key_bytes_max as u64),
        ("headers of a record", batch::Limits::default().headers_max as u64),
        ("headers of a record, together", batch::Limits::default().headers_bytes_max as u64),
        ("message group, message id", batch::Limits::default().id_bytes_max as u64),
    ] {
        assert!(row(&document, what, &number.to_string()).is_some(), "no row | {what} | {number} | in the table of limits");
    }
}
