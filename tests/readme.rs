//! The README's first session is true: its commands, run one after the other against a real node, print what it says.
//!
//! Blocks marked with `<!-- session -->` are run; the node is killed and restarted where the README does it. Compared is
//! everything but times and rates. Ports differ from the README's defaults, so they are put in.

use common::{Node, Options, tool};
use std::process::Command;

/// A command and the lines the README says it prints.
struct Step {
    command: String,
    output: Vec<String>,
}

/// The marked blocks: each is a list of steps.
fn sessions(readme: &str) -> Vec<Vec<Step>> {
    let mut sessions = Vec::new();
    for part in readme.split("<!-- session -->\n```console\n").skip(1) {
        let (block, _) = part.split_once("\n```").expect("a block ends");
        let mut steps: Vec<Step> = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
                None => steps.last_mut().expect("a block begins with a command").output.push(line.to_owned()),
            }
        }
        sessions.push(steps);
    }
    sessions
}

/// Times and rates differ from run to run: decimal fractions, the number before `records/s` and timestamps become a mark.
fn without_times(line: &str) -> String {
    let mut line = line.to_owned();
    const STAMP: &str = "\"timestamp\":\"";
    if let Some(start) = line.find(STAMP).map(|at| at + STAMP.len()) {
        let end = line[start..].find('"').map_or(line.len(), |len| start + len);
        line.replace_range(start..end, "#");
    }
    let fraction = |word: &str| word.contains('.') && word.parse::<f64>().is_ok();
    let words: Vec<&str> = line.split(' ').collect();
    let mark = |(n, word): (usize, &&str)| {
        if fraction(word) || words.get(n + 1) == Some(&"records/s") { "#".to_owned() } else { (*word).to_owned() }
    };
    words.iter().enumerate().map(mark).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_session_prints_what_the_readme_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let sessions = sessions(&readme);
    assert!(sessions.len() >= 4, "the marked blocks of the README");
    let bin = tool::program("tramctl").parent().expect("a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").expect("PATH"));
    let mut node = Node::with(Options::default());
    let last = sessions.len() - 1;
    for (number, steps) in sessions.into_iter().enumerate() {
        if number == last {
            node.process.kill();
            node = node.restart();
        }
        for step in steps {
            let command = step.command.replace("127.0.0.1:7401", &node.ready.admin.to_string());
            let ran = tool::run_command(
                Command::new("bash")
                    .args(["-c", &format!("exec 2>&1; {command}")])
                    .env("PATH", &path)
                    .env("TRAMLINE_SERVER", node.server())
                    .env("LC_ALL", "C"),
                b"",
            );
            let (got, said): (Vec<_>, Vec<_>) =
                (ran.text().lines().map(without_times).collect(), step.output.iter().map(|l| without_times(l)).collect());
            assert_eq!(got, said, "\n$ {}\nprinted:\n{}", step.command, ran.text());
        }
    }
}

#[test]
fn the_documents_the_readme_points_to_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let mut links = 0;
    for part in readme.split("](").skip(1) {
        let target = part.split(')').next().expect("a link ends");
        if !target.starts_with("http") {
            assert!(root.join(target).exists(), "README.md points to {target}");
            links += 1;
        }
    }
    assert!(links >= 5);
}
