//! Connections between nodes while ways are cut or machines have no power: silence, what comes after it, and what is given up.

use super::driver::{Bench, Heard, params};
use crate::sim::peer_pipe::WINDOW_BYTES;
use crate::sim::peers::{ETIMEDOUT, TIMEOUT_US};
use crate::sim::totals::Event as Counted;

fn bench(seed: u64) -> Bench {
    Bench::new(seed, params(seed, 3))
}

fn cut_both(bench: &mut Bench, one: usize, other: usize) {
    bench.world.cut_way(one, other);
    bench.world.cut_way(other, one);
}

fn heal_both(bench: &mut Bench, one: usize, other: usize) {
    bench.world.heal_way(one, other);
    bench.world.heal_way(other, one);
}

#[test]
fn a_cut_is_silent_and_what_was_sent_in_it_comes_in_order_when_it_is_mended() {
    for seed in 0..10 {
        let mut bench = bench(seed);
        let (a, b) = bench.connect(0, 1);
        let (c, _) = bench.connect(0, 2);
        bench.send(0, a, 0);
        // Some are on their way when it happens.
        (1..5).for_each(|what| bench.send(0, a, what));
        bench.run(40);
        cut_both(&mut bench, 0, 1);
        let (here, there) = (bench.driver(0).frames(), bench.driver(1).frames());
        for what in 5..50 {
            bench.send(0, a, what);
            bench.send(1, b, 1000 + what);
            bench.send(0, c, what);
            bench.run(50_000);
        }
        assert_eq!((bench.driver(0).frames(), bench.driver(1).frames()), (here, there), "seed {seed}: nothing comes through");
        assert_eq!((bench.driver(0).closed(), bench.driver(1).closed()), (0, 0), "nobody is told");
        assert_eq!(bench.driver(2).frames(), (5..50).collect::<Vec<_>>(), "others are not touched");
        heal_both(&mut bench, 0, 1);
        bench.run(3_000_000);
        assert_eq!(bench.driver(1).frames(), (0..50).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(bench.driver(0).frames(), (1005..1050).collect::<Vec<_>>(), "seed {seed}");
        // As before, and without the old time-out.
        bench.send(0, a, 50);
        bench.run(2 * TIMEOUT_US);
        assert_eq!(bench.driver(1).frames().last(), Some(&50));
        assert_eq!((bench.driver(0).closed(), bench.driver(1).closed()), (0, 0));
    }
}

#[test]
fn a_long_cut_ends_the_connection_for_who_sends_and_the_other_hears_when_it_sends() {
    let mut bench = bench(1);
    let (a, b) = bench.connect(0, 1);
    cut_both(&mut bench, 0, 1);
    bench.send(0, a, 0);
    bench.run(TIMEOUT_US - 10_000);
    assert_eq!(bench.driver(0).closed(), 0);
    bench.run(20_000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
    heal_both(&mut bench, 0, 1);
    bench.run(10 * TIMEOUT_US);
    assert_eq!(bench.driver(1).closed(), 0, "who sends nothing learns nothing");
    assert!(bench.driver(1).frames().is_empty());
    bench.send(1, b, 1);
    bench.run(10_000);
    assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)));
    assert_eq!(bench.world.totals.get(Counted::PeersTimedOut), 1);
    assert!(bench.world.peers.wires.is_empty());
}

#[test]
fn a_way_that_is_cut_in_one_direction_carries_the_other() {
    let mut bench = bench(2);
    let (a, b) = bench.connect(0, 1);
    bench.send(1, b, 0);
    bench.run(1000);
    bench.world.cut_way(0, 1);
    for what in 1..40 {
        bench.send(0, a, what);
        bench.send_with(1, b, what, 50_000);
        bench.run(10_000);
    }
    assert!(bench.driver(1).frames().is_empty());
    let came = bench.driver(0).frames();
    // That it was read is not heard at the other end, so no more than a window comes.
    assert!(came.len() > 3 && came.len() * 50_000 <= WINDOW_BYTES + 50_000, "{came:?}");
    bench.world.heal_way(0, 1);
    bench.run(2_000_000);
    assert_eq!(bench.driver(1).frames(), (1..40).collect::<Vec<_>>());
    assert_eq!(bench.driver(0).frames(), (0..40).collect::<Vec<_>>());
    assert_eq!((bench.driver(0).closed(), bench.driver(1).closed()), (0, 0));
}

#[test]
fn who_is_not_told_that_it_was_read_gives_up() {
    let mut bench = bench(3);
    let (a, b) = bench.connect(0, 1);
    bench.world.cut_way(0, 1);
    bench.send(1, b, 5);
    bench.run(TIMEOUT_US + 10_000);
    assert_eq!(bench.driver(0).frames(), [5], "it came");
    assert_eq!(bench.driver(1).hears().last(), Some(&Heard::Closed(b)));
    // The other end is told as soon as it sends something that arrives.
    assert_eq!(bench.driver(0).closed(), 0);
    bench.world.heal_way(0, 1);
    bench.send(0, a, 6);
    bench.run(10_000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
}

#[test]
fn a_dial_over_a_cut_is_tried_again_and_given_up() {
    let mut bench = bench(4);
    bench.world.cut_way(1, 0);
    bench.dial(0, 1, 8);
    bench.run(TIMEOUT_US - 10_000);
    assert_eq!(bench.driver(0).hears(), []);
    bench.run(20_000);
    assert_eq!(bench.driver(0).hears(), [Heard::DialFailed { dial: 8, errno: ETIMEDOUT }]);
    assert_eq!(bench.driver(1).hears(), [], "it never stood");

    bench.dial(0, 1, 9);
    bench.run(500_000);
    bench.world.heal_way(1, 0);
    bench.run(1_000_000);
    let conn = bench.driver(0).conn();
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Dialed { dial: 9, conn }));
    assert_eq!(bench.driver(1).hears().len(), 1, "one connection: {:?}", bench.driver(1).hears());
    assert_eq!(bench.world.peers.wires.len(), 1);
}

#[test]
fn a_machine_without_power_is_silent_until_it_has_power_and_something_comes() {
    for seed in 0..10 {
        let mut bench = bench(seed);
        let (a, _) = bench.connect(0, 1);
        let (c, _) = bench.connect(2, 1);
        bench.world.end_process(1, true);
        bench.send(0, a, 0);
        // It is down for 10 ms at least.
        bench.run(9000);
        assert_eq!((bench.driver(0).closed(), bench.driver(2).closed()), (0, 0), "seed {seed}");
        bench.run(4_000_000);
        assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)), "seed {seed}: a reset");
        assert_eq!(bench.driver(2).closed(), 0, "seed {seed}: who sends nothing learns nothing");
        bench.send(2, c, 1);
        bench.run(10_000);
        assert_eq!(bench.driver(2).hears().last(), Some(&Heard::Closed(c)), "seed {seed}");
        assert_eq!(bench.driver(1).hears(), [], "the next process knows nothing of them");
        assert!(bench.world.peers.wires.is_empty());
    }
}

#[test]
fn a_dial_to_a_machine_without_power_waits_for_it() {
    let mut bench = bench(5);
    bench.world.end_process(1, true);
    bench.dial(0, 1, 3);
    bench.run(9000);
    assert_eq!(bench.driver(0).hears(), []);
    bench.run(2_000_000);
    let conn = bench.driver(0).conn();
    assert_eq!(bench.driver(0).hears(), [Heard::Dialed { dial: 3, conn }]);
}

#[test]
fn a_reset_that_is_lost_in_a_cut_comes_when_something_is_sent_again() {
    let mut bench = bench(6);
    let (a, _) = bench.connect(0, 1);
    bench.world.cut_way(1, 0);
    bench.world.end_process(1, false);
    bench.run(1_000_000);
    assert_eq!(bench.driver(0).closed(), 0);
    bench.send(0, a, 0);
    bench.run(1_000_000);
    assert_eq!(bench.driver(0).closed(), 0, "nor does the answer to this come through");
    bench.world.heal_way(1, 0);
    bench.run(2_000_000);
    assert_eq!(bench.driver(0).hears().last(), Some(&Heard::Closed(a)));
}

#[test]
fn a_cut_for_a_time_mends_itself() {
    let mut bench = bench(7);
    let (a, _) = bench.connect(0, 1);
    bench.world.cut_way_for(0, 1, 1_000_000);
    bench.run(500_000);
    // A second one does not make it longer.
    bench.world.cut_way_for(0, 1, 3_000_000);
    bench.send(0, a, 0);
    bench.run(400_000);
    assert!(bench.driver(1).frames().is_empty());
    bench.run(2_000_000);
    assert_eq!(bench.driver(1).frames(), [0]);
    assert_eq!(bench.world.totals.get(Counted::WaysCut), 1);
}
