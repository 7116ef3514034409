//! What could not be asked: a dash for people, `null` for scripts, and a line that says why.
//!
//! Invariant: what is not known is never shown as a number.

use crate::failure::one_line;
use serde_json::{Value, json};
use tramline_client::SilentNode;

/// A number, or a dash.
pub fn or_dash(number: Option<impl ToString>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

/// Numbers, or as many dashes.
pub fn or_dashes<const N: usize>(is_known: bool, numbers: [u64; N]) -> impl Iterator<Item = String> {
    numbers.into_iter().map(move |number| or_dash(is_known.then_some(number)))
}

/// One line for each node that did not answer, and one for partitions that nobody leads of those who did; nothing where all is known.
pub fn notes(silent: &[SilentNode], untold: &[String]) -> String {
    let mut text: String = silent.iter().map(|node| format!("{}; what it alone knows is shown as -\n", silent_line(node))).collect();
    if !untold.is_empty() {
        text.push_str(&format!("nobody who answered leads {}: see tramctl cluster status\n", untold.join(", ")));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// Who did not answer, and why.
pub fn silent_line(silent: &SilentNode) -> String {
    let SilentNode { node, address, reason } = silent;
    let at = if address.is_empty() { String::new() } else { format!(" ({address})") };
    format!("node {node}{at} did not answer: {}", one_line(reason))
}

/// The same for scripts.
pub fn silent_json(silent: &[SilentNode]) -> Value {
    silent.iter().map(|silent| json!({"node": silent.node, "address": silent.address, "reason": silent.reason})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_named_with_the_reason() {
        let silent = [SilentNode { node: 2, address: "h:1".into(), reason: "cannot connect to h:1:\n refused".into() }];
        assert_eq!(
            notes(&silent, &["t partition 3".to_owned()]),
            "\nnode 2 (h:1) did not answer: cannot connect to h:1: refused; what it alone knows is shown as -\n\
             nobody who answered leads t partition 3: see tramctl cluster status\n"
        );
        assert_eq!(notes(&[], &[]), "");
        assert_eq!(or_dashes(false, [0, 7]).collect::<Vec<_>>(), ["-", "-"]);
    }
}
