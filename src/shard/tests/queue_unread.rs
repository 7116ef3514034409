//! Messages of queues whose batches the disk does not give: once, and for good.

use super::queue_messages::{a_queue, create_queue, offsets, pass_ms, receive, send};
use super::world::World;
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::queue::{QueueStart, ReceiveReply, ReceiveRequest};

const EIO: i32 = 5;

/// Three messages that only the disk has.
fn cold(world: &mut World, uid: u64) {
    for value in [b"a", b"b", b"c"] {
        send(world, uid, &[value]);
    }
    world.create_topic("other", 1, &[]);
    let other = world.uids("other")[0];
    for _ in 0..40 {
        world.produce(other, Level::Durable, &[vec![1; 7_000]]);
        world.settle();
    }
    world.replies.clear();
}

#[test]
fn one_failed_read_settles_nothing_that_was_not_looked_at() {
    for times in [1, 5, 6] {
        let mut world = World::new();
        world.create_topic("t", 1, &[]);
        let uid = world.uids("t")[0];
        cold(&mut world, uid);
        // The queue begins before all of it, and has to read to look at it.
        world.disk.fail_next_read = Some(EIO);
        let queue = create_queue(&mut world, "q", "t", QueueStart::Earliest, &[]);
        assert!(world.disk.fail_next_read.is_none(), "the queue looks at once");
        for at in 1..6 {
            world.disk.fail_next_read = (times > at).then_some(EIO);
            pass_ms(&mut world, 1_100);
        }
        let found = offsets(&receive(&mut world, queue, &[uid], 9));
        // What failed six times is given up: all that one read brings.
        assert_eq!(found, if times < 6 { vec![0, 1, 2] } else { vec![] }, "{times} failures");
    }
}

#[test]
fn a_message_is_dead_only_if_it_cannot_be_read_again_and_again() {
    for times in [1, 5, 6] {
        let (mut world, queue, uid) = a_queue(&[]);
        cold(&mut world, uid);
        for at in 1..=times {
            world.disk.fail_next_read = Some(EIO);
            let (queue_uid, partitions) = (queue, List::of(std::slice::from_ref(&uid)));
            let ask = ReceiveRequest { queue_uid, max_messages: 1, max_bytes: 1, wait_ms: 0, visibility_ms: 0, consumer: "w", partitions };
            let asked = world.request(Kind::Receive, &[], |out| ask.encode(out));
            world.settle();
            let (meta, payload) = world.parts_of_reply_to(asked);
            let reply = ReceiveReply::decode(&meta).unwrap();
            let told: Vec<_> = reply.parts(&payload).unwrap().map(|(entry, _)| (entry.error, entry.deliveries.len())).collect();
            assert_eq!(told, if at < 6 { vec![] } else { vec![(ErrorCode::Damaged, 0)] }, "failure {at}");
            assert!(world.disk.fail_next_read.is_none());
            pass_ms(&mut world, 1_100);
        }
        let got = receive(&mut world, queue, &[uid], 9);
        assert!(got.iter().all(|got| got.deliveries == 1), "{got:?}");
        assert_eq!(offsets(&got), if times < 6 { vec![0, 1, 2] } else { vec![1, 2] }, "{times} failures");
    }
}
