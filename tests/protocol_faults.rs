//! Bad input from the network: every malformed, oversized, hostile or merely wrong thing a client can send.
//!
//! In each test a second connection works before and after, the process stays alive, and where memory could be the victim
//! the node's resident memory stays within a bound. Frames are laid out by hand, since no client of ours would send these.

use common::layout::{self, FrameToSend, Put, Rec, at, code, kind, level};
use common::peer::{NoReply, Refusal, fetch_meta, produce_parts, read_fetched};
use common::{Node, Options, Peer, WAIT};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// A node, a bystander that has to stay unaffected, and a topic with one partition.
struct Scene {
    node: Node,
    bystander: Peer,
    uid: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(Options::default())
    }

    fn with(options: Options) -> Scene {
        let node = Node::with(options);
        let mut bystander = Peer::connect(node.ready.client);
        let uid = bystander.topic("t", 1, &[])[0].uid;
        bystander.put(uid, &[Rec::value("before")]);
        Scene { node, bystander, uid }
    }

    fn peer(&self) -> Peer {
        Peer::connect(self.node.ready.client)
    }

    /// The bystander's connection is as good as before, new ones are accepted, records are there.
    fn check_unaffected(&mut self) {
        self.bystander.ping();
        let offset = self.bystander.put(self.uid, &[Rec::value("after")]);
        assert_eq!(self.bystander.read_from(self.uid, offset).len(), 1);
        self.peer().ping();
        assert_eq!(self.node.http("/livez").0, 200);
    }
}

/// Sends bytes on a fresh connection that said hello; the broker must answer with this code and close.
fn check_refused_and_closed(scene: &Scene, what: &str, bytes: &[u8], codes: &[u16]) {
    let mut peer = scene.peer();
    peer.send_bytes(bytes).expect("the bytes fit into the socket's buffers");
    match peer.receive() {
        Ok(reply) => {
            let refusal = reply.refusal().unwrap_or_else(|| panic!("{what}: accepted: {reply:?}"));
            assert!(codes.contains(&refusal.code), "{what}: {refusal:?}, one of {codes:?} was expected");
            assert!(!refusal.message.is_empty(), "{what}: a sentence");
            assert_eq!(peer.receive().err(), Some(NoReply::Closed), "{what}: closed after the refusal");
        }
        Err(why) => panic!("{what}: no refusal: {why:?}"),
    }
}

fn ping() -> FrameToSend {
    FrameToSend::new(kind::PING, 7, Vec::new(), Vec::new())
}

#[test]
fn malformed_frames_are_refused_by_name_and_only_their_connection_ends() {
    let mut scene = Scene::new();
    let wrong_magic = FrameToSend { magic: *b"HTTP", ..ping() };
    check_refused_and_closed(&scene, "wrong magic", &wrong_magic.bytes(), &[code::MALFORMED]);
    check_refused_and_closed(
        &scene,
        "text of another protocol",
        b"GET / HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n",
        &[code::MALFORMED],
    );
    let wrong_checksum = FrameToSend { checksum_error: 1, ..ping() };
    check_refused_and_closed(&scene, "wrong checksum", &wrong_checksum.bytes(), &[code::CHECKSUM_MISMATCH]);
    let unknown_flags = FrameToSend { flags: 1 << 9, ..ping() };
    check_refused_and_closed(&scene, "unknown flags", &unknown_flags.bytes(), &[code::UNKNOWN_FLAG, code::MALFORMED]);
    let reserved = FrameToSend { reserved: 5, ..ping() };
    check_refused_and_closed(&scene, "reserved field in use", &reserved.bytes(), &[code::MALFORMED]);
    // A reply where requests go is a sound frame: refused, and the connection goes on.
    let mut peer = scene.peer();
    peer.send_bytes(&FrameToSend { flags: layout::REPLY, ..ping() }.bytes()).expect("a small frame");
    let refusal = peer.receive().expect("an answer").refusal().expect("a refusal");
    assert!([code::UNKNOWN_FLAG, code::MALFORMED, code::INVALID_REQUEST].contains(&refusal.code), "{refusal:?}");
    scene.check_unaffected();
}

#[test]
fn oversized_frames_and_a_declared_length_of_4_gib_are_refused_without_memory() {
    let mut scene = Scene::new();
    let before = scene.node.rss_kib();
    for (what, meta_len, payload_len) in [
        ("payload of 4 GiB", 0, u32::MAX),
        ("meta of 4 GiB", u32::MAX, 0),
        ("both of 4 GiB", u32::MAX, u32::MAX),
        ("meta above 1 MiB", (1 << 20) + 1, 0),
        ("payload above the broker's limit", 0, (8 << 20) + 1),
        ("payload above the protocol's limit", 0, (16 << 20) + 1),
    ] {
        let frame = FrameToSend { kind: kind::PRODUCE, meta_len: Some(meta_len), payload_len: Some(payload_len), ..ping() };
        check_refused_and_closed(&scene, what, &frame.bytes(), &[code::FRAME_TOO_LARGE]);
    }
    // Many at once, none of them closed by us: nothing is set aside for what was only announced.
    let held: Vec<Peer> = (0..100)
        .map(|_| {
            let mut peer = scene.peer();
            let announced = FrameToSend { kind: kind::PRODUCE, payload_len: Some(8 << 20), meta_len: Some(0), ..ping() };
            peer.send_bytes(&announced.bytes()).expect("32 bytes");
            peer
        })
        .collect();
    scene.check_unaffected();
    let grown = scene.node.rss_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more for 100 frames of 8 MiB that were announced and not sent");
    drop(held);
    scene.check_unaffected();
}

#[test]
fn unknown_versions_and_kinds_are_refused_by_name() {
    let mut scene = Scene::new();
    // Another version of the frame cannot be read on: refused and closed.
    let other = FrameToSend { version: 77, ..ping() };
    let mut peer = scene.peer();
    peer.send_bytes(&other.bytes()).expect("a small frame");
    let refusal = peer.receive().expect("an answer").refusal().expect("a refusal");
    assert_eq!(refusal.code, code::UNSUPPORTED_VERSION, "{refusal:?}");
    // An unknown kind in a sound frame: its own refusal, and the connection goes on.
    for unknown in [0u8, 18, 31, 41, 60, 63, 81, 95, 200, 255] {
        let mut peer = scene.peer();
        peer.send(unknown, Vec::new(), Vec::new());
        let refusal = peer.receive().expect("an answer").refusal().expect("a refusal");
        assert_eq!(refusal.code, code::UNKNOWN_KIND, "kind {unknown}: {refusal:?}");
    }
    // Protocol versions that do not overlap with ours.
    let mut peer = Peer::silent(scene.node.ready.client);
    let meta = Put::new().u16(40).u16(50).str("future").str("9").str("").bytes16(b"").0;
    let refusal = peer.call(kind::HELLO, meta, Vec::new()).expect_err("protocol 40 to 50");
    assert_eq!(refusal.code, code::UNSUPPORTED_VERSION);
    scene.check_unaffected();
}

#[test]
fn a_request_before_hello_is_refused() {
    let mut scene = Scene::new();
    let mut peer = Peer::silent(scene.node.ready.client);
    let refusal = peer.call(kind::METADATA, Put::new().u32(0).0, Vec::new()).expect_err("no hello yet");
    assert_eq!(refusal.code, code::HELLO_REQUIRED);
    scene.check_unaffected();
}

#[test]
fn truncated_frames_end_with_their_connection() {
    let mut scene = Scene::new();
    let batch = layout::batch(layout::TIME_US, &[Rec::value(vec![1; 2000])]);
    let (meta, payload) = produce_parts(level::DURABLE, &[(scene.uid, &batch)]);
    let whole = FrameToSend::new(kind::PRODUCE, 3, meta, payload).bytes();
    for len in [1, 3, 4, 31, 32, 33, 48, 100, whole.len() - 1] {
        let mut peer = scene.peer();
        peer.send_bytes(&whole[..len]).expect("part of a frame");
        // The end of our sending half is all the broker gets; it has nothing to answer and closes.
        peer.stream().shutdown(std::net::Shutdown::Write).expect("half a close");
        assert!(peer.receive().is_err(), "an answer to {len} bytes of a frame");
    }
    // Metas that are shorter or longer than their kind says, in frames that are sound.
    let good = Put::new().str("t").0;
    for (what, meta) in [
        ("shorter", good[..good.len() - 1].to_vec()),
        ("longer", [good.as_slice(), b"x"].concat()),
        ("empty", Vec::new()),
        ("a string that runs past the end", Put::new().u16(60_000).0),
    ] {
        let refusal = scene.peer().call(kind::DESCRIBE_TOPIC, meta, Vec::new()).expect_err(what);
        assert_eq!(refusal.code, code::MALFORMED, "{what}: {refusal:?}");
    }
    // A list that declares four thousand million entries.
    let refusal = scene.peer().call(kind::METADATA, Put::new().u32(u32::MAX).0, Vec::new()).expect_err("a list without its entries");
    assert_eq!(refusal.code, code::MALFORMED);
    let refusal = scene
        .peer()
        .call(kind::PRODUCE, Put::new().u8(4).u8(0).u16(0).u32(1000).u32(u32::MAX).0, Vec::new())
        .expect_err("a list without its entries");
    assert_eq!(refusal.code, code::MALFORMED);
    scene.check_unaffected();
}

#[test]
fn half_a_frame_and_then_silence_is_cut_off_after_the_timeout() {
    let mut scene = Scene::with(Options::default().set("partial.frame.timeout", "500ms"));
    let frame = ping().bytes();
    for len in [1, 16, 31] {
        let mut peer = scene.peer();
        let sent = Instant::now();
        peer.send_bytes(&frame[..len]).expect("half a frame");
        match peer.receive() {
            Err(NoReply::Closed) => {}
            Ok(reply) => {
                assert_eq!(reply.refusal().map(|r| r.code), Some(code::TIMED_OUT), "{reply:?}");
                assert_eq!(peer.receive().err(), Some(NoReply::Closed));
            }
            Err(NoReply::Silence) => panic!("{len} bytes of a frame keep a connection open"),
        }
        assert!(sent.elapsed() >= Duration::from_millis(400), "cut off after {:?}, before its time", sent.elapsed());
    }
    // A header whose body never comes.
    let mut peer = scene.peer();
    peer.send_bytes(&FrameToSend { kind: kind::PRODUCE, meta_len: Some(100), payload_len: Some(1000), ..ping() }.bytes())
        .expect("a header");
    loop {
        match peer.receive() {
            Err(why) => break assert_eq!(why, NoReply::Closed),
            Ok(reply) => assert!(reply.refusal().is_some(), "{reply:?}"),
        }
    }
    // A connection without half a frame is left alone for much longer.
    scene.check_unaffected();
}

#[test]
fn a_client_that_never_reads_its_replies_costs_a_bounded_amount() {
    let mut scene = Scene::with(Options::default().set("memory.bytes", "96MiB"));
    let uid = scene.bystander.topic("big", 1, &[("retention.ms", "-1")])[0].uid;
    let batch = layout::batch(layout::TIME_US, &[Rec::value(vec![3; 900_000])]);
    for _ in 0..64 {
        let results = scene.bystander.produce(level::LEADER, &[(uid, &batch)]).expect("produce");
        assert_eq!(results[0].error, 0);
    }
    let before = scene.node.rss_kib();
    // Streams with a large credit, and one-shot fetches sent until the socket takes no more; nothing is ever read.
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut peer = scene.peer();
        peer.send(kind::FETCH, fetch_meta(1, 1000, 1, 64 << 20, &[(uid, 0, 1 << 20)]), Vec::new());
        let one_shot =
            FrameToSend::new(kind::FETCH, 9, fetch_meta(0, 0, 1, 1 << 20, &[(uid, 0, 1 << 20)]), Vec::new()).bytes().repeat(1000);
        fill_socket(&mut peer, &one_shot);
        held.push(peer);
    }
    // While they hold on, others read the same data.
    assert_eq!(scene.bystander.read_from(uid, 0).len(), 64);
    scene.check_unaffected();
    let grown = scene.node.rss_kib().saturating_sub(before);
    // The shard's budget, what was received and not yet taken, and the allocator's share.
    assert!(grown < 160 << 10, "{grown} KiB more for 16 clients that do not read");
    drop(held);
    scene.check_unaffected();
}

/// Writes until the socket takes nothing more for a while or all is written.
fn fill_socket(peer: &mut Peer, bytes: &[u8]) {
    let stream = peer.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a write timeout");
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            // Cutting such a client off is as good.
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(e) => panic!("writing failed: {e}"),
        }
    }
    stream.set_write_timeout(Some(WAIT)).expect("a write timeout");
}

#[test]
fn producers_above_the_memory_budget_are_slowed_not_buffered() {
    // 48 MiB is the least a shard can have; 24 clients push 6 MiB frames without pause, 50 frames each.
    let mut scene =
        Scene::with(Options::default().set("memory.bytes", "48MiB").set("tail.cache.bytes", "8MiB").set("receive.bytes.max", "16MiB"));
    let uid = scene.bystander.topic("flood", 1, &[("batch.max.bytes", "4194304"), ("retention.ms", "-1")])[0].uid;
    let start = scene.node.rss_kib();
    let address = scene.node.ready.client;
    const CLIENTS: usize = 24;
    const FRAMES: usize = 6;
    let batches: Vec<Vec<u8>> = (0..6).map(|n| layout::batch(layout::TIME_US, &[Rec::value(vec![n; 950_000])])).collect();
    let mut peak = start;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let batches = &batches;
                scope.spawn(move || {
                    let mut peer = Peer::connect(address);
                    let entries: Vec<(u64, &[u8])> = batches.iter().map(|b| (uid, b.as_slice())).collect();
                    let mut reader = peer.split();
                    // All requests are sent before the first answer is awaited, by another thread, so that pushing back cannot deadlock the test.
                    std::thread::scope(|inner| {
                        inner.spawn(move || {
                            for _ in 0..FRAMES {
                                peer.send_produce(level::LEADER, &entries);
                            }
                        });
                        let mut done = 0;
                        let mut pushed_back = 0;
                        while done < FRAMES {
                            let reply = reader.receive().unwrap_or_else(|e| panic!("after {done} answers: {e:?}"));
                            match reply.refusal() {
                                // A retriable refusal is back-pressure too.
                                Some(Refusal { retriable: true, .. }) => pushed_back += 1,
                                Some(refusal) => panic!("{refusal:?}"),
                                None => assert!(
                                    common::peer::read_produced(&reply.meta).iter().all(|r| r.error == 0 || r.error == code::OVERLOADED)
                                ),
                            }
                            done += 1;
                        }
                        pushed_back
                    })
                })
            })
            .collect();
        // Looks at the memory while they push, between answers to the bystander: it is served all the time.
        while workers.iter().any(|w| !w.is_finished()) {
            scene.bystander.ping();
            peak = peak.max(scene.node.rss_kib());
        }
        for worker in workers {
            worker.join().expect("a client");
        }
    });
    let grown = peak.saturating_sub(start) >> 10;
    assert!(grown < 160, "{grown} MiB more at the peak: a budget of 48 MiB, while {} MiB were pushed", CLIENTS * FRAMES * 6);
    scene.check_unaffected();
}

fn produce_error(scene: &Scene, uid: u64, batch: &[u8]) -> u16 {
    let mut peer = scene.peer();
    let error = match peer.produce(level::DURABLE, &[(uid, batch)]) {
        Ok(results) => results[0].error,
        Err(refusal) => refusal.code,
    };
    // A refused batch is no reason to end the connection.
    peer.ping();
    error
}

#[test]
fn bad_batches_are_refused_one_by_one_with_their_reason() {
    let mut scene = Scene::new();
    let good = layout::batch(layout::TIME_US, &[Rec::value("a"), Rec::value("b")]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut batch = good.clone();
        change(&mut batch);
        layout::seal(&mut batch);
        batch
    };
    let mut flipped = good.clone();
    *flipped.last_mut().expect("a value") ^= 1;
    for (what, batch, codes) in [
        ("body changed after the checksum", flipped, vec![code::CHECKSUM_MISMATCH, code::BAD_BATCH]),
        ("unknown codec", changed(&|b| b[at::CODEC] = 9), vec![code::UNKNOWN_CODEC]),
        ("unknown batch flag", changed(&|b| b[at::FLAGS + 1] = 0x40), vec![code::UNKNOWN_FLAG]),
        ("a client's control batch", changed(&|b| b[at::FLAGS] = 1), vec![code::BAD_BATCH, code::UNKNOWN_FLAG, code::INVALID_REQUEST]),
        ("unknown record flag", changed(&|b| b[layout::BATCH_HEADER_BYTES + 1] = 0x80), vec![code::UNKNOWN_FLAG, code::BAD_BATCH]),
        ("wrong magic", changed(&|b| b[0] = b'X'), vec![code::BAD_BATCH]),
        ("unknown version", changed(&|b| b[4] = 9), vec![code::BAD_BATCH, code::UNSUPPORTED_VERSION]),
        ("unknown checksum kind", changed(&|b| b[6] = 9), vec![code::BAD_BATCH]),
        ("no records", changed(&|b| b[at::RECORD_COUNT..at::RECORD_COUNT + 4].fill(0)), vec![code::BAD_BATCH]),
        ("more records than there are", changed(&|b| b[at::RECORD_COUNT] = 3), vec![code::BAD_BATCH]),
        ("offsets with a hole", changed(&|b| b[layout::BATCH_HEADER_BYTES + 12 + 2] = 5), vec![code::BAD_BATCH]),
        ("lengths that do not add up", changed(&|b| b[at::VALUES_LEN] ^= 1), vec![code::BAD_BATCH]),
        (
            "4 GiB of values declared",
            changed(&|b| b[at::VALUES_LEN..at::VALUES_LEN + 4].fill(0xFF)),
            vec![code::BAD_BATCH, code::BATCH_TOO_LARGE, code::RECORD_TOO_LARGE],
        ),
        ("only a header's part", good[..50].to_vec(), vec![code::BAD_BATCH, code::MALFORMED]),
        ("an offset chosen by the producer", changed(&|b| b[at::BASE_OFFSET] = 9), vec![code::BAD_BATCH]),
    ] {
        let error = produce_error(&scene, scene.uid, &batch);
        assert!(codes.contains(&error), "{what}: code {error}, one of {codes:?} was expected");
    }
    // Compressed sections that claim to unpack into far more than a record may be.
    for codec in [1u8, 2, 3] {
        let bomb = changed(&|b| {
            b[at::CODEC] = codec;
            b[at::VALUES_LEN..at::VALUES_LEN + 4].copy_from_slice(&(3u32 << 30).to_le_bytes());
        });
        let error = produce_error(&scene, scene.uid, &bomb);
        assert!(
            [code::RECORD_TOO_LARGE, code::BATCH_TOO_LARGE, code::BAD_BATCH].contains(&error),
            "codec {codec}, 3 GiB declared: {error}"
        );
    }
    // The good one next to a bad one, in one request: each has its own result.
    let other = scene.bystander.topic("other", 1, &[])[0].uid;
    let mut bad = good.clone();
    *bad.last_mut().expect("a value") ^= 1;
    let results = scene.peer().produce(level::DURABLE, &[(scene.uid, &bad), (other, &good)]).expect("a mixed request is answered");
    let error_of = |uid| results.iter().find(|r| r.partition_uid == uid).expect("a result for each").error;
    assert!(error_of(scene.uid) != 0 && error_of(other) == 0, "{results:?}");
    // What was refused left no trace.
    assert!(scene.bystander.read_from(scene.uid, 0).iter().all(|r| r.value == Some(b"before".to_vec())));
    scene.check_unaffected();
}

#[test]
fn records_and_batches_above_the_limits_are_refused() {
    let mut scene = Scene::new();
    let small = scene.bystander.topic("small", 1, &[("record.max.bytes", "1000"), ("batch.max.bytes", "4096")])[0].uid;
    let of = |len: usize, count: usize| layout::batch(layout::TIME_US, &vec![Rec::value(vec![5; len]); count]);
    assert_eq!(produce_error(&scene, small, &of(1000, 1)), 0);
    assert_eq!(produce_error(&scene, small, &of(1001, 1)), code::RECORD_TOO_LARGE);
    assert_eq!(produce_error(&scene, small, &of(900, 5)), code::BATCH_TOO_LARGE);
    // The defaults: a record of 1 MiB is above a topic's limit, a key of 5 KiB above the node's.
    assert_eq!(produce_error(&scene, scene.uid, &of(1_000_001, 1)), code::RECORD_TOO_LARGE);
    let long_key = layout::batch(layout::TIME_US, &[Rec { key: Some(vec![b'k'; 5000]), ..Rec::value("v") }]);
    assert_eq!(produce_error(&scene, scene.uid, &long_key), code::RECORD_TOO_LARGE);
    let many = Rec { headers: (0..65).map(|n| (format!("h{n}"), vec![1])).collect(), ..Rec::value("v") };
    let error = produce_error(&scene, scene.uid, &layout::batch(layout::TIME_US, &[many]));
    assert!([code::RECORD_TOO_LARGE, code::LIMIT_EXCEEDED, code::BAD_BATCH].contains(&error), "65 headers: {error}");
    scene.check_unaffected();
}

#[test]
fn unknown_names_numbers_and_settings_are_refused_by_name() {
    let mut scene = Scene::new();
    let mut peer = scene.peer();
    // Topics.
    let code_of = |result: Result<(), Refusal>| result.expect_err("it does not exist").code;
    assert_eq!(code_of(peer.delete_topic("nowhere")), code::UNKNOWN_TOPIC);
    assert_eq!(code_of(peer.alter_topic("nowhere", 0, &[("retention.ms", "1")])), code::UNKNOWN_TOPIC);
    assert_eq!(code_of(peer.call(kind::DESCRIBE_TOPIC, Put::new().str("nowhere").0, Vec::new()).map(|_| ())), code::UNKNOWN_TOPIC);
    let (_, topics) = peer.metadata(&["nowhere", "t"]);
    let error_of = |name: &str| topics.iter().find(|t| t.name == name).expect("an answer for each").error;
    assert_eq!((error_of("nowhere"), error_of("t")), (code::UNKNOWN_TOPIC, 0));
    // Partitions.
    let unknown = 0x1234_5678_9ABC;
    assert_eq!(produce_error(&scene, unknown, &layout::batch(layout::TIME_US, &[Rec::value("v")])), code::UNKNOWN_PARTITION);
    let fetched = peer.fetch(unknown, 0, 1000, 0);
    assert_eq!(fetched.map_or_else(|r| r.code, |f| f.error), code::UNKNOWN_PARTITION);
    assert_eq!(peer.list_offset(unknown, -1).0, code::UNKNOWN_PARTITION);
    // Offsets beyond the end.
    let fetched = peer.fetch(scene.uid, 1_000_000, 1000, 0);
    assert_eq!(fetched.map_or_else(|r| r.code, |f| f.error), code::OFFSET_OUT_OF_RANGE);
    // Levels, fetch modes, streams.
    let batch = layout::batch(layout::TIME_US, &[Rec::value("v")]);
    assert_eq!(scene.peer().produce(9, &[(scene.uid, &batch)]).map_or_else(|r| r.code, |r| r[0].error), code::UNKNOWN_LEVEL);
    let refusal = scene.peer().call(kind::FETCH, fetch_meta(7, 0, 1, 1000, &[(scene.uid, 0, 1000)]), Vec::new()).expect_err("mode 7");
    assert!([code::INVALID_REQUEST, code::MALFORMED].contains(&refusal.code), "{refusal:?}");
    let refusal = scene.peer().call(kind::FETCH_CANCEL, Put::new().u64(4711).0, Vec::new()).expect_err("no such stream");
    assert_eq!(refusal.code, code::UNKNOWN_STREAM);
    // Settings.
    assert_eq!(peer.create_topic("a", 1, &[("no.such.setting", "1")]).expect_err("unknown").code, code::UNKNOWN_SETTING);
    assert_eq!(peer.create_topic("a", 1, &[("retention.ms", "soon")]).expect_err("not a number").code, code::INVALID_SETTING);
    assert_eq!(peer.create_topic("a", 1, &[("visible.at", "never")]).expect_err("not a word of it").code, code::INVALID_SETTING);
    assert_eq!(code_of(peer.alter_topic("t", 0, &[("no.such.setting", "1")])), code::UNKNOWN_SETTING);
    scene.check_unaffected();
}

#[test]
fn producing_to_a_deleted_topic_is_refused_also_on_an_old_connection() {
    let mut scene = Scene::new();
    let mut old = scene.peer();
    let uid = old.topic("gone", 1, &[])[0].uid;
    old.put(uid, &[Rec::value("v")]);
    scene.bystander.delete_topic("gone").expect("it exists");
    let batch = layout::batch(layout::TIME_US, &[Rec::value("late")]);
    let gone = [code::TOPIC_DELETED, code::UNKNOWN_PARTITION];
    let error = old.produce(level::DURABLE, &[(uid, &batch)]).map_or_else(|r| r.code, |r| r[0].error);
    assert!(gone.contains(&error), "produce: {error}");
    let error = old.fetch(uid, 0, 1000, 0).map_or_else(|r| r.code, |f| f.error);
    assert!(gone.contains(&error), "fetch: {error}");
    // A topic of the same name is another topic: old identities stay refused, the new one starts empty.
    let new = old.topic("gone", 1, &[])[0].uid;
    assert_ne!(new, uid, "identities are never used again");
    let error = old.produce(level::DURABLE, &[(uid, &batch)]).map_or_else(|r| r.code, |r| r[0].error);
    assert!(gone.contains(&error), "produce after the name came back: {error}");
    assert_eq!(old.put(new, &[Rec::value("fresh")]), 0);
    scene.check_unaffected();
}

#[test]
fn a_stream_ends_by_cancel_and_respects_its_credit() {
    let mut scene = Scene::new();
    let uid = scene.bystander.topic("s", 1, &[])[0].uid;
    for _ in 0..40 {
        scene.bystander.put(uid, &[Rec::value(vec![9; 50_000])]);
    }
    let mut peer = scene.peer();
    let stream = peer.send(kind::FETCH, fetch_meta(1, 0, 1, 200_000, &[(uid, 0, 1 << 20)]), Vec::new());
    let mut bytes = 0;
    // The credit runs out long before the data: then silence.
    loop {
        match peer.receive_within(Duration::from_millis(1500)) {
            Ok(reply) => {
                assert!(reply.correlation == stream && reply.more(), "{:?}", reply.refusal());
                assert!(
                    reply.payload.len() <= 128 << 10 || read_fetched(&reply)[0].batches.len() == 1,
                    "{} bytes in a fetch frame",
                    reply.payload.len()
                );
                bytes += reply.payload.len();
            }
            Err(NoReply::Silence) => break,
            Err(NoReply::Closed) => panic!("closed"),
        }
    }
    // The last batch may pass the credit by less than itself.
    assert!((100_000..=200_000 + 51_000).contains(&bytes), "{bytes} bytes for a credit of 200000");
    peer.send(kind::FETCH_CREDIT, Put::new().u64(stream).u32(100_000).0, Vec::new());
    let reply = peer.receive().expect("more for more credit");
    assert!(reply.correlation == stream && !reply.payload.is_empty());
    let cancel = peer.send(kind::FETCH_CANCEL, Put::new().u64(stream).0, Vec::new());
    let (mut cancelled, mut ended) = (false, false);
    while !(cancelled && ended) {
        let reply = peer.receive().expect("the answer to the cancel and the stream's last reply");
        assert_eq!(reply.refusal(), None);
        if reply.correlation == cancel {
            cancelled = true;
        } else {
            assert_eq!(reply.correlation, stream);
            ended = !reply.more();
        }
    }
    peer.ping();
    scene.check_unaffected();
}

#[test]
fn random_bytes_never_hurt() {
    let mut scene = Scene::new();
    let mut dice = common::Dice(common::seed());
    let before = scene.node.rss_kib();
    for round in 0..200 {
        let mut bytes: Vec<u8> = (0..dice.in_range(1, 600)).map(|_| dice.roll() as u8).collect();
        if round % 2 == 0 {
            // Half of them get through the frame checks, so that the decoders behind are reached.
            let kind = dice.in_range(1, 16) as u8;
            let meta_len = dice.in_range(0, bytes.len() as u64 + 1) as usize;
            let payload = bytes.split_off(meta_len);
            bytes = FrameToSend::new(kind, round, bytes, payload).bytes();
        }
        let mut peer = scene.peer();
        // Whatever comes back, it comes: a refusal, an answer, or the end.
        if peer.send_bytes(&bytes).is_ok() {
            let _ = peer.stream().shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            match peer.stream().read_to_end(&mut rest) {
                Ok(_) => {}
                Err(e) => assert!(!matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "round {round}: the connection hangs"),
            }
        }
    }
    scene.check_unaffected();
    let grown = scene.node.rss_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more after 200 connections that are gone");
}

#[test]
fn silent_connections_are_closed_after_the_idle_timeout_and_busy_ones_are_not() {
    let mut scene = Scene::with(Options::default().set("connection.idle.timeout", "2s").set("keepalive.interval", "1s"));
    let mut silent = scene.peer();
    let hello = silent.hello.as_ref().expect("hello was answered");
    assert_eq!((hello.keepalive_ms, hello.idle_timeout_ms), (1000, 2000), "clients are told");
    let mut never_spoke = Peer::silent(scene.node.ready.client);
    let mut busy = scene.peer();
    let started = Instant::now();
    // Pings keep the busy one open, well past the timeout, while the others end.
    while started.elapsed() < Duration::from_secs(4) {
        busy.ping();
        scene.bystander.ping();
        scene.node.process.watch_quietly(Duration::from_millis(200));
    }
    for peer in [&mut silent, &mut never_spoke] {
        loop {
            match peer.receive() {
                Err(why) => break assert_eq!(why, NoReply::Closed),
                Ok(reply) => assert!(reply.refusal().is_some(), "{reply:?}"),
            }
        }
    }
    scene.check_unaffected();
}

#[test]
fn connections_above_the_limit_are_told_why_and_room_comes_back() {
    let node = Node::with(Options::default().set("connections.max", "8"));
    let mut held: Vec<Peer> = (0..8).map(|_| Peer::connect(node.ready.client)).collect();
    let mut above = Peer::silent(node.ready.client);
    match above.receive() {
        Ok(reply) => {
            let refusal = reply.refusal().expect("a refusal");
            assert!([code::LIMIT_EXCEEDED, code::OVERLOADED].contains(&refusal.code), "{refusal:?}");
            assert_eq!(above.receive().err(), Some(NoReply::Closed));
        }
        Err(why) => panic!("not told why: {why:?}"),
    }
    for peer in &mut held {
        peer.ping();
    }
    held.pop();
    // The broker learns of the end a moment after us: connecting is tried until it is taken.
    let until = Instant::now() + WAIT;
    loop {
        let mut next = Peer::silent(node.ready.client);
        let hello = Put::new().u16(1).u16(1).str("tests").str("0").str("").bytes16(b"").0;
        let taken = next.send_bytes(&FrameToSend::new(kind::HELLO, 1, hello, Vec::new()).bytes()).is_ok()
            && next.receive().is_ok_and(|reply| reply.refusal().is_none());
        if taken {
            break;
        }
        assert!(Instant::now() < until, "no room although a connection ended");
    }
}
