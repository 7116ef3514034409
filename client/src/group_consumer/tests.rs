//! A member over real sockets, against the fake broker in a thread: what is committed when, and where it begins.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tramline_wire::error::ErrorCode;

use crate::fake::tcp::FakeServer;
use crate::{Client, Error, GroupConfig, GroupConsumer, OffsetReset, ProducerConfig, Record, Start};

/// Longer than anything here takes; a test that fails waits for it, none that passes does.
const LONG: Duration = Duration::from_secs(20);

/// A broker with a topic of one partition and ten records, which the next member may own.
fn server() -> (FakeServer, Client, u64) {
    let server = FakeServer::start();
    let client = Client::connect(server.config()).expect("the fake broker answers");
    client.create_topic("t", 1, &[], false).expect("created");
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for number in 0..10u64 {
        producer.send(&Record { topic: "t", value: Some(&number.to_le_bytes()), ..Record::default() }).expect("taken");
        producer.flush(LONG).expect("acknowledged"); // a batch each
    }
    let uid = server.broker().topics[0].partitions[0];
    server.broker().group.next_list = vec![(uid, 5)];
    (server, client, uid)
}

fn config() -> GroupConfig {
    GroupConfig { auto_commit_interval: Duration::from_millis(10), ..GroupConfig::new("g", &["t"]) }
}

/// Polls once something has come: the offsets.
fn next(member: &mut GroupConsumer, count: usize) -> Result<Vec<u64>, Error> {
    let mut got = Vec::new();
    member.poll_until(LONG, |record| {
        got.push(record.offset);
        if got.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(got)
}

#[test]
fn what_was_handed_out_is_committed_once_poll_is_called_again() {
    let (server, client, uid) = server();
    let mut member = client.group_consumer(config()).expect("a member");
    assert_eq!(next(&mut member, 4).expect("records"), [0, 1, 2, 3]);
    // Whatever time goes by: they may be worked on. On a machine so slow that a commit was due before the first of them had come, where it began is committed: 0.
    let committed = || server.broker().group.offsets.get(&uid).and_then(|of| of.offset);
    let before = Instant::now();
    while before.elapsed() < Duration::from_millis(50) {
        assert_eq!(committed().unwrap_or(0), 0);
        std::thread::yield_now();
    }
    assert_eq!(next(&mut member, 2).expect("records"), [4, 5]);
    // These two are not done yet; the four before them are on their way.
    while committed().unwrap_or(0) == 0 {
        assert!(before.elapsed() < LONG, "nothing is committed");
        std::thread::yield_now();
    }
    assert_eq!(committed(), Some(4));
    member.close(LONG).expect("left");
    assert_eq!(committed(), Some(6), "closing says that all is done");
}

#[test]
fn who_stops_to_commit_by_itself_leaves_the_rest_to_others() {
    let (server, client, uid) = server();
    // Not by itself before it is told to stop, however slow this machine is.
    let config = GroupConfig { auto_commit_interval: LONG * 60, ..config() };
    let mut member = client.group_consumer(config).expect("a member");
    assert_eq!(next(&mut member, 4).expect("records").len(), 4);
    member.stop_auto_commit();
    member.close(LONG).expect("left");
    assert_eq!(server.broker().group.offsets[&uid].offset, None);
    assert_eq!(server.broker().group.left, [(1, false)]);
}

#[test]
fn an_offset_that_is_gone_is_left_for_where_the_settings_say() {
    for (reset, first) in [(OffsetReset::Earliest, Some(5)), (OffsetReset::None, None)] {
        let (server, client, uid) = server();
        server.broker().group.offsets.entry(uid).or_default().offset = Some(2);
        server.broker().log(uid).log_start = 5;
        let mut member = client.group_consumer(GroupConfig { auto_offset_reset: reset, ..config() }).expect("a member");
        match (next(&mut member, 1), first) {
            (Ok(got), Some(first)) => assert_eq!(got, [first]),
            (Err(error), None) => assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange)),
            (other, _) => panic!("{reset:?}: {other:?}"),
        }
    }
}

#[test]
fn without_an_offset_and_a_rule_it_waits_until_somebody_seeks() {
    let (_server, client, _) = server();
    let mut member = client.group_consumer(GroupConfig { auto_offset_reset: OffsetReset::None, ..config() }).expect("a member");
    let error = next(&mut member, 1).expect_err("nothing is committed").to_string();
    assert!(error.contains("group g has no committed offset of topic t partition 0") && error.contains("auto_offset_reset"), "{error}");
    assert_eq!((member.assigned().len(), member.position("t", 0)), (1, None));
    member.seek("t", 0, Start::Offset(7)).expect("sought");
    assert_eq!(next(&mut member, 3).expect("records"), [7, 8, 9]);
    member.commit_sync().expect("committed");
    assert_eq!(member.committed("t", &[0]).expect("told"), [Some(10)]);
}
