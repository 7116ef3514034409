//! Printing settings: `tramline config` and docs/SETTINGS.md, both made from the table.
//!
//! Invariant: the document is a function of the table alone (no value of this machine), so that a test can compare it byte by byte.

use std::fmt::Write;

use super::{Effective, TABLE, env_name};

/// Columns key, value, origin, default and meaning; the meaning is cut to what fits into `width` columns (0: not cut).
pub fn table(effective: &[Effective], width: usize) -> String {
    let rows: Vec<[String; 4]> =
        effective.iter().map(|e| [e.def.key.to_owned(), shown(e), e.origin.to_string(), e.def.default_words().to_owned()]).collect();
    let heads = ["key", "value", "origin", "default"];
    // A derived default is a sentence; beyond this many columns it would push the meaning out of sight.
    let limit = [40, 40, 12, 34];
    let column = |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([heads[i].len()]).max().unwrap_or(0).min(limit[i]);
    let widths: [usize; 4] = std::array::from_fn(column);
    let mut out = String::new();
    let mut line = |cells: [&str; 4], doc: &str| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, "{:width$}  ", cut(cell, width));
        }
        text.push_str(doc);
        let text = if width == 0 { text } else { cut(&text, width) };
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(heads, "meaning");
    for (row, e) in rows.iter().zip(effective) {
        line([&row[0], &row[1], &row[2], &row[3]], e.def.doc);
    }
    out
}

/// One JSON object per setting, in an array.
pub fn json(effective: &[Effective]) -> String {
    let all: Vec<serde_json::Value> = effective
        .iter()
        .map(|e| {
            serde_json::json!({
                "key": e.def.key, "value": e.def.kind.show(&e.value), "origin": e.origin.to_string(), "unit": e.def.kind.unit(),
                "range": e.def.range(), "default": e.def.default_words(), "environment": env_name(e.def.key), "doc": e.def.doc,
            })
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&all).expect("strings always serialise");
    text.push('\n');
    text
}

/// A settings file that says what holds now, each value with its meaning above it.
pub fn toml(effective: &[Effective]) -> String {
    let mut out = String::from("# Settings of a Tramline node. Lines with a # are defaults.\n");
    for e in effective {
        let mark = if e.origin == super::Origin::Default { "# " } else { "" };
        let _ = write!(out, "\n# {}\n# {}; default {}\n", e.def.doc, e.def.range_words(), e.def.default_words());
        let _ = writeln!(out, "{mark}{} = {}", e.def.key, toml::Value::String(e.def.kind.show(&e.value)));
    }
    out
}

fn shown(e: &Effective) -> String {
    match e.def.kind.show(&e.value) {
        text if text.is_empty() => "-".to_owned(),
        text => text,
    }
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
        false => text.to_owned(),
    }
}

impl super::Def {
    /// Range, or the kind where there is none.
    fn range_words(&self) -> String {
        match self.range() {
            text if text.is_empty() => self.kind.unit().to_owned(),
            text => text,
        }
    }
}

/// The text of docs/SETTINGS.md.
pub fn document() -> String {
    let mut out = String::from(
        "# Settings and limits\n\n\
         Made from `src/config/table.rs`, `src/control/settings.rs` and `src/control/queue_settings.rs`; a test compares them. Refresh with `TRAMLINE_UPDATE_DOCS=1 cargo test --test nodes documents`.\n\n\
         What holds is, in this order: a flag, an environment variable, the settings file (`--config FILE` or `TRAMLINE_CONFIG`), the default.\n\
         `tramline config` prints the effective values with their origin; `tramline config --format toml` prints them as a settings file.\n\n\
         - Flag: `--set KEY=VALUE` for every setting, and the short form named in the table.\n\
         - Environment: `TRAMLINE_` and the key in upper case with underscores: `segment.bytes` is `TRAMLINE_SEGMENT_BYTES`. Unknown `TRAMLINE_` names are warned about.\n\
         - File: TOML; `segment.bytes = \"64MiB\"` and a table `[segment]` with `bytes = \"64MiB\"` mean the same. Unknown keys are refused.\n\
         - Sizes: `4096`, `64KiB`, `1MiB`, `1GiB`. Times always with a unit: `50us`, `20ms`, `10s`, `5m`, `2h`.\n\n\
         | key | flag | default | range | meaning |\n|---|---|---|---|---|\n",
    );
    for def in TABLE {
        let flag = def.flag.map_or(String::new(), |flag| format!("`--{flag}`"));
        let _ = writeln!(out, "| `{}` | {flag} | {} | {} | {} |", def.key, def.default_words(), def.range_words(), def.doc);
    }
    let _ = write!(
        out,
        "\n## Limits that are not settings\n\n\
         | what | limit | why |\n|---|---|---|\n\
         | meta part of a frame | 1MiB | protocol; bounds what is decoded before the payload is looked at |\n\
         | payload of a frame | 16MiB | protocol; `frame.max.bytes` is the node's own bound |\n\
         | payload of one fetch frame | {} KiB | small replies pass between two of them |\n\
         | records in a batch | 65,535 | the width of a record's place in its batch |\n\
         | time between the first and any other record of a batch | 35 minutes either way | the width of a record's time; a producer starts a new batch |\n\
         | topics of a cluster | {} | every replica of the metadata has to come to the same answer, so it is no setting of a node |\n\
         | partitions of a cluster | {} | some 200 bytes of metadata each, on each node |\n\
         | partitions of a topic | {} | its description has to fit into one reply |\n\
         | length of a topic's name | {} bytes | a file name with room for an ending |\n\
         | shards of a node | {} | |\n\
         | one background turn | {} us | it is added to the latency of what arrives meanwhile |\n\
         | frame between nodes | 1MiB of meta, 16MiB of payload; the first one of a connection 64KiB in all | protocol; must not differ between nodes, so no setting |\n\
         | connecting to another node | {} s | two requests to connect may be lost |\n\
         | first frame of who connects to the port for nodes | {} s | strangers hold no place for longer |\n\
         | looking for a node that lets this one into its cluster | {} s | all of them may be restarting; then the start fails and says what each answered |\n",
        crate::constants::FETCH_FRAME_BYTES >> 10,
        crate::constants::TOPICS_MAX,
        crate::constants::PARTITIONS_MAX,
        crate::constants::TOPIC_PARTITIONS_MAX,
        crate::constants::TOPIC_NAME_BYTES_MAX,
        crate::constants::SHARDS_MAX,
        crate::constants::TURN_US,
        crate::constants::NODE_DIAL_US / 1_000_000,
        crate::constants::NODE_HELLO_US / 1_000_000,
        crate::constants::JOIN_US / 1_000_000,
    );
    out
}
