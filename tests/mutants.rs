//! The bugs that the simulator switches on are no part of the released broker: neither their names nor what they say.

use std::path::Path;

#[test]
fn the_broker_holds_nothing_of_the_bugs_on_purpose() {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/mutants.rs")).expect("the list of bugs");
    let listed = source.split_once("mutants! {\n    Ack").expect("the list in it").1;
    let names: Vec<&str> = listed.split('"').skip(1).step_by(2).collect();
    assert!(names.len() >= 2 * 72, "seventy-two bugs, each with a name and a sentence: {names:?}");
    let binary = std::fs::read(env!("CARGO_BIN_EXE_tramline")).expect("the broker's binary");
    let holds = |text: &str| binary.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("tramline"), "the search finds what is there");
    let found: Vec<&&str> = names.iter().filter(|name| holds(name)).collect();
    assert!(found.is_empty(), "in the broker's binary: {found:?}");
}
