//! Tests of joining against hand-made nodes of a cluster, one connection after the other.
//!
//! Not here: what the directory keeps (`data_dir/tests.rs`), the real binary (tests/joining.rs).

use super::*;
use crate::control::Endpoint;
use crate::ids::{LogIndex, ReplicaId, Term};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use tramline_wire::error::{ErrorBody, ErrorCode};
use tramline_wire::frame::{Limits, finish_frame};
use tramline_wire::node::{self, CLUSTER_NONE, Call, CallReply, CallWhat, Class, Hello, HelloReply, Kind, Need, Numbers, Refusal, Refused};
use tramline_wire::prim::List;

/// What a hand-made node does with one connection.
enum Step {
    /// Answers the hello with this feature level, and the call with what is made of the command.
    Serve(u32, fn(Command) -> Reply),
    /// Hears the hello of a node of this cluster and generation, and answers it.
    Greet([u8; 16], u32),
    /// Refuses the hello.
    Refuse(Refusal, &'static str),
    /// Says this, whatever comes.
    Say(&'static [u8]),
    /// Answers the call of another one.
    Confuse,
    /// Says nothing, until the other end closes.
    Nothing,
    /// Accepts and closes.
    Close,
}

enum Reply {
    Joined(Joined),
    Bytes(Vec<u8>),
    Error(u16, bool, &'static str, String),
}

fn told(cluster: u8) -> Joined {
    Joined {
        cluster_id: [cluster; 16],
        generation: 0,
        index: LogIndex(5),
        term: Term(2),
        voters: vec![ReplicaId(1)],
        learners: vec![ReplicaId(2)],
        // More than one read, and more than a hello may have.
        state: vec![1; 300_000],
    }
}

fn take_in(command: Command) -> Reply {
    let Command::Cluster(command) = command else { panic!("{command:?}") };
    let ClusterCommand::AddNode(added) = *command else { panic!("{command:?}") };
    assert_eq!(*added, spec());
    Reply::Joined(told(7))
}

fn spec() -> NodeSpec {
    let endpoint = |port| Endpoint { host: "127.0.0.1".into(), port, shard_ports: vec![port + 1] };
    NodeSpec {
        node: 2,
        disk: 0xD15C,
        generation: 0,
        shards: 1,
        groups_per_shard: 4,
        rack: "b".into(),
        cluster: endpoint(7),
        client: endpoint(9),
        feature_min: 1,
        feature_max: 1,
    }
}

/// One end of a connection, frame by frame.
struct End {
    stream: TcpStream,
    received: Vec<u8>,
    sent: Numbers,
    expected: Numbers,
}

impl End {
    fn read<T>(&mut self, kind: Kind, read: impl FnOnce(node::Frame<'_>) -> T) -> T {
        loop {
            match node::peek(&self.received, &Limits::PROTOCOL, &self.expected).unwrap() {
                Need::More(bytes) => {
                    let had = self.received.len();
                    self.received.resize(bytes, 0);
                    self.stream.read_exact(&mut self.received[had..]).unwrap();
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
        finish_frame(&mut out, start, payload.len()).unwrap();
        out.extend_from_slice(payload);
        self.stream.write_all(&out).unwrap();
    }

    fn serve(&mut self, feature: u32, answer: fn(Command) -> Reply, call_number: u64) {
        self.read(Kind::Hello, |frame| {
            let hello = Hello::decode(frame.meta).unwrap();
            assert_eq!((hello.class, hello.cluster_id, hello.boot, hello.from_node), (Class::Calls, CLUSTER_NONE, 77, 2));
            assert_eq!((hello.to_node, hello.to_generation, hello.from_generation, hello.to_shard), (0, 0, 0, 0));
            assert_eq!((hello.feature_min, hello.feature_max, hello.feature_level, hello.view_epoch), (1, 1, 0, 0));
            assert!(hello.groups.is_empty());
        });
        self.write(Kind::HelloReply, &[], |out| HelloReply { boot: 1, feature, window: 1, groups: List::of(&[]) }.encode(out));
        if feature != 1 {
            return;
        }
        let (call, command) = self.read(Kind::Call, |frame| {
            let call = Call::decode(frame.meta).unwrap();
            call.check(frame.payload).unwrap();
            assert_eq!(call.what, CallWhat::Join);
            (call.call, Command::decode(frame.payload).unwrap())
        });
        let (payload, code, retriable, message, next) = match answer(command) {
            Reply::Joined(joined) => (joined.encode(), 0, false, "", String::new()),
            Reply::Bytes(bytes) => (bytes, 0, false, "", String::new()),
            Reply::Error(code, retriable, message, next) => (Vec::new(), code, retriable, message, next),
        };
        let error = ErrorBody { code, retriable, message, next: &next };
        let reply = CallReply { call: call * call_number, what: CallWhat::Join, crc: crc32c::crc32c(&payload), error };
        self.write(Kind::CallReply, &payload, |out| reply.encode(out));
    }
}

/// A hand-made node that takes one connection per step. Joining its thread tells that all steps were used.
fn seed(steps: Vec<Step>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        for step in steps {
            let (stream, _) = listener.accept().unwrap();
            let mut end = End { stream, received: Vec::new(), sent: Numbers::new(), expected: Numbers::new() };
            match step {
                Step::Serve(feature, answer) => end.serve(feature, answer, 1),
                Step::Greet(cluster_id, generation) => {
                    end.read(Kind::Hello, |frame| {
                        let hello = Hello::decode(frame.meta).unwrap();
                        assert_eq!((hello.class, hello.cluster_id, hello.from_generation), (Class::Calls, cluster_id, generation));
                        assert_eq!((hello.from_node, hello.to_node, hello.to_generation), (2, 0, 0));
                    });
                    end.write(Kind::HelloReply, &[], |out| {
                        HelloReply { boot: 1, feature: 1, window: 1, groups: List::of(&[]) }.encode(out);
                    });
                }
                Step::Confuse => end.serve(1, take_in, 2),
                Step::Refuse(refusal, message) => {
                    end.read(Kind::Hello, |_| ());
                    end.write(Kind::Refused, &[], |out| Refused::new(refusal, message).encode(out));
                }
                Step::Say(bytes) => end.stream.write_all(bytes).unwrap(),
                Step::Nothing | Step::Close => {}
            }
            if !matches!(step, Step::Close) {
                // Until the other end has read the answer: closing before that could lose it.
                let _ = end.stream.read_to_end(&mut Vec::new());
            }
        }
    });
    (address, thread)
}

/// With time enough for any machine.
fn ask(seeds: &[String]) -> Result<Told, JoinError> {
    let wait = Duration::from_secs(60);
    let times = Times { all: wait, connect: wait, silence: wait, pause: Duration::from_millis(1) };
    join(&Asking { seeds, spec: spec(), cluster_id: CLUSTER_NONE, boot: 77, times, is_stopped: &|| false })
}

fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn text(outcome: Result<Told, JoinError>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn a_seed_that_takes_the_node_in_is_believed() {
    let (seed, thread) = seed(vec![Step::Serve(1, take_in)]);
    let answer = ask(std::slice::from_ref(&seed)).unwrap();
    assert_eq!(answer, Told { by: seed, bytes: told(7).encode(), joined: told(7) });
    thread.join().unwrap();
}

#[test]
fn what_may_pass_is_tried_again_until_it_has_passed() {
    let retriable = |_: Command| Reply::Error(ErrorCode::NotLeader.as_u16(), true, "nobody leads yet", String::new());
    let (seed, thread) = seed(vec![
        Step::Close,
        Step::Refuse(Refusal::NotServing, "starting"),
        Step::Say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        Step::Confuse,
        Step::Serve(1, retriable),
        Step::Serve(1, take_in),
    ]);
    assert_eq!(ask(&[closed_port(), seed]).unwrap().joined, told(7));
    thread.join().unwrap();
}

#[test]
fn the_leader_is_asked_where_a_seed_names_it() {
    // A function pointer carries no address, so the leader's goes by a variable of the test.
    static LEADER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let send_on = |_: Command| Reply::Error(ErrorCode::NotLeader.as_u16(), true, "", LEADER.get().unwrap().clone());
    let (leader, leading) = seed(vec![Step::Serve(1, take_in)]);
    LEADER.set(leader.clone()).unwrap();
    let (follower, following) = seed(vec![Step::Serve(1, send_on)]);
    assert_eq!(ask(&[follower]).unwrap().by, leader);
    leading.join().unwrap();
    following.join().unwrap();
}

#[test]
fn a_seed_that_only_sends_on_is_left_after_some_hops() {
    static SELF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let to_itself = |_: Command| Reply::Error(ErrorCode::NotLeader.as_u16(), true, "", SELF.get().unwrap().clone());
    let (round, running) = seed((0..JOIN_HOPS_MAX).map(|_| Step::Serve(1, to_itself)).collect());
    SELF.set(round.clone()).unwrap();
    let (other, serving) = seed(vec![Step::Serve(1, take_in)]);
    assert_eq!(ask(&[round, other.clone()]).unwrap().by, other);
    running.join().unwrap();
    serving.join().unwrap();
}

#[test]
fn what_was_decided_ends_the_start_with_its_sentence() {
    let other_disk =
        |_: Command| Reply::Error(ErrorCode::InvalidRequest.as_u16(), false, "node 2 is in the cluster with another disk", String::new());
    let unknown = |_: Command| Reply::Error(9999, false, "", String::new());
    let not_stored = |_: Command| Reply::Bytes(b"nothing that was stored".to_vec());
    let nobody = |_: Command| Reply::Joined(told(0));
    for (step, parts) in [
        (Step::Refuse(Refusal::NoCommonFeature, "update the older one"), &["update the older one"][..]),
        (Step::Refuse(Refusal::Removed, "clear its data directory"), &["clear its data directory"]),
        (Step::Serve(2, take_in), &["feature level 2, this node 1 to 1", "install the version of the other nodes"]),
        (Step::Serve(1, other_disk), &["node 2 is in the cluster with another disk"]),
        (Step::Serve(1, unknown), &["error 9999"]),
        (Step::Serve(1, not_stored), &["stored metadata is damaged", "install the version"]),
        (Step::Serve(1, nobody), &["it names no cluster"]),
    ] {
        let (seed, thread) = seed(vec![step]);
        let refusal = text(ask(std::slice::from_ref(&seed)));
        assert!(refusal.starts_with(&format!("the cluster does not take this node in; {seed} says: ")), "{refusal}");
        assert!(parts.iter().all(|part| refusal.contains(part)), "{refusal}");
        thread.join().unwrap();
    }
}

#[test]
fn when_the_time_is_over_each_seed_and_its_last_reason_are_told() {
    let (silent, _waits) = seed(vec![Step::Nothing]);
    // A label of more than 63 letters is no name, whoever is asked.
    let seeds = [closed_port(), format!("{}:7700", "x".repeat(70)), "127.0.0.1:7".to_owned(), silent];
    let times = Times {
        all: Duration::from_millis(1),
        connect: Duration::from_secs(5),
        silence: Duration::from_millis(1),
        pause: Duration::from_millis(1),
    };
    let refusal = text(join(&Asking { seeds: &seeds, spec: spec(), cluster_id: CLUSTER_NONE, boot: 77, times, is_stopped: &|| false }));
    for (seed, why) in seeds.iter().zip(["no connection to", "the name is not found", "this is the node's own address", "no answer within"])
    {
        assert!(refusal.contains(&format!("{seed}: {why}")), "{refusal}");
    }
    assert!(refusal.contains("check the addresses"), "{refusal}");
}

#[test]
fn a_port_of_another_shard_is_told_as_one() {
    let (other, thread) = seed(vec![Step::Refuse(Refusal::NoSuchShard, Refusal::NoSuchShard.sentence())]);
    let refusal = text(ask(std::slice::from_ref(&other)));
    assert!(refusal.contains("the port of another one of its shards") && refusal.contains("--cluster-listen"), "{refusal}");
    thread.join().unwrap();
}

#[test]
fn a_node_that_is_to_stop_stops_asking() {
    let (silent, thread) = seed(vec![Step::Nothing]);
    let looks = std::cell::Cell::new(0);
    let is_stopped = || looks.replace(looks.get() + 1) > 1;
    let stopped = join(&Asking {
        seeds: &[silent],
        spec: spec(),
        cluster_id: CLUSTER_NONE,
        boot: 77,
        times: Times::default(),
        is_stopped: &is_stopped,
    });
    assert!(matches!(stopped, Err(JoinError::Stopped)));
    thread.join().unwrap();
}

/// Asks as a node that is in a cluster.
fn ask_as_known(seeds: &[String]) -> Result<(), JoinError> {
    let wait = Duration::from_secs(60);
    let times = Times { all: wait, connect: wait, silence: wait, pause: Duration::from_millis(1) };
    check_known(&Asking { seeds, spec: NodeSpec { generation: 1, ..spec() }, cluster_id: [9; 16], boot: 77, times, is_stopped: &|| false })
}

#[test]
fn a_node_with_a_cluster_says_which_and_is_content_with_one_answer() {
    let (closing, closed) = seed(vec![Step::Close]);
    let (busy, refused) = seed(vec![Step::Refuse(Refusal::NotServing, "starting")]);
    let (alike, greeted) = seed(vec![Step::Greet([9; 16], 1)]);
    // Whoever stands behind the one that answers is not asked.
    ask_as_known(&[closed_port(), closing, busy, alike, "127.0.0.1:7".to_owned()]).unwrap();
    [closed, refused, greeted].into_iter().for_each(|thread| thread.join().unwrap());
    ask_as_known(&[closed_port()]).unwrap();
}

#[test]
fn a_node_with_a_cluster_does_not_start_where_another_one_is_named_or_it_has_no_place() {
    let told = |step: Step| {
        let (seed, thread) = seed(vec![step]);
        let error = ask_as_known(std::slice::from_ref(&seed)).unwrap_err().to_string();
        thread.join().unwrap();
        (seed, error)
    };
    let (seed, error) = told(Step::Refuse(Refusal::OtherCluster, "of another cluster"));
    let parts = ["node 2 of cluster 0909", &format!("{seed}, which --join names"), "start without --join, or on an empty --data-dir"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let (seed, error) = told(Step::Refuse(Refusal::Removed, Refusal::Removed.sentence()));
    let parts = ["disk 2 of node 2", &format!("{seed} says: "), "let it join again on an empty --data-dir"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}
