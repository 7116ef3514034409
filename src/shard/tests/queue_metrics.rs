//! What a shard tells of its queues and consumer groups when it is asked for its numbers.

use super::queue_messages::{PLAIN, a_queue, ack, create_queue, pass_ms, receive, send, send_with, settle};
use super::world::World;
use crate::metrics::labelled::QueueNumbers;
use crate::metrics::{Interval, ShardSnapshot, snapshot_request};
use tramline_wire::batch::Attributes;
use tramline_wire::kind::Kind;
use tramline_wire::queue::{DeleteQueueRequest, QueueStart, SettleAction};

pub(super) fn snapshot(world: &mut World) -> ShardSnapshot {
    let (request, mut pending) = snapshot_request(Some(Box::new(Interval::new())));
    world.shard.snapshot(world.now, 0, request);
    pending.try_take().expect("a shard answers at once")
}

#[test]
fn everything_that_happens_to_messages_is_counted() {
    let (mut world, queue, uid) = a_queue(&[("visibility.timeout.ms", "1000"), ("retry.initial.ms", "60000"), ("max.deliveries", "2")]);
    send(&mut world, uid, &[b"0", b"1", b"2", b"3", b"4", b"5"]);
    let twins = [(&b"6"[..], Attributes { message_id: Some(b"id"), ..PLAIN }), (b"7", Attributes { message_id: Some(b"id"), ..PLAIN })];
    send_with(&mut world, uid, &twins);
    send_with(&mut world, uid, &[(b"8", Attributes { ttl_ms: Some(100), ..PLAIN })]);
    world.settle();
    world.replies.clear();
    let got = receive(&mut world, queue, &[uid], 6);
    world.pass(200_000);
    let actions = [SettleAction::Ack, SettleAction::Nack, SettleAction::Reject, SettleAction::Release, SettleAction::Extend];
    let delays = [0, 60_000, 0, 0, 5_000];
    let entries: Vec<_> = got.iter().zip(actions).zip(delays).map(|((got, action), delay_ms)| (got, action, delay_ms)).collect();
    assert!(settle(&mut world, queue, &entries).iter().all(|error| error.is_ok()));
    pass_ms(&mut world, 900);
    // 3 was released and 5 came back when its lease was over; the twin of 6 is none of the queue's, and 8 has expired.
    let again = receive(&mut world, queue, &[uid], 9);
    assert_eq!(again.iter().map(|got| (got.offset, got.deliveries)).collect::<Vec<_>>(), [(3, 1), (5, 2), (6, 1)]);
    let told = snapshot(&mut world);
    let c = &told.counters;
    assert_eq!((c.queue_received, c.queue_acked, c.queue_nacked, c.queue_rejected), (9, 1, 1, 1));
    assert_eq!((c.queue_released, c.queue_extended, c.queue_lease_expired, c.queue_redelivered), (1, 1, 1, 1));
    assert_eq!((c.queue_expired, c.queue_duplicates), (1, 1));
    let oldest_age_us = 1_100_000;
    let expected = QueueNumbers { name: "q".into(), ready: 0, leased: 4, delayed: 1, dead: 1, oldest_age_us };
    assert_eq!(told.labelled.queues, [expected]);
    assert!(told.gauges.memory_queues > 6 * 32 && told.gauges.queue_receives_waiting == 0 && told.gauges.queues_left_out == 0);
    let held = told.interval.expect("asked for").queue_ack;
    assert_eq!((held.count(), held.sum_ns()), (1, 200_000_000));
}

#[test]
fn counters_outlive_their_queue() {
    let (mut world, queue, uid) = a_queue(&[("visibility.timeout.ms", "1000"), ("retry.initial.ms", "0")]);
    send(&mut world, uid, &[b"a"]);
    receive(&mut world, queue, &[uid], 1);
    pass_ms(&mut world, 1_010);
    let got = receive(&mut world, queue, &[uid], 1);
    ack(&mut world, queue, &got);
    assert_eq!(snapshot(&mut world).counters.queue_redelivered, 1);
    let asked = world.request(Kind::DeleteQueue, &[], |out| DeleteQueueRequest { name: "q" }.encode(out));
    world.settle();
    world.reply_to(asked);
    let told = snapshot(&mut world);
    assert_eq!((told.counters.queue_redelivered, told.counters.queue_lease_expired), (1, 1));
    assert!(told.labelled.queues.is_empty());
}

#[test]
fn queues_beyond_the_limit_share_a_line() {
    let mut world = World::new();
    world.create_topic("t", 5, &[]);
    let uids = world.uids("t");
    // 4,000 parts are looked at: 800 queues with five each.
    for n in 0..803 {
        create_queue(&mut world, &format!("q{n:04}"), "t", QueueStart::Latest, &[]);
    }
    send(&mut world, uids[3], &[b"a", b"b"]);
    let told = snapshot(&mut world);
    assert_eq!((told.labelled.queues.len(), told.gauges.queues_left_out), (801, 3));
    let others = told.labelled.queues.last().expect("a line");
    assert_eq!((others.name.as_str(), others.ready, others.oldest_age_us), ("", 6, 0));
    assert!(told.labelled.queues[..800].iter().all(|queue| queue.ready == 2));
}
