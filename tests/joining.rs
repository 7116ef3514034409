//! Joining a cluster with the real binary, against hand-made nodes and wrong ports: what stands in the directory afterwards, and every refusal.
//!
//! Not here: what the cluster does (the shard), the conversation's turns (unit tests of `runtime/join`).

use common::node::{Process, refused};
use common::{Node, Options, WAIT, temp_dir};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tramline::control::{ClusterCommand, Command, Joined, NodeSpec};
use tramline::ids::{LogIndex, ReplicaId, Term};
use tramline_wire::error::ErrorBody;
use tramline_wire::frame::{Limits, finish_frame};
use tramline_wire::node::{self, Call, CallReply, CallWhat, Hello, HelloReply, Kind, Need, Numbers, Refusal, Refused};
use tramline_wire::prim::List;

/// Node 2 of a rack, with the seeds it is to ask.
fn joining(seeds: &str) -> Options {
    let mut options = Options::default();
    let arguments = ["--node-id", "2", "--rack", "b2", "--cluster-listen", "127.0.0.1:0", "--join", seeds];
    options.arguments.extend(arguments.map(String::from));
    options
}

/// Waits until the standard error has `text`; whatever is printed meanwhile does not matter.
fn wait_for(process: &mut Process, text: &str) {
    let limit = Instant::now() + WAIT;
    while !process.stderr().contains(text) {
        assert!(Instant::now() < limit, "'{text}' never came:\n{}", process.stderr());
        process.line_within(Duration::from_millis(20));
    }
}

/// The cluster's end of a connection.
struct Seed {
    stream: TcpStream,
    received: Vec<u8>,
    sent: Numbers,
    expected: Numbers,
}

impl Seed {
    fn accept(listener: &TcpListener) -> Seed {
        let (stream, _) = listener.accept().expect("the node connects");
        stream.set_read_timeout(Some(WAIT)).expect("a read timeout");
        Seed { stream, received: Vec::new(), sent: Numbers::new(), expected: Numbers::new() }
    }

    fn read<T>(&mut self, kind: Kind, read: impl FnOnce(node::Frame<'_>) -> T) -> T {
        loop {
            match node::peek(&self.received, &Limits::PROTOCOL, &self.expected).expect("frames") {
                Need::More(bytes) => {
                    let had = self.received.len();
                    self.received.resize(bytes, 0);
                    self.stream.read_exact(&mut self.received[had..]).expect("the rest of the frame");
                }
                Need::Whole(frame, len) => {
                    assert_eq!(frame.kind, kind);
                    let got = read(frame);
                    self.expected.advance();
                    self.received.drain(..len);
                    return got;
                }
            }
        }
    }

    fn write(&mut self, kind: Kind, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        let start = node::begin(&mut out, kind, self.sent.advance());
        meta(&mut out);
        finish_frame(&mut out, start, payload.len()).expect("a frame");
        out.extend_from_slice(payload);
        self.stream.write_all(&out).expect("sent");
    }

    /// Up to the call; answers its number and who wants to join.
    fn hear(&mut self) -> (u64, NodeSpec) {
        self.read(Kind::Hello, |frame| assert_eq!(Hello::decode(frame.meta).expect("a hello").from_node, 2));
        self.write(Kind::HelloReply, &[], |out| HelloReply { boot: 1, feature: 1, window: 1, groups: List::of(&[]) }.encode(out));
        self.read(Kind::Call, |frame| {
            let call = Call::decode(frame.meta).expect("a call");
            call.check(frame.payload).expect("whole");
            let Ok(Command::Cluster(command)) = Command::decode(frame.payload) else { panic!("no command of the cluster") };
            let ClusterCommand::AddNode(spec) = *command else { panic!("{command:?}") };
            (call.call, *spec)
        })
    }

    fn answer(&mut self, call: u64, payload: &[u8]) {
        let error = ErrorBody { code: 0, retriable: false, message: "", next: "" };
        let reply = CallReply { call, what: CallWhat::Join, crc: Call::of(call, CallWhat::Join, payload).crc, error };
        self.write(Kind::CallReply, payload, |out| reply.encode(out));
    }
}

fn seed() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    (listener, address)
}

fn told() -> Vec<u8> {
    let joined = Joined {
        cluster_id: [0xC1; 16],
        generation: 0,
        index: LogIndex(5),
        term: Term(2),
        voters: vec![ReplicaId(1)],
        learners: vec![ReplicaId(2)],
        state: vec![1, 2, 3],
    };
    joined.encode()
}

fn has(dir: &Path, name: &str) -> bool {
    dir.join(name).exists()
}

#[test]
fn a_node_joins_as_one_disk_whatever_is_lost_and_keeps_what_it_is_told() {
    let dir = temp_dir("joining");
    let (listener, address) = seed();
    let options = joining(&address);

    // The answer is lost, and the node with it.
    let mut process = Process::start(&mut options.command(dir.path()));
    let (_, first) = Seed::accept(&listener).hear();
    process.kill();
    assert!(first.disk != 0 && first.cluster.port != 0 && first.cluster.shard_ports == [first.cluster.port]);
    assert_eq!((first.node, first.generation, first.rack.as_str(), first.cluster.host.as_str()), (2, 0, "b2", "127.0.0.1"));
    assert!(!has(dir.path(), "node") && has(dir.path(), "joining"));

    // A start that would begin another cluster is refused meanwhile.
    let mut alone = Options::default();
    alone.arguments.extend(["--node-id".into(), "2".into()]);
    let (code, text) = refused(dir.path(), &alone);
    assert!(code == 1 && text.contains("start with --join again"), "{text}");

    let mut process = Process::start(&mut options.command(dir.path()));
    let mut seed = Seed::accept(&listener);
    let (call, second) = seed.hear();
    assert_eq!(second.disk, first.disk);
    seed.answer(call, &told());
    wait_for(&mut process, "joined cluster c1c1c1c1");
    process.kill();
    let identity = std::fs::read_to_string(dir.path().join("node")).expect("the identity");
    for line in ["node = 2", &format!("cluster = \"{}\"", "c1".repeat(16)), &format!("disk = \"{:016x}\"", first.disk), "generation = 0"] {
        assert!(identity.lines().any(|found| found == line), "{line} in {identity}");
    }
    assert_eq!(std::fs::read(dir.path().join("joined")).expect("what was told"), told());
    assert!(!has(dir.path(), "joining"));

    // Later starts ask whether that is the cluster, and go on: also without an answer.
    let mut process = Process::start(&mut options.command(dir.path()));
    let mut seed = Seed::accept(&listener);
    let greet = |frame: node::Frame<'_>| {
        let hello = Hello::decode(frame.meta).expect("a hello");
        assert_eq!((hello.from_node, hello.from_generation, hello.cluster_id), (2, 0, [0xC1; 16]));
    };
    seed.read(Kind::Hello, greet);
    seed.write(Kind::HelloReply, &[], |out| HelloReply { boot: 1, feature: 1, window: 1, groups: List::of(&[]) }.encode(out));
    wait_for(&mut process, "is of this node's cluster");
    process.kill();
    let mut process = Process::start(&mut options.command(dir.path()));
    // Its hello is read before: a connection that is closed over unread bytes is broken, not closed.
    Seed::accept(&listener).read(Kind::Hello, greet);
    wait_for(&mut process, "is passed over: it closed the connection");
    process.kill();

    // Where it is another one, the start ends: nobody knows which of the two is meant.
    let refusing = std::thread::spawn(move || {
        for refusal in [Refusal::OtherCluster, Refusal::Removed] {
            let mut seed = Seed::accept(&listener);
            seed.read(Kind::Hello, greet);
            seed.write(Kind::Refused, &[], |out| Refused::new(refusal, refusal.sentence()).encode(out));
            let _ = seed.stream.read_to_end(&mut Vec::new());
        }
    });
    for expected in ["start without --join, or on an empty --data-dir", "let it join again on an empty --data-dir"] {
        let (code, text) = refused(dir.path(), &options);
        assert!(code == 1 && text.contains(expected), "{text}");
    }
    refusing.join().expect("the seed was asked twice");
    assert!(has(dir.path(), "node"));

    // What stands there belongs to it alone.
    let other =
        Options { arguments: options.arguments.iter().map(|a| if a == "2" { "3".into() } else { a.clone() }).collect(), ..options.clone() };
    let (code, text) = refused(dir.path(), &other);
    assert!(code == 1 && text.contains("belongs to node 2, this start is to be node 3"), "{text}");
    std::fs::write(dir.path().join("joined"), "not what was told").expect("damage");
    let (code, text) = refused(dir.path(), &options);
    assert!(code == 1 && text.contains("join again on an empty --data-dir"), "{text}");
}

#[test]
fn a_refusal_for_good_ends_the_start() {
    let dir = temp_dir("joining");
    let (listener, address) = seed();
    let refusing = std::thread::spawn(move || {
        let mut seed = Seed::accept(&listener);
        seed.read(Kind::Hello, |_| ());
        seed.write(Kind::Refused, &[], |out| {
            Refused::new(Refusal::NoCommonFeature, Refusal::NoCommonFeature.sentence()).encode(out);
        });
        let _ = seed.stream.read_to_end(&mut Vec::new());
    });
    let (code, text) = refused(dir.path(), &joining(&address));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the cluster does not take this node in") && text.contains("no feature level in common"), "{text}");
    assert!(!has(dir.path(), "node"));
    refusing.join().expect("the seed was asked");
}

#[test]
fn wrong_ports_are_told_while_it_is_tried_on_and_a_stop_is_orderly() {
    let dir = temp_dir("joining");
    let node = Node::start();
    let (listener, closed) = seed();
    drop(listener);
    let seeds = format!("{},{},{closed}", node.ready.client, node.ready.admin);
    let mut process = Process::start(&mut joining(&seeds).command(dir.path()));
    wait_for(&mut process, "this port is for clients (listen)");
    wait_for(&mut process, "check that the address is a cluster port of a node");
    wait_for(&mut process, &format!("no connection to {closed}"));
    process.signal("TERM");
    assert_eq!(process.wait(WAIT).code(), Some(0), "{}", process.stderr());
    assert!(process.stderr().contains("it asks again when it is started again") && !has(dir.path(), "node"));
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_asked() {
    for (arguments, expected) in [
        (&["--join", "127.0.0.1:7700"][..], "say --cluster-listen HOST:7700 too"),
        (&["--join", "broker-1"], "'broker-1' is not HOST:PORT of another node"),
        (&["--cluster-listen", "0.0.0.0:7700", "--advertise", "broker-1"], "which is no IP address"),
        (&["--node-id", "0"], "outside of 1 to 1000000"),
        (&["--rack", "row 7"], "is not the name of a rack"),
    ] {
        let dir = temp_dir("joining");
        let mut options = Options::default();
        options.arguments.extend(arguments.iter().map(|a| a.to_string()));
        let (code, text) = refused(dir.path(), &options);
        assert!(code == 1 && text.contains(expected), "{text}");
    }
}
