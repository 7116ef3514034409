//! The C interface as its users have it: installed by `scripts/install_capi.sh`, found by `pkg-config`, compiled with `cc`, run against a real node.
//!
//! What the C examples write is read by the tests' own peer, and the other way round; wrong use, a server that goes away and a panic of the library get the statuses that
//! `tramline.h` documents. Where `cc` or `pkg-config` is missing, the tests say that they did not run and what to install.
//!
//! Not here: whether the header agrees with the library (`client/capi/src/header_tests.rs`), what the client promises (`client/`).

use common::layout::Rec;
use common::tool::{self, Ran};
use common::{Node, Options, Peer, WAIT};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use tramline_client::{Attributes, Client, Config, ConsumerConfig, QueuePartitionDescription, Start, key_partition};

const FLAGS: [&str; 6] = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"];

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The target directory of these tests.
fn target_dir() -> PathBuf {
    common::profile_dir().parent().expect("the profile's directory lies in the target directory").to_owned()
}

/// Whether C programs can be made here; says so aloud when not.
fn compiler_is_there(test: &str) -> bool {
    for (command, package) in [("cc", "gcc libc6-dev"), ("pkg-config", "pkg-config"), ("bash", "bash")] {
        if !Command::new(command).arg("--version").output().is_ok_and(|output| output.status.success()) {
            common::not_run(test, &format!("there is no {command}; install it with: apt-get install {package}"));
            return false;
        }
    }
    true
}

fn install(prefix: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new("bash");
    command.arg(in_repository("scripts/install_capi.sh")).arg("--prefix").arg(prefix).args(arguments);
    let output = command.env("CARGO_TARGET_DIR", target_dir()).env_remove("DESTDIR").stdin(Stdio::null()).output();
    // No limit: the first build of a machine takes minutes, and cargo says what it does.
    let output = output.unwrap_or_else(|e| panic!("bash does not run: {e}"));
    Ran { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// A directory that the library was installed into once for all tests of this process.
fn prefix() -> &'static Path {
    static INSTALLED: OnceLock<tempfile::TempDir> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // A space, because a user's directory may have one.
        let dir = common::temp_dir("capi prefix");
        install(dir.path(), &[]).ok();
        dir
    });
    installed.path()
}

/// What `pkg-config` says, as the words it means: it escapes spaces with a backslash.
fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    let said = tool::run_command(&mut command, b"").ok().text();
    let marked = said.trim().replace("\\ ", "\0");
    marked.split_whitespace().map(|word| word.replace('\0', " ")).collect()
}

/// How a program is linked.
#[derive(Clone, Copy, Debug)]
enum Link {
    Shared,
    Static,
}

/// Compiles a C program with the installed library; gives the binary's path.
fn compile(source: &str, link: Link, dir: &Path) -> PathBuf {
    let package = match link {
        Link::Shared => "tramline",
        Link::Static => "tramline-static",
    };
    let source = match source {
        example if Path::new(example).is_relative() && !example.contains('/') => prefix().join("share/doc/tramline/examples").join(example),
        other => in_repository(other),
    };
    let binary = dir.join(format!("{}-{link:?}", source.file_stem().and_then(OsStr::to_str).expect("a name")));
    let mut command = Command::new("cc");
    command.args(FLAGS).arg(&source).arg("-o").arg(&binary).args(pkg_config(&["--cflags", "--libs", package]));
    tool::run_command(&mut command, b"").ok();
    binary
}

/// A command that runs a compiled program against a server, with the installed shared library.
fn program(binary: &Path, server: &str) -> Command {
    let mut command = Command::new(binary);
    command.env("LD_LIBRARY_PATH", prefix().join("lib")).env("TRAMLINE_SERVER", server);
    command
}

fn run(binary: &Path, server: &str, arguments: &[&str], input: &[u8]) -> Ran {
    tool::run_command(program(binary, server).args(arguments), input)
}

/// A port on which nobody listens any more.
fn closed_port() -> String {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").to_string()
}

#[test]
fn what_is_installed_is_complete_and_can_be_taken_away() {
    if !compiler_is_there("what_is_installed_is_complete_and_can_be_taken_away") {
        return;
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(pkg_config(&["--modversion", "tramline"]), [version]);
    assert_eq!(pkg_config(&["--modversion", "tramline-static"]), [version]);
    assert_eq!(pkg_config(&["--variable=prefix", "tramline"]).join(" "), prefix().display().to_string());
    let lib = prefix().join("lib");
    for (link, to) in [("libtramline.so", "libtramline.so.0".to_string()), ("libtramline.so.0", format!("libtramline.so.{version}"))] {
        assert_eq!(std::fs::read_link(lib.join(link)).expect("a link"), Path::new(&to));
    }
    // A second directory: the build is there already.
    let other = common::temp_dir("capi other");
    install(other.path(), &[]).ok();
    assert!(other.path().join("include/tramline.h").exists());
    install(other.path(), &["--uninstall"]).ok();
    let mut left = Vec::new();
    let mut folders = vec![other.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() { folders.push(path) } else { left.push(path) }
        }
    }
    assert_eq!(left, Vec::<PathBuf>::new());
    // What is wrong is told before anything is built.
    let refused = |arguments: &[&str], words: &str| {
        let ran = tool::run_command(Command::new("bash").arg(in_repository("scripts/install_capi.sh")).args(arguments), b"");
        assert!(ran.code == 1 && ran.stderr.contains(words), "{arguments:?}: {ran:?}");
    };
    refused(&["--prefix"], "needs a directory");
    refused(&["--prefix", "here"], "not an absolute path");
    refused(&["--prefix", "/proc/nowhere"], "cannot be written");
    refused(&["--perhaps"], "unknown argument");
}

#[test]
fn what_the_examples_write_is_read_by_others_and_the_other_way_round() {
    if !compiler_is_there("what_the_examples_write_is_read_by_others_and_the_other_way_round") {
        return;
    }
    let node = Node::with(Options::shards(2));
    let dir = common::temp_dir("capi");
    for link in [Link::Shared, Link::Static] {
        let topic = format!("from-c-{link:?}").to_lowercase();
        let (produce, consume) = (compile("produce.c", link, dir.path()), compile("consume.c", link, dir.path()));
        let lines: Vec<String> = (0..5000).map(|n| format!("line {n} žluť {}", "x".repeat(n % 300))).collect();
        let input = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>();
        let ran = run(&produce, &node.server(), &[&topic], &input).ok();
        assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("5000 acknowledged, 0 failed\n", ""));
        // By the peer: each once, in order within its partition.
        let mut peer = Peer::connect(node.ready.client);
        let mut read: Vec<(usize, String)> = Vec::new();
        for partition in peer.partitions(&topic) {
            let values = peer.read_from(partition.uid, 0).into_iter().map(|got| {
                let value = String::from_utf8(got.value.expect("a value")).expect("UTF-8");
                (value.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("its number"), value)
            });
            let values: Vec<(usize, String)> = values.collect();
            assert!(values.is_sorted(), "partition {}", partition.index);
            read.extend(values);
        }
        read.sort();
        assert_eq!(read.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), lines);
        // By the other example.
        let ran = run(&consume, &node.server(), &[&topic], b"").ok();
        assert_eq!(ran.stderr, "5000 records\n");
        let mut printed: Vec<(usize, String)> = ran
            .text()
            .lines()
            .map(|line| {
                let mut columns = line.split('\t').skip(1);
                assert_eq!(columns.next(), Some("-"), "no key: {line}");
                let value = columns.next().expect("a value").to_string();
                (value.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("its number"), value)
            })
            .collect();
        printed.sort();
        assert_eq!(printed.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), lines);
    }

    // Keys, tombstones, empty values and headers, which the peer writes.
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("to-c", 1, &[])[0].uid;
    let header = |name: &str, value: &[u8]| (name.to_string(), value.to_vec());
    let records = [
        Rec {
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: vec![header("trace", b"abc"), header("", b"")],
            time_delta_us: 0,
        },
        Rec { key: Some(Vec::new()), value: Some(Vec::new()), headers: Vec::new(), time_delta_us: 0 },
        Rec { key: Some(b"gone".to_vec()), value: None, headers: Vec::new(), time_delta_us: 0 },
        Rec { key: None, value: Some(b"alone".to_vec()), headers: Vec::new(), time_delta_us: 0 },
    ];
    peer.put(uid, &records);
    let consume = compile("consume.c", Link::Shared, dir.path());
    let ran = run(&consume, &node.server(), &["to-c"], b"").ok();
    assert_eq!(ran.text(), "0/0\tk\tv\ttrace=abc\t=\n0/1\t\t\n0/2\tgone\t(tombstone)\n0/3\t-\talone\n");

    // What they cannot do, they say.
    let ran = run(&consume, &node.server(), &["nowhere"], b"");
    assert_eq!((ran.code, ran.stdout.len()), (1, 0));
    assert!(ran.stderr.contains("unknown_topic") && ran.stderr.contains("TRAMLINE_E_REFUSED"), "{}", ran.stderr);
    let ran = run(&consume, &closed_port(), &["nowhere"], b"");
    assert!(ran.code == 1 && ran.stderr.contains("nothing listens there"), "{ran:?}");
}

#[test]
fn one_record_at_a_time_with_busy_polling() {
    if !compiler_is_there("one_record_at_a_time_with_busy_polling") {
        return;
    }
    let node = Node::start();
    let dir = common::temp_dir("capi");
    let binary = compile("busy_poll.c", Link::Static, dir.path());
    let ran = run(&binary, &node.server(), &["latency", "200"], b"").ok();
    let text = ran.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("200 records") && lines[1].contains("p99") && lines[2].contains("p99"), "{text}");
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.partitions("latency")[0].uid;
    assert_eq!(peer.read_from(uid, 0).len(), 200);
}

#[test]
fn what_the_examples_do_not_show_works_as_documented() {
    if !compiler_is_there("what_the_examples_do_not_show_works_as_documented") {
        return;
    }
    let node = Node::with(Options::shards(2));
    let dir = common::temp_dir("capi");
    let ran = run(&compile("client/capi/tests/everything.c", Link::Shared, dir.path()), &node.server(), &[], b"");
    assert!(ran.code == 0 && ran.text() == "0 failed\n", "{}{}", ran.text(), ran.stderr);
    // Its records, with all codecs, as the Rust client finds them.
    let client = Client::connect(Config::new(&node.server())).expect("the Rust client connects");
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign_all("keys", Start::Earliest).expect("assigned");
    let mut seen = Vec::new();
    let read = consumer.read_to_end(WAIT, |record| {
        let key = record.key.expect("a key");
        let number = number_in(key);
        assert_eq!(key_partition(key, 4), record.partition, "{key:?}");
        let headers: Vec<(&str, &[u8])> = record.headers.map(|header| (header.name, header.value)).collect();
        assert_eq!(headers, [("n", key), ("", &b""[..])]);
        assert_eq!(record.timestamp_us, 1_700_000_000_000_000 + number as i64);
        let priority = Some((number % 10) as u8).filter(|priority| *priority > 0);
        let mut attributes = Attributes { priority, ..Attributes::default() };
        if number == 5 {
            let deliver_at_us = Some(1_700_000_000_000_000);
            attributes = Attributes { deliver_at_us, priority, ttl_ms: Some(u32::MAX), group: Some(b"group"), message_id: Some(b"id") };
        }
        assert_eq!(record.attributes, attributes);
        assert_eq!(record.value, (number % 10 != 9).then(|| vec![b'v'; number]).as_deref());
        seen.push(number);
    });
    assert_eq!(read.expect("read"), 400);
    seen.sort();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
}

/// The number in a key `key N`.
fn number_in(key: &[u8]) -> usize {
    std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix("key ")).and_then(|n| n.parse().ok()).expect("key N")
}

#[test]
fn wrong_use_gets_the_documented_status() {
    if !compiler_is_there("wrong_use_gets_the_documented_status") {
        return;
    }
    let node = Node::start();
    let dir = common::temp_dir("capi");
    let binary = compile("client/capi/tests/misuse.c", Link::Shared, dir.path());
    let ran = run(&binary, "", &[&node.server(), &node.ready.admin.to_string(), &closed_port()], b"");
    assert!(ran.code == 0 && ran.text().ends_with(" tried, 0 failed\n"), "exit code {}\n{}{}", ran.code, ran.text(), ran.stderr);
}

#[test]
fn a_worker_of_a_queue_does_what_it_says() {
    if !compiler_is_there("a_worker_of_a_queue_does_what_it_says") {
        return;
    }
    let node = Node::with(Options::shards(2));
    let dir = common::temp_dir("capi");
    let (produce, queue) = (compile("produce.c", Link::Shared, dir.path()), compile("queue.c", Link::Static, dir.path()));
    let line = |n: usize| match n % 50 {
        0 => String::new(),
        7 => format!("flaky {n}"),
        _ => format!("line {n}"),
    };
    let lines: Vec<String> = (0..1000).map(line).collect();
    run(&produce, &node.server(), &["jobs"], (lines.join("\n") + "\n").as_bytes()).ok();
    let ran = run(&queue, &node.server(), &["jobs"], b"").ok();
    assert_eq!(ran.stderr, "980 done, 20 failed once, 20 rejected, 0 too late\n");
    let mut printed: Vec<String> = ran.text().lines().map(|line| line.split_once('\t').expect("place, value").1.to_string()).collect();
    let mut wanted: Vec<String> = lines.iter().filter(|line| !line.is_empty()).cloned().collect();
    printed.sort();
    wanted.sort();
    assert_eq!(printed, wanted, "each once");
    // As the Rust client finds the queue.
    let client = Client::connect(Config::new(&node.server())).expect("the Rust client connects");
    let partitions = client.describe_queue("jobs").expect("told").partitions;
    let sum = |of: fn(&QueuePartitionDescription) -> u64| partitions.iter().map(of).sum::<u64>();
    assert_eq!((sum(|p| p.acked), sum(|p| p.dead), sum(|p| p.redelivered), sum(|p| p.leased + p.ready)), (980, 20, 20, 0));
    // A second worker finds nothing; one without a topic says so.
    assert_eq!(run(&queue, &node.server(), &["jobs"], b"").ok().stderr, "0 done, 0 failed once, 0 rejected, 0 too late\n");
    let ran = run(&queue, &node.server(), &["nowhere"], b"");
    assert!(ran.code == 1 && ran.stderr.contains("creating the queue") && ran.stderr.contains("unknown_topic"), "{ran:?}");
}

#[test]
fn queues_work_as_documented_and_wrong_use_gets_its_status() {
    if !compiler_is_there("queues_work_as_documented_and_wrong_use_gets_its_status") {
        return;
    }
    let dir = common::temp_dir("capi");
    for link in [Link::Shared, Link::Static] {
        let node = Node::with(Options::shards(2));
        let ran = run(&compile("client/capi/tests/queues.c", link, dir.path()), &node.server(), &[], b"");
        assert!(ran.code == 0 && ran.text().ends_with(" tried, 0 failed\n"), "exit code {}\n{}{}", ran.code, ran.text(), ran.stderr);
    }
}

/// Ends a child that a failing test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_goes_away_is_told_and_the_program_lives() {
    if !compiler_is_there("a_server_that_goes_away_is_told_and_the_program_lives") {
        return;
    }
    let mut node = Node::start();
    let dir = common::temp_dir("capi");
    let binary = compile("client/capi/tests/vanish.c", Link::Shared, dir.path());
    let mut command = program(&binary, "");
    let child = command.arg(node.server()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut running = Running(child);
    let mut stdin = running.0.stdin.take().expect("piped");
    let mut stdout = BufReader::new(running.0.stdout.take().expect("piped"));
    let (sender, said) = channel();
    std::thread::spawn(move || {
        let mut first = String::new();
        let _ = stdout.read_line(&mut first);
        let _ = sender.send(first);
        let mut rest = String::new();
        let _ = stdout.read_to_string(&mut rest);
        let _ = sender.send(rest);
    });
    assert_eq!(said.recv_timeout(WAIT).expect("a line"), "ready\n");
    node.process.kill();
    stdin.write_all(b"gone\n").expect("it reads");
    let rest = said.recv_timeout(WAIT).expect("it goes on and ends");
    let status = running.0.wait().expect("the end of our own child");
    assert!(status.code() == Some(0) && rest == "0 failed\n", "{status}\n{rest}");
}

#[test]
fn a_panic_of_the_library_does_not_reach_the_program() {
    if !compiler_is_there("a_panic_of_the_library_does_not_reach_the_program") {
        return;
    }
    // First what is installed, so that this build, with one function more, is not it. The profile is the same: what is shown here holds there.
    let include = prefix().join("include");
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "capi", "--package", "tramline-capi", "--features", "defect", "--target-dir"])
        .arg(target_dir())
        .current_dir(in_repository(""))
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let dir = common::temp_dir("capi");
    let binary = dir.path().join("defect");
    let built = target_dir().join("capi/libtramline.a");
    let libraries =
        pkg_config(&["--libs-only-other", "--libs-only-l", "tramline-static"]).into_iter().filter(|word| word.starts_with("-l"));
    let mut command = Command::new("cc");
    command
        .args(FLAGS)
        .arg(in_repository("client/capi/tests/defect.c"))
        .arg("-I")
        .arg(include)
        .arg(built)
        .args(libraries)
        .arg("-o")
        .arg(&binary);
    tool::run_command(&mut command, b"").ok();
    let node = Node::start();
    let ran = tool::run_command(Command::new(&binary).arg(node.server()), b"");
    assert!(ran.code == 0 && ran.text() == "0 failed\n", "exit code {}\n{}{}", ran.code, ran.text(), ran.stderr);
    assert!(ran.stderr.contains("a defect on purpose"), "the panic is seen on standard error: {}", ran.stderr);
}

#[test]
fn the_defect_is_in_no_installed_library() {
    if !compiler_is_there("the_defect_is_in_no_installed_library") {
        return;
    }
    for name in ["libtramline.so", "libtramline.a"] {
        let bytes = std::fs::read(prefix().join("lib").join(name)).expect(name);
        assert!(common::find(&bytes, b"tramline_producer_send").is_some(), "{name}");
        assert!(common::find(&bytes, b"tramline_defect").is_none(), "{name}");
    }
}
