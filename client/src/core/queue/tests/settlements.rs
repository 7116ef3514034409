//! Settlements that are refused, retried, or no longer waited for.

use super::*;

fn many(messages: &[Message], settle: &Settle) -> Vec<(LeaseToken, Settle)> {
    messages.iter().map(|message| (message.token, settle.clone())).collect()
}

#[test]
fn what_has_to_be_sent_again_keeps_its_place_and_none_is_forgotten() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b", "c"]);
    let got = rig.receive(3);
    rig.broker.queues.settle_refusals = [ErrorCode::NotLeader, ErrorCode::Ok, ErrorCode::NotLeader].into();
    let extend = Settle::Extend(Duration::from_secs(60));
    let now = rig.now();
    rig.core.begin_settle(&many(&got, &extend), now).expect("taken");
    rig.core.step(now);
    // The acks come while the extensions are under way: they must not overtake those that are refused.
    for message in &got {
        rig.core.put_settlement(message.token, &Settle::Ack);
    }
    rig.turn().expect("well-formed");
    assert!(!rig.core.is_settled());
    let waiting: Vec<u64> = rig.core.waiting.iter().map(|entry| entry.id).collect();
    assert_eq!(waiting, [1, 3, 4, 5, 6]);
    rig.now_us += 1_000_000;
    rig.turn().expect("well-formed");
    assert!(rig.core.is_settled() && !rig.core.has_settlements());
    let codes: Vec<_> = rig.core.take_results(Duration::ZERO, None).iter().map(code).collect();
    assert_eq!(codes, [ErrorCode::Ok; 3], "an extension behind its message's ack would be refused");
    assert!((0..3).all(|offset| rig.broker.message(uids[0], offset).settled));
}

#[test]
fn a_settlement_that_met_a_defect_of_the_broker_may_be_done() {
    let (mut rig, uids) = Rig::new(1, 1);
    rig.put(uids[0], Codec::None, &["a", "b"]);
    let got = rig.receive(2);
    rig.broker.queues.settle_refusals = [ErrorCode::Internal, ErrorCode::LeaseLost].into();
    let results = rig.settle(&many(&got, &Settle::Ack));
    let is_unknown = |result: &Result<(), Error>| matches!(result, Err(Error::OutcomeUnknown { request, reason, .. }) if request.contains("ack") && reason.contains("internal"));
    assert!(is_unknown(&results[0]) && code(&results[1]) == ErrorCode::LeaseLost, "{results:?}");
    // So is each of a request that met one as a whole.
    rig.broker.refuse_requests.push_back((Kind::Settle, ErrorCode::Internal));
    let results = rig.settle(&many(&got, &Settle::Ack));
    assert!(results.len() == 2 && results.iter().all(is_unknown), "{results:?}");
    rig.broker.refuse_requests.push_back((Kind::Settle, ErrorCode::InvalidRequest));
    let results = rig.settle(&many(&got, &Settle::Ack));
    assert!(results.iter().all(|result| code(result) == ErrorCode::InvalidRequest), "{results:?}");
}

#[test]
fn a_waiting_that_fails_loses_no_result_that_came() {
    let (mut rig, uids) = Rig::new(2, 2);
    rig.put(uids[0], Codec::None, &["a"]);
    rig.put(uids[1], Codec::None, &["b", "c"]);
    let got = [rig.receive(1), rig.receive(1), rig.receive(1)].concat();
    assert_eq!(got.len(), 3);
    // The first owner's answer comes; of the second one's entries one is under way and one was refused for now.
    rig.broker.queues.settle_refusals = [ErrorCode::Ok, ErrorCode::NotLeader, ErrorCode::Ok].into();
    let now = rig.now();
    rig.core.begin_settle(&many(&got, &Settle::Ack), now).expect("taken");
    rig.turn().expect("well-formed");
    let cut = Error::config("poll failed");
    let results = rig.core.take_results(Duration::from_secs(1), Some(&cut));
    let refused = results.iter().filter(|result| matches!(result, Err(error) if error.to_string().contains("poll failed"))).count();
    assert_eq!((results.len(), refused, results.iter().filter(|result| result.is_ok()).count()), (3, 1, 2), "{results:?}");
    rig.now_us += 1_000_000;
    rig.broker.queues.swallows_answers = true;
    let left = got.iter().zip(&results).find(|(_, result)| result.is_err()).map(|(message, _)| message.token).expect("one is left");
    let now = rig.now();
    rig.core.begin_settle(&[(left, Settle::Ack)], now).expect("taken");
    rig.turn().expect("well-formed");
    let results = rig.core.take_results(Duration::from_secs(1), Some(&cut));
    assert!(matches!(&results[..], [Err(Error::OutcomeUnknown { reason, .. })] if reason.contains("poll failed")), "{results:?}");
}
