//! Documents that are made from tables in the code agree with them. `TRAMLINE_UPDATE_DOCS=1 cargo test --test nodes documents` refreshes them.

use std::fmt::Write;
use std::path::Path;
use tramline::control::{QUEUE_SETTINGS, Setting, TOPIC_SETTINGS};

/// Compares a file of the repository with what the code makes of it, or writes it when asked to.
fn compare(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("TRAMLINE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    if let Some((line, (is, should))) = found.lines().zip(expected.lines()).enumerate().find(|(_, (is, should))| is != should) {
        panic!("{name} line {}:\n is     {is}\n should {should}\nrun: TRAMLINE_UPDATE_DOCS=1 cargo test --test nodes documents", line + 1);
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "{name} has too many or too few lines; run: TRAMLINE_UPDATE_DOCS=1 cargo test --test nodes documents"
    );
}

/// The part of docs/SETTINGS.md that the tables in `src/control/` say.
fn settings_of_others() -> String {
    let mut out = String::from(
        "\n## Settings of a topic\n\n\
         Given with `tramctl topic create NAME --set KEY=VALUE` or `tramctl topic alter`; an empty value goes back to the default. Unknown keys are refused.\n\n",
    );
    out += &table(TOPIC_SETTINGS);
    out += "\n## Settings of a queue\n\n\
            Given when a queue is created or altered; an empty value goes back to the default. Unknown keys are refused.\n\n";
    out += &table(QUEUE_SETTINGS);
    out
}

fn table(settings: &[Setting]) -> String {
    let mut out = String::from("| key | default | value | meaning |\n|---|---|---|---|\n");
    for setting in settings {
        let default = if setting.default.is_empty() { "(empty)" } else { setting.default };
        writeln!(out, "| `{}` | {default} | {} | {} |", setting.key, setting.expected(), setting.doc).expect("a String takes all");
    }
    out
}

#[test]
fn settings_agree_with_their_tables() {
    compare("docs/SETTINGS.md", &(tramline::config::show::document() + &settings_of_others()));
}

#[test]
fn metrics_agree_with_their_tables() {
    compare("docs/METRICS.md", &tramline::metrics::document::document());
}
