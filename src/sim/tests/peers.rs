//! Connections between nodes: dialing, frames both ways, numbers, limits, room, closing, and processes that are killed or paused.

use super::driver::{Bench, Heard, at, params};
use crate::sim::peer_pipe::WINDOW_BYTES;
use crate::sim::peers::{ECONNREFUSED, shard_at};
use crate::sim::totals::Event as Counted;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{Kind, begin};

fn bench(seed: u64, nodes: usize) -> Bench {
    Bench::new(seed, params(seed, nodes))
}

#[test]
fn addresses_lead_to_shards() {
    for (address, found) in [
        ("10.0.0.1:7700", Some((0, 0))),
        ("10.0.0.5:7701", Some((4, 1))),
        ("10.0.0.0:7700", None),
        ("10.0.1.1:7700", None),
        ("10.0.0.1:7699", None),
        ("[::1]:7700", None),
    ] {
        let at = shard_at(address.parse().expect("an address"));
        assert_eq!(at.map(|at| (at.node, at.shard)), found, "{address}");
    }
}

#[test]
fn frames_go_both_ways_in_order_and_each_pair_of_nodes_has_its_connection() {
    let mut bench = bench(1, 3);
    let (a, b) = bench.connect(0, 1);
    let (_, c) = bench.connect(2, 1);
    assert_ne!(b, c);
    bench.driver(1).echoes = true;
    for what in 0..200 {
        bench.send(0, a, what);
        // Some of them meet on their way.
        bench.run(what % 7 * 20);
    }
    bench.run(10_000);
    let sent: Vec<u64> = (0..200).collect();
    assert_eq!(bench.driver(1).frames(), sent);
    assert_eq!(bench.driver(0).frames(), sent, "they come back");
    assert!(bench.driver(2).frames().is_empty());
    assert!(bench.driver(1).hears().contains(&Heard::Opened(b)));
    let sent_and_told = |heard: &Heard| matches!(heard, Heard::Sent { conn, queued_bytes: 0 } if *conn == a);
    assert!(bench.driver(0).hears().iter().any(sent_and_told), "who sends hears that it has gone out");
}

#[test]
fn a_large_frame_comes_in_pieces_and_is_one() {
    let mut bench = bench(2, 2);
    let (a, _) = bench.connect(0, 1);
    bench.send(0, a, 0);
    bench.send_with(0, a, 1, 16 << 20);
    bench.send_with(0, a, 2, 10);
    bench.run(1_000_000);
    let payloads = |heard: Heard| if let Heard::Frame { what, payload_bytes, .. } = heard { Some((what, payload_bytes)) } else { None };
    let came: Vec<_> = bench.driver(1).hears().into_iter().filter_map(payloads).collect();
    assert_eq!(came, [(0, 0), (1, 16 << 20), (2, 10)]);
}

#[test]
fn where_nobody_listens_a_dial_is_refused() {
    let mut bench = bench(3, 2);
    bench.world.end_process(1, false);
    bench.dial(0, 1, 9);
    bench.run(5000);
    assert_eq!(bench.driver(0).hears(), [Heard::DialFailed { dial: 9, errno: ECONNREFUSED }]);
    // A shard that the node does not have.
    bench.run(2_000_000);
    let address = "10.0.0.2:7701".parse().expect("an address");
    bench.does(0, |_, effects| effects.push(crate::effects::Effect::Dial { dial: 10, address }));
    bench.run(5000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::DialFailed { dial: 10, errno: ECONNREFUSED }));
}

#[test]
fn a_wrong_number_ends_the_connection_at_both_ends() {
    let mut bench = bench(4, 2);
    let (a, b) = bench.connect(0, 1);
    bench.send(0, a, 0);
    // The number of the first frame once more.
    let mut again = Vec::new();
    let start = begin(&mut again, Kind::Hello, 1);
    again.extend_from_slice(&[0; 8]);
    finish_frame(&mut again, start, 0).expect("small");
    bench.send_raw(0, a, &again);
    bench.send(0, a, 2);
    bench.run(5000);
    assert_eq!(bench.driver(1).frames(), [0]);
    assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)));
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
    assert_eq!(bench.world.totals.get(Counted::PeerFramesRefused), 1);
    // Another connection is numbered from 1 again.
    let (a, _) = bench.connect(0, 1);
    bench.send(0, a, 3);
    bench.run(5000);
    assert_eq!(bench.driver(1).frames(), [0, 3]);
}

#[test]
fn a_first_frame_is_held_to_narrower_limits_than_those_behind_it() {
    for (first_is_long, closed) in [(true, 1), (false, 0)] {
        let mut bench = bench(5, 2);
        let (a, _) = bench.connect(0, 1);
        if !first_is_long {
            bench.send(0, a, 0);
        }
        bench.send_long(0, a, 1, 65 << 10);
        bench.run(10_000);
        assert_eq!(bench.driver(1).frames().contains(&1), !first_is_long);
        assert_eq!((bench.driver(0).closed(), bench.driver(1).closed()), (closed, closed));
    }
}

#[test]
fn a_core_without_room_stops_its_sender_and_nothing_is_lost() {
    let mut bench = bench(6, 2);
    let (a, _) = bench.connect(0, 1);
    bench.driver(1).has_no_room = true;
    bench.send(0, a, 0);
    for what in 1..40 {
        bench.send_with(0, a, what, 50_000);
    }
    bench.run(1_000_000);
    assert!(bench.driver(1).frames().is_empty());
    let (queued_bytes, unread_bytes) = bench.queued_and_unread_bytes(a);
    assert!(unread_bytes <= WINDOW_BYTES && unread_bytes > WINDOW_BYTES / 2, "{unread_bytes} are on their way");
    assert!(queued_bytes > 39 * 50_000 - 2 * WINDOW_BYTES, "{queued_bytes} wait");
    let told = |heard: Heard| if let Heard::Sent { queued_bytes, .. } = heard { Some(queued_bytes) } else { None };
    let last_told = bench.driver(0).hears().into_iter().filter_map(told).next_back();
    assert_eq!(last_told, Some(queued_bytes), "who sends is told what waits");

    // One try without room changes nothing; with room everything comes.
    bench.does(1, |_, effects| effects.push(crate::effects::Effect::Unblock));
    bench.world.end_of_turn(at(1));
    bench.run(100_000);
    assert_eq!(bench.queued_and_unread_bytes(a), (queued_bytes, unread_bytes));
    bench.driver(1).has_no_room = false;
    bench.does(1, |_, effects| effects.push(crate::effects::Effect::Unblock));
    bench.world.end_of_turn(at(1));
    bench.run(100_000);
    assert_eq!(bench.driver(1).frames(), (0..40).collect::<Vec<_>>());
    assert_eq!(bench.queued_and_unread_bytes(a), (0, 0));
}

#[test]
fn what_was_sent_before_a_close_arrives_before_it() {
    let mut bench = bench(7, 2);
    let (a, b) = bench.connect(0, 1);
    bench.send(0, a, 0);
    bench.send_with(0, a, 1, 2 * WINDOW_BYTES);
    bench.close(0, a);
    bench.send(0, a, 2);
    bench.run(100_000);
    assert_eq!(bench.driver(1).frames(), [0, 1]);
    assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)));
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
    assert!(bench.world.peers.wires.is_empty() && bench.world.peers.conns.is_empty(), "nothing is left of it");
}

#[test]
fn a_close_that_nobody_reads_for_is_given_up() {
    let mut bench = bench(8, 2);
    let (a, b) = bench.connect(0, 1);
    bench.driver(1).has_no_room = true;
    bench.send(0, a, 0);
    bench.send_with(0, a, 1, 2 * WINDOW_BYTES);
    bench.close(0, a);
    bench.run(4_900_000);
    assert_eq!(bench.driver(0).closed(), 0);
    bench.run(200_000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
    // Who had no room learns of it behind what he has.
    bench.driver(1).has_no_room = false;
    bench.does(1, |_, effects| effects.push(crate::effects::Effect::Unblock));
    bench.world.end_of_turn(at(1));
    assert_eq!(bench.driver(1).frames(), [0]);
    assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)));
}

#[test]
fn a_kill_loses_an_end_of_what_was_sent_and_is_told() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut bench = bench(seed, 2);
        let (a, b) = bench.connect(0, 1);
        let back = bench.driver(1).conn();
        bench.send(0, a, 0);
        for what in 1..400 {
            bench.send_with(0, a, what, 3000);
        }
        bench.run(100);
        bench.world.end_process(0, false);
        bench.send(1, back, 1000);
        bench.run(200_000);
        let came = bench.driver(1).frames();
        assert_eq!(came, (0..came.len() as u64).collect::<Vec<_>>(), "seed {seed}: a beginning of what was sent");
        assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)), "seed {seed}");
        assert_eq!(bench.driver(1).closed(), 1);
        lost += u64::from(came.len() < 400);
        // The next process knows nothing of it, and can be reached.
        bench.run(1_000_000);
        assert_eq!(bench.driver(0).hears(), []);
        let (_, again) = bench.connect(1, 0);
        assert_eq!(bench.driver(0).hears(), [Heard::Opened(again)]);
        assert_eq!(bench.world.peers.wires.len(), 1, "nothing is left of the old one");
    }
    assert!(lost > 15, "{lost} of 20 seeds lost something");
}

#[test]
fn a_paused_process_hears_nothing_and_then_everything() {
    let mut bench = bench(9, 2);
    let (a, b) = bench.connect(0, 1);
    bench.send(0, a, 0);
    bench.run(1000);
    let before = bench.driver(1).hears();
    bench.world.pause(1, 8_000_000);
    for what in 1..100 {
        bench.send(0, a, what);
    }
    bench.dial(0, 1, 7);
    bench.run(7_900_000);
    assert_eq!(bench.driver(1).hears(), before);
    assert_eq!(bench.driver(0).closed(), 0, "longer than any time-out of a kernel: its machine answers");
    let second = bench.driver(0).conn();
    assert_ne!(second, a, "its machine accepts as well");
    bench.close(0, a);
    bench.run(200_000);
    assert_eq!(bench.driver(1).frames(), (0..100).collect::<Vec<_>>());
    assert_eq!(bench.driver(1).closed(), 1);
    assert!(bench.driver(1).hears().contains(&Heard::Closed(b)));
    assert!(bench.driver(1).hears().iter().any(|heard| matches!(heard, Heard::Opened(conn) if *conn != b)));
    assert_eq!(bench.world.totals.get(Counted::Pauses), 1);
}

#[test]
fn a_paused_sender_goes_on_where_it_was() {
    let mut bench = bench(10, 2);
    let (a, _) = bench.connect(0, 1);
    bench.send(0, a, 0);
    bench.send_with(0, a, 1, 4 * WINDOW_BYTES);
    bench.world.pause(0, 300_000);
    bench.run(290_000);
    let (queued_bytes, unread_bytes) = bench.queued_and_unread_bytes(a);
    assert!(queued_bytes >= 3 * WINDOW_BYTES && unread_bytes == 0, "what its kernel had is read, and {queued_bytes} bytes wait");
    bench.run(300_000);
    assert_eq!(bench.driver(1).frames(), [0, 1]);
    assert_eq!(bench.queued_and_unread_bytes(a), (0, 0));
}

#[test]
fn who_was_paused_while_its_dial_was_answered_hears_of_both_ends_of_the_connection() {
    let mut bench = bench(12, 2);
    bench.dial(0, 1, 4);
    bench.run(20);
    bench.world.pause(0, 2_000_000);
    bench.run(5000);
    let b = bench.driver(1).conn();
    bench.send(1, b, 0);
    bench.run(5000);
    bench.world.end_process(1, false);
    bench.run(1_900_000);
    assert_eq!(bench.driver(0).hears(), []);
    bench.run(200_000);
    let a = bench.driver(0).conn();
    assert_eq!(
        bench.driver(0).hears(),
        [Heard::Dialed { dial: 4, conn: a }, Heard::Frame { conn: a, what: 0, payload_bytes: 0 }, Heard::Closed(a)]
    );
    assert!(bench.world.peers.wires.is_empty());
}

#[test]
fn a_process_that_ends_in_its_pause_stays_ended() {
    let mut bench = bench(11, 2);
    let (a, b) = bench.connect(0, 1);
    bench.world.pause(1, 10_000_000);
    bench.send(0, a, 0);
    bench.run(1000);
    bench.world.end_process(1, false);
    bench.run(2_000_000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
    assert_eq!(bench.driver(1).hears(), [], "what the old process was to hear, the next one does not");
    let (_, again) = bench.connect(0, 1);
    assert_ne!(again, b);
    bench.run(10_000_000);
    assert_eq!(bench.driver(1).closed(), 0, "the old pause does not end a second time");
}
