//! Start and end of a node: the ready line to the letter, orderly ends, and every refusal to start with its sentence.
//!
//! Each refusal must end with an exit code other than 0, print no ready line, and say what is wrong and with what.
//! Not here: ends by SIGKILL (`durability.rs`), damaged data (`damage.rs`).

use common::layout::{self, Rec};
use common::mount::{Mount, small_disk};
use common::node::{Ready, refused};
use common::{Node, Options, Peer, WAIT, files_with_prefix, not_run, temp_dir};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_ready_line_is_to_the_letter_and_its_ports_answer() {
    let node = Node::with(Options::shards(2));
    let Ready { node: id, client, admin, shards } = &node.ready;
    assert_eq!((*id, *shards), (1, 2));
    assert!(client.port() != 0 && admin.port() != 0, "the line tells the ports that port 0 picked");
    assert!(client.ip().is_loopback() && admin.ip().is_loopback());
    let peer = Peer::connect(*client);
    let hello = peer.hello.as_ref().expect("hello was answered");
    assert_eq!((hello.node, hello.nodes.len(), hello.nodes[0].shard_ports.len()), (1, 1, 2));
    assert_eq!(hello.nodes[0].port, client.port());
    assert_eq!(node.http("/readyz").0, 200);
}

#[test]
fn sigterm_and_sigint_end_a_node_with_exit_code_0_and_the_data_stays() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    peer.put(uid, &[Rec::value("first")]);
    node.process.signal("TERM");
    assert_eq!(node.process.wait(WAIT).code(), Some(0), "{}", node.process.stderr());
    assert!(node.process.next_line(WAIT).is_none(), "nothing but the ready line on the standard output");

    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert_eq!(peer.partitions("t")[0].uid, uid, "a topic keeps its partitions' identities");
    assert_eq!(peer.put(uid, &[Rec::value("second")]), 1);
    node.process.signal("INT");
    assert_eq!(node.process.wait(WAIT).code(), Some(0), "{}", node.process.stderr());

    let node = node.restart();
    let values: Vec<_> = Peer::connect(node.ready.client).read_from(uid, 0).into_iter().map(|r| r.value).collect();
    assert_eq!(values, [Some(b"first".to_vec()), Some(b"second".to_vec())]);
}

#[test]
fn sigterm_with_open_connections_and_waiting_fetches_still_ends() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &[])[0].uid;
    let mut waiting = Peer::connect(node.ready.client);
    // A one-shot fetch that waits for something that never comes, and a connection that said nothing.
    waiting.send(common::layout::kind::FETCH, common::peer::fetch_meta(0, 60_000, 1, 1 << 20, &[(uid, 0, 1 << 20)]), Vec::new());
    let _silent = Peer::silent(node.ready.client);
    peer.ping();
    node.stop();
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one_request() {
    // `timeout 10 tramline serve` and some terminals signal the process and its group.
    let mut node = Node::start();
    let status = Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}; kill -TERM {pid}", pid = node.process.pid())).status();
    assert!(status.expect("sh runs").code().is_some());
    assert_eq!(node.process.wait(WAIT).code(), Some(0), "{}", node.process.stderr());
}

/// Asserts a refusal whose text holds each of `parts` (case does not matter).
fn check_refused(dir: &Path, options: &Options, parts: &[&str]) {
    let (code, text) = refused(dir, options);
    assert_ne!(code, 0, "{text}");
    for part in parts {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "the refusal does not name {part:?}:\n{text}");
    }
    assert!(!text.contains("panicked"), "a sentence, not a panic:\n{text}");
}

#[test]
fn a_data_directory_in_use_is_refused_after_the_wait_and_its_owner_is_unharmed() {
    let node = Node::start();
    check_refused(node.dir(), &Options::default(), &["in use", &node.dir().display().to_string()]);
    Peer::connect(node.ready.client).ping();
    assert_eq!(node.http("/readyz").0, 200);
}

#[test]
fn a_data_directory_becomes_free_during_the_wait() {
    let mut node = Node::start();
    let mut second = common::node::Process::start(&mut Options::default().command(node.dir()));
    // The second start waits for the lock; the first node goes while it waits.
    node.stop();
    let line = second.next_line(WAIT).unwrap_or_else(|| panic!("the second start gave up:\n{}", second.stderr()));
    assert!(Ready::parse(&line).is_some(), "{line}");
    second.signal("TERM");
    assert_eq!(second.wait(WAIT).code(), Some(0));
}

#[test]
fn a_port_in_use_is_refused_with_its_number() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port();
    for flag in ["--listen", "--admin"] {
        let dir = temp_dir("port");
        let address = format!("127.0.0.1:{port}");
        let mut options = Options::default();
        match flag {
            "--listen" => options.listen = address,
            _ => options.admin = address,
        }
        let mut command = options.command(dir.path());
        let mut process = common::node::Process::start(&mut command);
        assert_eq!(process.next_line(WAIT), None, "{flag}");
        assert_ne!(process.wait(WAIT).code(), Some(0), "{flag}");
        let text = process.stderr();
        assert!(text.contains(&port.to_string()) && !text.contains("panicked"), "{flag}: {text}");
    }
}

#[test]
fn a_low_limit_of_locked_memory_is_refused_with_what_to_do() {
    let dir = temp_dir("memlock");
    let serve = Options::default().command(dir.path());
    // In KiB. A limit of one's own may always be lowered.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -l 100 && exec \"$0\" \"$@\""]).arg(serve.get_program()).args(serve.get_args());
    let mut process = common::node::Process::start(limited.env_remove("TRAMLINE_TEST_SEED").stdin(Stdio::null()).stdout(Stdio::piped()));
    assert_eq!(process.next_line(WAIT), None);
    assert_eq!(process.wait(WAIT).code(), Some(1));
    let text = process.stderr();
    for words in ["102400 bytes", "ulimit -l", "LimitMEMLOCK"] {
        assert!(text.contains(words), "the refusal does not say {words:?}:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    // Refused before anything was made of the directory.
    assert!(!dir.path().join("node").exists());
}

#[test]
fn another_shard_count_is_refused_and_the_right_one_still_works() {
    let mut node = Node::with(Options::shards(2));
    node.stop();
    check_refused(node.dir(), &Options::shards(1), &["shard", "2"]);
    check_refused(node.dir(), &Options::shards(3), &["shard", "2"]);
    let mut node = node.restart();
    node.stop();
}

#[test]
fn a_data_directory_of_another_version_is_refused() {
    let mut node = Node::start();
    node.stop();
    let identity = node.dir().join("node");
    let before = std::fs::read(&identity).expect("the node's identity file");
    let text = String::from_utf8(before).expect("the identity file is text");
    let line = text.lines().find(|l| l.starts_with("version")).unwrap_or_else(|| panic!("no version in {text:?}"));
    let (name, value) = line.split_once('=').expect("name = value");
    let value: u32 = value.trim().parse().expect("a number");
    std::fs::write(&identity, text.replace(line, &format!("{name}= {}", value + 1000))).expect("the changed identity");
    check_refused(node.dir(), &Options::default(), &["version", &(value + 1000).to_string()]);
    // Garbage is not a version either.
    std::fs::write(&identity, "something else\n").expect("the changed identity");
    check_refused(node.dir(), &Options::default(), &[&identity.display().to_string()]);
    std::fs::write(&identity, text).expect("the identity as it was");
    let mut node = node.restart();
    node.stop();
}

#[test]
fn a_file_in_place_of_the_data_directory_is_refused() {
    let dir = temp_dir("file");
    let path = dir.path().join("data");
    std::fs::write(&path, "not a directory").expect("a file");
    check_refused(&path, &Options::default(), &[&path.display().to_string()]);
    assert_eq!(std::fs::read(&path).expect("the file"), b"not a directory");
}

#[test]
fn a_data_directory_without_permission_is_refused() {
    let dir = temp_dir("readonly");
    let path = dir.path().join("data");
    std::fs::create_dir(&path).expect("a directory");
    // Mode bits do not stop root, a read-only mount does; mode bits stop everybody else, who may not mount.
    let name = path.display().to_string();
    let mount = Mount::new(&["--bind", "-o", "ro", &name], &path);
    let _mount = match mount {
        Ok(mount) => Some(mount),
        Err(why) => {
            let mut permissions = std::fs::metadata(&path).expect("its metadata").permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(&path, permissions).expect("its mode");
            if std::fs::write(path.join("probe"), "").is_ok() {
                not_run(
                    "a_data_directory_without_permission_is_refused",
                    &format!("mode bits do not hold here and mounting failed: {why}"),
                );
                return;
            }
            None
        }
    };
    check_refused(&path, &Options::default(), &[&name]);
}

/// Segments of 16 MiB: three of them fit on the small disk.
fn small_disk_options() -> Options {
    Options::default().set("pool.segments", "1")
}

#[test]
fn a_data_directory_without_space_is_refused() {
    let dir = temp_dir("nospace");
    let Some((_mount, path)) = small_disk("a_data_directory_without_space_is_refused", dir.path(), "ext4", 64 << 20) else { return };
    // Leaves less than one segment.
    std::fs::write(path.join("ballast"), vec![1u8; 45 << 20]).expect("the ballast");
    check_refused(&path, &small_disk_options(), &["space", &path.display().to_string()]);
    // With the ballast gone the same directory is usable: the refusal left nothing bad behind.
    std::fs::remove_file(path.join("ballast")).expect("the ballast goes");
    let mut node = Node::at(&path, small_disk_options());
    node.stop();
    assert!(!files_with_prefix(&path.join("shard-0"), "seg-").is_empty());
}

#[test]
fn listening_beyond_loopback_wants_an_advertised_host_and_warns() {
    let dir = temp_dir("beyond");
    let start = |more: &[&str]| {
        let mut command = Command::new(common::node::binary());
        command.args([
            "serve",
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "127.0.0.1:0",
            "--shards",
            "1",
            "--unpinned",
            "--set",
            "segment.bytes=16MiB",
        ]);
        command.arg("--data-dir").arg(dir.path()).args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        common::node::Process::start(&mut command)
    };
    let mut process = start(&[]);
    assert_eq!(process.next_line(WAIT), None, "0.0.0.0 is no address that a client could be told");
    assert_ne!(process.wait(WAIT).code(), Some(0));
    assert!(process.stderr().contains("--advertise"), "{}", process.stderr());

    let mut process = start(&["--advertise", "127.0.0.1"]);
    let line = process.next_line(WAIT).unwrap_or_else(|| panic!("it ended:\n{}", process.stderr()));
    let ready = Ready::parse(&line).unwrap_or_else(|| panic!("{line}"));
    let peer = Peer::connect(([127, 0, 0, 1], ready.client.port()).into());
    assert_eq!(peer.hello.as_ref().expect("hello").nodes[0].host, "127.0.0.1");
    assert!(process.stderr().to_lowercase().contains("authentication"), "a warning was expected:\n{}", process.stderr());
    process.signal("TERM");
    assert_eq!(process.wait(WAIT).code(), Some(0));
}

#[test]
fn log_lines_are_json_when_asked_for_and_the_level_holds() {
    let mut options = Options::default();
    options.arguments.extend(["--log-format".into(), "json".into(), "--log-level".into(), "info".into()]);
    let mut node = Node::with(options);
    Peer::connect(node.ready.client).ping();
    node.stop();
    let text = node.process.stderr();
    assert!(text.lines().count() >= 1, "a start and an end are worth a line at level info");
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        assert!(value.get("level").is_some() || value["fields"]["message"].is_string(), "{line}");
    }
    let mut options = Options::default();
    options.arguments.extend(["--log-level".into(), "error".into()]);
    let mut node = Node::with(options);
    node.stop();
    assert_eq!(node.process.stderr(), "", "nothing goes wrong, nothing is said at level error");
}

#[test]
fn memory_comes_in_at_the_start_unless_it_is_told_not_to() {
    let small = Options::default().set("memory.bytes", "96MiB");
    let mut node = Node::with(small.clone().set("memory.prefault", "true"));
    let until = Instant::now() + WAIT;
    while node.rss_kib() < 96 << 10 {
        assert!(Instant::now() < until, "{} KiB are resident", node.rss_kib());
        std::thread::yield_now();
    }
    Peer::connect(node.ready.client).ping();
    node.stop();
    let mut node = node.restart_with(small);
    Peer::connect(node.ready.client).ping();
    node.process.watch_quietly(Duration::from_millis(500));
    assert!(node.rss_kib() < 96 << 10, "{} KiB are resident of a node that nobody used", node.rss_kib());
}

#[test]
fn a_node_has_its_memory_when_it_serves() {
    let start = || Node::with(Options::default().set("memory.bytes", "48MiB").set("memory.prefault", "true"));
    // With the machine's cores, and with one for everything (which is that of the thread that starts it).
    let on_one_core = move || {
        let mut one = rustix::thread::CpuSet::new();
        one.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &one).expect("a core of its own");
        start()
    };
    for mut node in [start(), std::thread::spawn(on_one_core).join().expect("it starts")] {
        assert!(node.rss_kib() >= 48 << 10, "{} KiB are resident", node.rss_kib());
        node.stop();
    }
}

/// A node that is halted and goes on (a debugger, a frozen container, a paused virtual machine) answers who was connected and who comes.
#[test]
fn a_node_that_was_halted_and_goes_on_answers() {
    for spin in ["always", "adaptive", "never"] {
        let mut options = Options::shards(2);
        options.spin = spin;
        let mut node = Node::with(options);
        let mut old = Peer::connect(node.ready.client);
        let uid = old.topic("t", 1, &[])[0].uid;
        let batch = layout::batch(layout::TIME_US, &[Rec::value("x")]);
        let mut dice = common::Dice(common::seed());
        for round in 0..30 {
            // A produce is under way at the halt in every other round; halts are of all lengths, down to none.
            let pending = (round % 2 == 0).then(|| old.send_produce(layout::level::DURABLE, &[(uid, &batch)]));
            for _ in 0..dice.in_range(1, 4) {
                node.process.signal("STOP");
                node.process.watch_quietly(Duration::from_micros(dice.in_range(0, 20_000)));
                node.process.signal("CONT");
            }
            if pending.is_some() {
                old.receive().unwrap_or_else(|_| panic!("spin {spin}, round {round}: no answer"));
            }
            Peer::connect(node.ready.client).ping();
        }
    }
}
