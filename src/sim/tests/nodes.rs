//! Runs of several nodes, each of which is a cluster of one still; clocks; constant times.

use super::driver::{Bench, Heard, params};
use crate::bytes::Slab;
use crate::effects::{Effect, FileOp, Token, TokenRoom};
use crate::ids::FileId;
use crate::mutants::Mutants;
use crate::sim::params::Ruler;
use crate::sim::run::Run;
use crate::sim::totals::Event as Counted;
use crate::sim::{Params, Profile};

/// What `Profile::Faults` draws, for three nodes whose network is cut, whose processes are paused, and which lose power together.
fn three_nodes(seed: u64) -> Params {
    Params {
        nodes: 3,
        time_us: 20_000_000,
        operations: 5000,
        pause_every_us: 2_000_000,
        link_cut_every_us: 2_000_000,
        blackout_every_us: 8_000_000,
        ..Params::draw(seed, Profile::Faults)
    }
}

#[test]
fn three_nodes_under_faults_hold_and_a_seed_is_a_run() {
    let mut totals = crate::sim::Totals::default();
    for seed in 0..3 {
        let runs = [(); 2].map(|()| {
            let mut run = Run::new(seed, three_nodes(seed), Mutants::default(), true);
            assert_eq!(run.whole(), Ok(()), "seed {seed}");
            (run.world.log.take(), run.world.now_us, std::mem::take(&mut run.world.totals))
        });
        let [(log, now_us, counted), again] = runs;
        let log = log.expect("asked for");
        for node in 1..=3 {
            let starts = |line: &&String| line.contains(&format!("node {node}: shard 0 starts"));
            assert!(log.iter().filter(starts).count() > 2, "seed {seed}: node {node} was started again");
        }
        assert_eq!((Some(log), now_us, &counted), (again.0, again.1, &again.2), "seed {seed}");
        totals.merge(&counted);
    }
    for met in [Counted::Pauses, Counted::WaysCut, Counted::Blackouts, Counted::Kills, Counted::RecordsAcked] {
        assert!(totals.get(met) > 0, "never met: {}\n{totals}", met.text());
    }
}

#[test]
fn other_nodes_change_nothing_for_the_first_one() {
    let run = |nodes| {
        let params = Params { nodes, time_us: 1_000_000, operations: 8000, ..Params::draw(3, Profile::Calm) };
        let mut run = Run::new(3, params, Mutants::default(), true);
        assert_eq!(run.until_done(), Ok(()));
        let acked =
            [Counted::RecordsAcked, Counted::RecordsRead, Counted::MessagesSent, Counted::ColdReads].map(|of| run.world.totals.get(of));
        (acked, run.world.now_us, run.world.nodes[0].disks[0].disk.used_bytes())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn each_node_has_clocks_of_its_own() {
    let params = Params { clock_jumps: true, drift_ppm: 700, is_calm: false, ..params(1, 3) };
    let mut bench = Bench::new(1, params);
    bench.run(100_000_000);
    let shows: Vec<_> = bench.world.nodes.iter().map(|node| node.clock.now(bench.world.now_us)).collect();
    assert_eq!(shows[0].mono_us, 1_000_000 + 100_000_000 + 70_000);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        assert_ne!(shows[one].mono_us, shows[other].mono_us);
        assert!(shows[one].utc_us.abs_diff(shows[other].utc_us) > 200_000, "{shows:?}");
    }
    assert!(shows.iter().all(|now| now.mono_us.abs_diff(101_000_000) <= 100_000), "{shows:?}");
}

#[test]
fn a_ruler_makes_every_time_exact() {
    let ruler =
        Ruler { disk_us: vec![50, 5000, 333], way_us: vec![vec![0, 100, 7], vec![200, 0, 31], vec![9, 1000, 0]], client_way_us: 20 };
    let mut bench = Bench::new(4, Params { ruler: Some(ruler), ..params(4, 3) });
    bench.run(1_000_000);
    for (from, to, round_trip_us) in [(0, 1, 300), (0, 2, 16), (1, 2, 1031)] {
        let (conn, _) = bench.connect(from, to);
        bench.run(10_000);
        bench.driver(from).echoes = false;
        bench.driver(to).echoes = true;
        for what in 0..20 {
            let sent_us = bench.world.nodes[from].clock.now(bench.world.now_us).mono_us;
            bench.send(from, conn, what);
            bench.run(5000);
            let (came_us, _) = bench.driver(from).heard.last().cloned().expect("it came");
            assert_eq!(came_us - sent_us, round_trip_us, "{from} to {to}");
        }
    }
    let mut slab = Slab::new(1 << 20);
    for (node, took_us) in [(0, 50), (1, 5000), (2, 333)] {
        let file = FileId(1 << 40);
        let token = |number: u64| Token::new(TokenRoom::Log, (1 << 40) + number);
        bench.does(node, |_, effects| {
            effects.push(Effect::File { token: token(0), op: FileOp::Create { file, name: "exact".into(), len_bytes: 8192 } });
        });
        bench.run(10_000);
        for number in 1..4 {
            let began_us = bench.world.nodes[node].clock.now(bench.world.now_us).mono_us;
            let mut buffer = slab.take(4096).expect("there is room");
            buffer.as_mut_slice().fill(number as u8);
            let data = slab.freeze(buffer);
            bench.does(node, |_, effects| effects.push(Effect::Write { token: token(number), file, pos: 4096, data }));
            bench.run(10_000);
            let (done_us, heard) = bench.driver(node).heard.last().cloned().expect("it is done");
            assert_eq!((done_us - began_us, heard), (took_us, Heard::Done), "node {node}");
        }
    }
}
