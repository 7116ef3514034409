//! Without idempotence: what a leader that lost its partition means for records. Several nodes are in `core::links`' tests.

use super::*;

#[test]
fn without_idempotence_leadership_that_was_lost_is_told_as_perhaps_stored_and_the_next_is_sent() {
    let (mut rig, uids) = streaming_with(plain(), 1);
    rig.broker.log(uids[0]).refusals = [ErrorCode::LeadershipLost, ErrorCode::NotLeader].into();
    rig.push_batch(0, b"0", 0);
    rig.turn();
    rig.push_batch(0, b"1", 1);
    rig.turn_until_done();
    assert_eq!(rig.failed(), [0], "what was not stored for sure is sent again");
    let told: Vec<&Error> = rig.told.iter().filter_map(|told| told.3.as_ref()).collect();
    assert!(told.iter().all(|error| error.outcome_unknown() && !error.retriable()), "{told:?}");
    assert!(told[0].to_string().contains("leadership_lost"), "{}", told[0]);
    assert_eq!(rig.broker.values(uids[0])[1..], [b"1"]);
}
