//! The input of the read-back test: the flights table, real when `TRAMLINE_FLIGHTS_CSV` names it, else made up in its shape.
//!
//! The shape matters: 19 fields, the key in the 12th, some 4,000 keys of very different frequency, lines of some 90 bytes.

use crate::Dice;
use std::process::Command;

/// The field that is the key, counted from 1 (`tailnum`).
pub const KEY_FIELD: usize = 12;

/// The table without its header line, one line per record, without line ends.
pub struct Table {
    /// Where it is from, for the test's output.
    pub source: String,
    /// All lines.
    pub lines: Vec<String>,
}

/// Reads or makes the table.
pub fn table() -> Table {
    match std::env::var("TRAMLINE_FLIGHTS_CSV") {
        Ok(path) => Table { lines: read(&path), source: path },
        Err(_) => Table { lines: generate(60_000), source: "made up: 60,000 lines".into() },
    }
}

fn read(path: &str) -> Vec<String> {
    let bytes = if path.ends_with(".gz") {
        let output = Command::new("gzip").args(["-dc", path]).output().expect("gzip runs");
        assert!(output.status.success(), "gzip -dc {path}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    } else {
        std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
    };
    let text = String::from_utf8(bytes).expect("the table is UTF-8");
    let mut lines = text.lines();
    let header = lines.next().expect("a header line");
    assert_eq!(header.split(',').nth(KEY_FIELD - 1), Some("tailnum"), "the key is the 12th field");
    lines.map(str::to_owned).collect()
}

fn generate(count: usize) -> Vec<String> {
    let mut dice = Dice(2013);
    let mut lines = Vec::with_capacity(count);
    for n in 0..count {
        // Squaring the draw makes some aeroplanes fly far more often than others, as they do.
        let draw = dice.in_range(0, 64);
        let plane = draw * draw + dice.in_range(0, 64);
        let tailnum = if dice.in_range(0, 100) == 0 { "NA".to_owned() } else { format!("N{}UA", 10_000 + plane) };
        let (month, day, hour) = (1 + n * 12 / count, 1 + n % 28, 5 + n % 18);
        let (delay, flight, air) = (dice.in_range(0, 90) as i64 - 20, dice.in_range(1, 7000), dice.in_range(30, 600));
        lines.push(format!(
            "2013,{month},{day},{hour}17,{hour}15,{delay},{hour}30,{hour}19,11,UA,{flight},{tailnum},EWR,IAH,{air},1400,{hour},15,2013-{month:02}-{day:02}T{hour:02}:00:00Z"
        ));
    }
    lines
}

/// The key of a line.
pub fn key(line: &str) -> &str {
    line.split(',').nth(KEY_FIELD - 1).expect("the line has a key field")
}
