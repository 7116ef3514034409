//! The scripts of `scripts/cluster/`: every verb does to real processes of the broker what it says, and `down` leaves nothing.
//!
//! Needs root; elsewhere it says aloud that it did not run. Nothing here sleeps: that packets arrive or vanish is counted, a slow disk is timed
//! from below, and what has to come has a minute.
//! Not here: what a cluster does about the faults.

use common::cluster::{Cluster, script};
use common::layout::{self, Rec, TIME_US, code};
use common::netns::inside;
use common::node::binary;
use common::peer::{NoReply, Refusal};
use common::{Peer, WAIT, not_run};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// How long is looked whether something comes that must not. A slow machine makes it only easier to pass.
const QUIET: Duration = Duration::from_millis(300);
const FOREVER: [(&str, &str); 2] = [("retention.bytes", "-1"), ("retention.ms", "-1")];

/// Produces one record of so many bytes at level `durable`.
fn put(peer: &mut Peer, uid: u64, bytes: usize) -> Result<u64, Refusal> {
    let batch = layout::batch(TIME_US, &[Rec::value(vec![b'x'; bytes])]);
    let produced = peer.produce(layout::level::DURABLE, &[(uid, &batch)])?;
    assert_eq!(produced[0].error, code::OK);
    Ok(produced[0].base_offset)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < limit, "{what} never came");
        std::thread::yield_now();
    }
}

/// A way that packets take from one node to another, beside the broker.
struct Way {
    from: UdpSocket,
    to: UdpSocket,
    got: u64,
}

impl Way {
    fn new(cluster: &Cluster, from: &str, to: &str) -> Way {
        let bind = |place: &str| inside(&cluster.namespace(place), || UdpSocket::bind(format!("10.7.0.{place}:0")).expect("a port"));
        let (from, to) = (bind(from), bind(to));
        from.connect(to.local_addr().expect("an address")).expect("a way");
        to.set_nonblocking(true).expect("it does not wait");
        let mut way = Way { from, to, got: 0 };
        // The first one waits for the neighbour's address.
        way.send(1);
        until("the first packet", || way.arrived() == 1);
        way.got = 0;
        way
    }

    fn send(&self, packets: u64) {
        (0..packets).for_each(|_| assert_eq!(self.from.send(b"packet").expect("a silent fault tells the sender nothing"), 6));
    }

    fn arrived(&mut self) -> u64 {
        while self.to.recv(&mut [0; 16]).is_ok() {
            self.got += 1;
        }
        self.got
    }
}

#[test]
fn every_verb_does_what_it_says_and_down_leaves_nothing() {
    let Some(cluster) = Cluster::up("every_verb_does_what_it_says_and_down_leaves_nothing", &[]) else { return };
    assert!(cluster.run(&["up", "--binary", binary()]).stderr.contains("is not empty"));
    let status = cluster.status();
    for pid in (1..=3).map(|node| status.of(node, "pid")) {
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs").trim(), "tramline");
    }
    type Part = (&'static str, fn(&Cluster));
    let parts: [Part; 8] = [
        ("kill, start", killed_and_started),
        ("stop, cont", stopped_and_continued),
        ("cut", cut),
        ("lossy", lossy),
        ("delay", delayed),
        ("slow-disk", slow_disk),
        ("fill-disk", full_disk),
        ("wrong usage", told_wrongly),
    ];
    for (name, part) in parts {
        let began = Instant::now();
        part(&cluster);
        // For whoever wonders why it takes so long on a busy machine.
        println!("{name}: {:?}", began.elapsed());
    }

    let status = cluster.status();
    // With a fault of each kind, a stopped node and a dead one.
    for arguments in [&["cut", "1", "2"][..], &["lossy", "1", "3", "5%"], &["delay", "2", "3", "1ms"], &["stop", "1"], &["kill", "2"]] {
        cluster.ok(arguments);
    }
    cluster.ok(&["down"]);
    assert_eq!(cluster.remains(), [""; 0]);
    for pid in (1..=3).map(|node| status.of(node, "pid")) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that has ended may be listed (Z) until the machine's first process looks.
        assert!(stat.is_empty() || stat.contains(") Z "), "a process is left: {stat}");
    }
    assert!(cluster.ok(&["down"]).contains("nothing to do"));
}

fn killed_and_started(cluster: &Cluster) {
    let mut peer = cluster.connect("client", 1);
    let uid = peer.topic("kept", 1, &FOREVER)[0].uid;
    assert_eq!(put(&mut peer, uid, 100), Ok(0));
    let before = cluster.status();
    cluster.ok(&["kill", "1"]);
    let dead = cluster.status();
    assert_eq!((dead.of(1, "state"), dead.of(1, "pid"), dead.of(2, "state")), ("dead", "none", "running"));
    assert_eq!(peer.receive().map(|_| ()), Err(NoReply::Closed), "its connections are gone");
    assert!(cluster.run(&["kill", "1"]).stderr.contains("does not run"));
    cluster.ok(&["start", "1"]);
    let after = cluster.status();
    assert!(after.of(1, "pid") != before.of(1, "pid") && after.of(1, "state") == "running");
    let mut peer = cluster.connect("client", 1);
    assert_eq!(peer.read_from(uid, 0).len(), 1, "the same directory");
    assert!(cluster.run(&["start", "1"]).stderr.contains("runs already"));
    // An orderly end, told in the log; the log of the first process is still there.
    cluster.ok(&["term", "1"]);
    cluster.ok(&["start", "1"]);
    assert_eq!(cluster.ok(&["logs", "1"]).matches("serving clients on 10.7.0.1:7410").count(), 3);
    // By the node's own address, so in the node's own namespace.
    let told = cluster.ok(&["exec", "1", "ip", "-brief", "address"]);
    assert!(told.contains("10.7.0.1/24") && !told.contains("10.7.0.2"), "{told}");
}

fn stopped_and_continued(cluster: &Cluster) {
    let mut peer = cluster.connect("client", 2);
    cluster.ok(&["stop", "2"]);
    assert_eq!(cluster.status().of(2, "state"), "stopped");
    peer.send(layout::kind::PING, Vec::new(), Vec::new());
    assert_eq!(peer.receive_within(QUIET).map(|_| ()), Err(NoReply::Silence));
    cluster.ok(&["cont", "2"]);
    assert_eq!(cluster.status().of(2, "state"), "running");
    assert_eq!(peer.receive().map(|reply| reply.kind), Ok(layout::kind::PING));
}

fn cut(cluster: &Cluster) {
    let (mut there, mut back) = (Way::new(cluster, "1", "2"), Way::new(cluster, "2", "1"));
    let mut peer = cluster.connect("1", 2);
    cluster.ok(&["cut", "1", "2", "--one-way"]);
    let status = cluster.status();
    assert_eq!((status.of(2, "cut_from"), status.of(1, "cut_from")), ("1", "none"));
    there.send(100);
    back.send(100);
    until("100 packets the other way", || back.arrived() == 100);
    until("100 dropped packets", || cluster.status().dropped(2) >= 100);
    assert_eq!((there.arrived(), cluster.status().dropped(1)), (0, 0));
    // A connection of the broker's is silent, not broken, and goes on when it heals.
    peer.send(layout::kind::PING, Vec::new(), Vec::new());
    assert_eq!(peer.receive_within(QUIET).map(|_| ()), Err(NoReply::Silence));
    cluster.ok(&["heal"]);
    assert_eq!(peer.receive().map(|reply| reply.kind), Ok(layout::kind::PING));

    cluster.ok(&["cut", "1", "2"]);
    back.send(100);
    until("100 dropped packets", || cluster.status().dropped(1) >= 100);
    assert_eq!(back.arrived(), 100, "none of the second hundred");
    cluster.ok(&["heal"]);

    // From the other nodes, not from clients.
    let (mut other, mut client) = (Way::new(cluster, "1", "2"), cluster.connect("client", 3));
    let mut lonely = Way::new(cluster, "3", "1");
    cluster.ok(&["isolate", "3"]);
    let status = cluster.status();
    assert_eq!((status.of(3, "cut_from"), status.of(1, "cut_from")), ("1,2", "3"));
    client.ping();
    lonely.send(10);
    other.send(10);
    until("10 packets between the others", || other.arrived() == 10);
    until("10 dropped packets", || cluster.status().dropped(1) >= 10);
    assert_eq!(lonely.arrived(), 0);
    cluster.ok(&["heal"]);
    lonely.send(10);
    until("10 packets after healing", || lonely.arrived() == 10);
}

fn lossy(cluster: &Cluster) {
    let mut way = Way::new(cluster, "1", "2");
    let mut peer = cluster.connect("1", 2);
    cluster.ok(&["lossy", "1", "2", "30%"]);
    let status = cluster.status();
    assert_eq!((status.of(2, "lossy_from"), status.of(1, "lossy_from")), ("1:3000", "2:3000"));
    // In small lots: what a socket holds has an end, and that would be a loss of another kind. Each packet arrives or is counted as dropped.
    for _ in 0..80 {
        way.send(10);
        way.arrived();
    }
    let mut lost = 0;
    until("each packet or its loss", || {
        lost = cluster.status().dropped(2);
        way.arrived() + lost >= 800
    });
    // 240 of 800 are lost, with a deviation of 13. What the nodes say to each other meanwhile is lost and counted as well.
    let arrived = way.arrived();
    assert!((485..=635).contains(&arrived) && arrived + lost >= 800, "{lost} lost, {arrived} arrived");
    // TCP comes through. With fewer losses: of 30 % both ways it may make ten seconds.
    cluster.ok(&["lossy", "1", "2", "2.5%"]);
    peer.ping();
    assert_eq!(cluster.status().of(2, "lossy_from"), "1:250");
    cluster.ok(&["lossy", "2", "1", "0%"]);
    let status = cluster.status();
    assert_eq!((status.of(2, "lossy_from"), status.of(1, "lossy_from")), ("none", "none"));
}

fn round_trip(peer: &mut Peer) -> Duration {
    let began = Instant::now();
    peer.ping();
    began.elapsed()
}

fn delayed(cluster: &Cluster) {
    let ms = Duration::from_millis;
    cluster.ok(&["delay", "1", "2", "40ms", "--jitter", "1ms", "--one-way"]);
    let status = cluster.status();
    assert_eq!((status.of(2, "delayed_from"), status.of(1, "delayed_from")), ("1:40ms+1ms", "none"));
    // Whoever opens the connection: one way of the two takes longer. Connections that stand are as they were, and so are others.
    let mut there = cluster.connect("1", 2);
    let (forth, back) = (round_trip(&mut there), round_trip(&mut cluster.connect("2", 1)));
    assert!(forth >= ms(40) && back >= ms(40), "{forth:?}, {back:?}");
    cluster.ok(&["delay", "1", "2", "80ms"]);
    let both = round_trip(&mut there);
    assert!(both >= ms(160), "{both:?}: at once, also where it stands");
    // A busy machine makes many round trips slow, a delay all of them.
    let mut other = cluster.connect("1", 3);
    until("a fast round trip to a node that is not delayed", || round_trip(&mut other) < ms(40));
    cluster.ok(&["heal"]);
    let mut healed = cluster.connect("1", 2);
    until("a fast round trip after healing", || round_trip(&mut healed) < ms(40));
}

fn slow_disk(cluster: &Cluster) {
    let mut peer = cluster.connect("client", 3);
    let uid = peer.topic("slow", 1, &FOREVER)[0].uid;
    let mut one = || {
        let began = Instant::now();
        assert!(put(&mut peer, uid, 500_000).is_ok());
        began.elapsed()
    };
    let ran = cluster.run(&["slow-disk", "3", "200000"]);
    if ran.code == 3 {
        return not_run("slow_disk", ran.stderr.trim());
    }
    assert_eq!(cluster.status().of(3, "disk"), "slow:200000");
    // 500,000 bytes at 200,000 a second: 2.5 s, less what the kernel gives in advance. Slower, and it would wait for the segment of 16 MiB that the
    // node may be preparing.
    let slow = one();
    assert!(slow > Duration::from_secs(2), "{slow:?}");
    // No disk is so slow by itself, however busy: some are far below.
    cluster.ok(&["normal-disk", "3"]);
    until("a fast write", || one() < slow / 2);
    let told = cluster.ok(&["slow-disk", "3", "20x"]);
    let numbers: Vec<u64> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|number| *number > 0), "{told}");
    cluster.ok(&["normal-disk", "3"]);
    assert_eq!(cluster.status().of(3, "disk"), "normal");
}

fn full_disk(cluster: &Cluster) {
    let mut peer = cluster.connect("client", 2);
    let uid = peer.topic("full", 1, &FOREVER)[0].uid;
    assert_eq!(put(&mut peer, uid, 100), Ok(0));
    cluster.ok(&["fill-disk", "2"]);
    assert_eq!(cluster.status().of(2, "disk"), "full");
    assert!(cluster.run(&["fill-disk", "2"]).stderr.contains("full already"));
    assert!(cluster.run(&["slow-disk", "2", "10x"]).stderr.contains("cannot be measured"));
    // What is prepared is used up first: three segments at most.
    let refusal = (0..200).find_map(|_| put(&mut peer, uid, 500_000).err()).expect("100 MB do not go onto a full disk");
    assert!(refusal.retriable && refusal.code == code::DISK_FULL, "{refusal:?}");
    let freed = cluster.ok(&["free-disk", "2"]);
    assert!(freed.contains("bytes are free") && cluster.status().of(2, "disk") == "normal", "{freed}");
    until("space", || put(&mut peer, uid, 500_000).is_ok());
}

fn told_wrongly(cluster: &Cluster) {
    for (arguments, words) in [
        (&["kill", "4"][..], "'4' is no node"),
        (&["stop", "client"], "'client' is no node"),
        (&["cut", "1", "1"], "two different nodes"),
        (&["cut", "1", "2", "--twice"], "does not know '--twice'"),
        (&["lossy", "1", "2", "101%"], "more than all"),
        (&["delay", "1", "2", "5"], "is no time"),
        (&["slow-disk", "1", "0"], "neither bytes per second"),
    ] {
        let ran = cluster.run(arguments);
        assert!(ran.code == 2 && ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_failed_up_says_why_and_down_removes_what_it_made() {
    let (cluster, ran) = Cluster::try_up(&["--nodes", "5", "--rack-each", "--disk", "268435456", "--binary", "/bin/false"]);
    if ran.code == 3 {
        return not_run("a_failed_up_says_why_and_down_removes_what_it_made", ran.stderr.trim());
    }
    assert!(ran.code == 1 && ran.stderr.contains("node 1 has ended") && ran.stderr.contains("remove it with:"), "{ran:?}");
    assert!(!cluster.remains().is_empty());
    cluster.ok(&["down"]);
    assert_eq!(cluster.remains(), [""; 0]);
}

#[test]
fn wrong_usage_is_refused_in_one_sentence_with_or_without_root() {
    for (arguments, words) in [
        (&[][..], "no verb"),
        (&["explode"], "unknown verb 'explode'"),
        (&["--dir"], "--dir needs a directory"),
        (&["--quickly", "up"], "unknown argument '--quickly'"),
        (&["up", "--nodes", "4"], "there can be 3 or 5"),
        (&["up", "--nodes"], "--nodes needs a value"),
        (&["up", "--disk", "1"], "no size of a disk"),
        (&["up", "--spin", "never"], "come behind --"),
        (&["status"], "which cluster?"),
        (&["down"], "which cluster?"),
    ] {
        let ran = script(arguments);
        assert!(ran.code == 2 && ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{arguments:?}: {ran:?}");
    }
    let help = script(&["--help"]).ok().text();
    assert!(help.contains("fill-disk N") && help.contains("Exit codes") && !help.contains("set -euo"), "{help}");
}
