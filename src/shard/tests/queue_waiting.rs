//! Receives that wait: who gets what when there are many of them, or when only one consumer may have anything.

use super::queue_messages::*;
use super::world::World;
use tramline_wire::queue::{QueueStart, SettleAction};

fn wait(world: &mut World, queue: u64, partitions: &[u64], consumer: &str) -> u64 {
    ask_receive(world, &Ask { queue, partitions, consumer, max: 1, wait_ms: 20_000 })
}

/// The last lease of the one that had the queue ends in a partition that has nothing more: whoever waits for another partition gets it.
#[test]
fn an_exclusive_queue_goes_to_whoever_waits_when_its_last_lease_ends() {
    for action in [SettleAction::Ack, SettleAction::Reject, SettleAction::Nack] {
        let mut world = World::new();
        world.create_topic("t", 2, &[]);
        let settings = [("exclusive", "true"), ("consumer.timeout.ms", "1000"), ("max.deliveries", "3")];
        let queue = create_queue(&mut world, "q", "t", QueueStart::Latest, &settings);
        let uids = world.uids("t");
        send(&mut world, uids[0], &[b"one"]);
        let held = receive_as(&mut world, queue, &uids, "a", 1);
        send(&mut world, uids[1], &[b"two"]);
        let waiting = wait(&mut world, queue, &uids, "b");
        pass_ms(&mut world, 2_000);
        assert!(taken(&mut world, waiting).is_none(), "it is another's as long as he has a lease");
        let ms = if action == SettleAction::Nack { 600_000 } else { 0 };
        assert_eq!(settle(&mut world, queue, &[(&held[0], action, ms)]), [tramline_wire::error::ErrorCode::Ok]);
        pass_ms(&mut world, 1_100);
        let got = taken(&mut world, waiting).unwrap_or_else(|| panic!("nothing after {action:?}"));
        assert_eq!(got[0].value, b"two");
    }
}

/// Hundreds who may have no more wait, more than one turn looks at: each of them gets the next message once it has settled one, and nobody else does.
#[test]
fn of_many_that_wait_each_gets_a_message_when_it_may_have_one() {
    const CONSUMERS: usize = 350;
    let (mut world, queue, uid) = a_queue(&[("max.in.flight.per.consumer", "1")]);
    for _ in 0..CONSUMERS {
        send(&mut world, uid, &[b"a", b"b"]);
    }
    let names: Vec<String> = (0..CONSUMERS).map(|n| format!("c{n}")).collect();
    let held: Vec<Got> = names.iter().map(|name| receive_as(&mut world, queue, &[uid], name, 1).remove(0)).collect();
    let waiting: Vec<u64> = names.iter().map(|name| wait(&mut world, queue, &[uid], name)).collect();
    world.settle();
    for n in [CONSUMERS - 1, 0, 175, 101] {
        ack(&mut world, queue, &held[n..=n]);
        pass_ms(&mut world, 1);
        assert_eq!(taken(&mut world, waiting[n]).unwrap_or_else(|| panic!("{n} got nothing")).len(), 1);
    }
    // Several at once, also of those that have had their turn when the next one settles.
    for n in [340, 5, 120] {
        ask_settle(&mut world, queue, &[(&held[n], SettleAction::Ack, 0)]);
        world.turn();
    }
    for _ in 0..20 {
        pass_ms(&mut world, 1);
    }
    for n in [340, 5, 120] {
        assert_eq!(taken(&mut world, waiting[n]).unwrap_or_else(|| panic!("{n} got nothing")).len(), 1);
    }
    let others = (0..CONSUMERS).filter(|n| ![CONSUMERS - 1, 0, 175, 101, 340, 5, 120].contains(n));
    assert!(others.into_iter().all(|n| taken(&mut world, waiting[n]).is_none()), "nobody else has settled anything");
    // Their waits end in time.
    pass_ms(&mut world, 21_000);
    assert_eq!(taken(&mut world, waiting[1]), Some(vec![]));
}
