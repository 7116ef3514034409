//! Runs the command-line programs (`tramctl` and others) with input, and collects what they print.

use crate::{ROOT, WAIT, profile_dir};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, as bytes: values need not be text.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}\nstandard error: {}", self.text(), self.stderr))
    }

    /// Asserts exit code 0 and gives itself back.
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "standard output:\n{}\nstandard error:\n{}", self.text(), self.stderr);
        self
    }
}

/// The path of one of the workspace's programs. The first call in a process has cargo bring all of them up to date, since
/// cargo itself builds only the root crate's binary for a test; `scripts/test.sh` did it before, and says so.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--package", "tramctl", "--package", "tramline-loadgen", "--package", "tramline-proxy", "--bins"]));
    built(profile_dir().join(name))
}

/// The path of one of the Rust client's examples.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--package", "tramline-client", "--features", "tokio", "--examples"]));
    built(profile_dir().join("examples").join(name))
}

fn built(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// Not where `TRAMLINE_TESTS_BUILT=1` says that it was done: for a choice of packages cargo unites features otherwise than for all, so it would compile the client and the tools once more.
fn build(what: &[&str]) {
    if std::env::var_os("TRAMLINE_TESTS_BUILT").is_some_and(|value| value == "1") {
        return;
    }
    let dir = profile_dir();
    let profile = match dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let target = dir.parent().expect("the profile's directory lies in the target directory");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", profile])
        .args(what)
        .arg("--target-dir")
        .arg(target)
        .current_dir(ROOT)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => assert!(output.status.success(), "{what:?} does not build:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("cargo does not run: {error}"),
    }
}

/// Runs a program with `input` on its standard input. It is killed when it takes longer than the limit of every wait.
pub fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    run_command(Command::new(program).args(arguments), input)
}

/// As `run`, for a command that is already made.
pub fn run_command(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends early closes its input: what it then prints tells more than the broken pipe.
            let _ = stdin.write_all(input);
        });
        let errors = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let (sender, done) = channel();
        scope.spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
        let Ok(stdout) = done.recv_timeout(2 * WAIT) else {
            let _ = child.kill();
            let _ = child.wait();
            let errors = errors.join().unwrap_or_default();
            panic!("{command:?} still runs after {:?}; standard error:\n{errors}", 2 * WAIT);
        };
        let status = child.wait().expect("the end of our own child");
        Ran { code: status.code().unwrap_or(-1), stdout, stderr: errors.join().expect("the reader of the standard error") }
    })
}

/// Runs `tramctl` against a node.
pub fn tramctl(server: &str, arguments: &[&str]) -> Ran {
    tramctl_with_input(server, arguments, b"")
}

/// Runs `tramctl` against a node with input.
pub fn tramctl_with_input(server: &str, arguments: &[&str], input: &[u8]) -> Ran {
    let mut all = vec!["--server", server];
    all.extend_from_slice(arguments);
    run(&program("tramctl"), &all, input)
}

/// Runs the broker's own binary (not `serve`).
pub fn tramline(arguments: &[&str]) -> Ran {
    run(Path::new(crate::node::binary()), arguments, b"")
}
