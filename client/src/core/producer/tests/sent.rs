//! When a delivery says that its batch was sent: at the first byte on the wire, not when the record was taken.
//!
//! Not here: which batches go when (`tests`).

use super::*;

/// Turns, and gives tag and time of sending of what came back.
fn sent(rig: &mut Rig) -> Vec<(u64, Option<u64>)> {
    rig.turn_quietly();
    let mut told = Vec::new();
    rig.core.drain(|delivery| told.push((delivery.tag, delivery.first_sent_us)));
    told
}

#[test]
fn what_waits_for_room_in_the_window_is_sent_when_it_goes() {
    let (mut rig, _) = Rig::new(ProducerConfig { max_in_flight: 1, ..ProducerConfig::default() }, 1);
    rig.broker.holds_acks = true;
    for (now_us, tag) in [(100, 0), (200, 1), (300, 2)] {
        rig.now_us = now_us;
        rig.push_batch(0, b"value", tag);
        assert_eq!(sent(&mut rig), []);
    }
    for (now_us, expected) in [(1_000, (0, Some(100))), (2_000, (1, Some(1_000))), (3_000, (2, Some(2_000)))] {
        rig.now_us = now_us;
        rig.broker.release(1);
        assert_eq!(sent(&mut rig), [expected], "each goes when the one before is answered");
    }
}

#[test]
fn what_is_sent_again_keeps_its_first_time() {
    let (mut rig, _) = Rig::new(ProducerConfig::default(), 1);
    rig.broker.holds_acks = true;
    rig.now_us = 100;
    rig.push_batch(0, b"value", 7);
    assert_eq!(sent(&mut rig), []);
    rig.lose(0);
    rig.broker.holds_acks = false;
    let mut told = Vec::new();
    while told.is_empty() {
        rig.now_us += 10_000;
        assert!(rig.now_us < 10_000_000, "it is never sent again: {:?}", rig.core);
        told = sent(&mut rig);
    }
    assert_eq!(told, [(7, Some(100))]);
}

#[test]
fn what_never_went_has_no_time() {
    let (mut rig, _) = Rig::new(ProducerConfig { max_in_flight: 1, ..plain() }, 1);
    rig.broker.holds_acks = true;
    rig.push_batch(0, b"on the wire", 0);
    rig.push_batch(0, b"behind it", 1);
    assert_eq!(sent(&mut rig), []);
    rig.now_us = TIMEOUT_US + 20_000;
    assert_eq!(sent(&mut rig), [(1, None)]);
}
