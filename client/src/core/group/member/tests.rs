//! Membership event by event: what is asked, claimed, revoked, and what errors mean.

use super::*;

const SESSION_US: u64 = 30_000_000;
const WAIT_MS: u32 = 10_000;

struct Rig {
    member: Member,
    now_us: u64,
}

impl Rig {
    fn new() -> Rig {
        Rig { member: Member::new(SESSION_US, 60_000_000, 1), now_us: 1 }
    }

    /// The effects, as text.
    fn on(&mut self, event: Event) -> Vec<String> {
        let mut effects = Vec::new();
        self.member.step(Now { mono_us: self.now_us, utc_us: 0 }, event, &mut effects);
        effects.iter().map(told).collect()
    }

    /// A tick once the wait is over.
    fn later(&mut self) -> Vec<String> {
        self.now_us = self.now_us.max(self.member.next_step_us());
        self.on(Event::Tick)
    }

    /// A member of group 9 with id 5 that has this list in force and holds a heartbeat.
    fn joined(list: &[(u64, u64)]) -> Rig {
        let mut rig = Rig::new();
        assert_eq!(rig.on(Event::Tick), ["find"]);
        assert_eq!(rig.on(Event::Found { group_uid: 9 }), ["join 9"]);
        let effects = rig.on(Event::Joined { member_id: 5, epoch: 100, list: owned(list) });
        assert_eq!(effects.last().map(String::as_str), Some("beat 9 5 epoch 100 wait 10000"));
        assert_eq!(effects.len(), if list.is_empty() { 1 } else { 2 });
        rig
    }
}

fn owned(list: &[(u64, u64)]) -> Owned {
    list.iter().copied().collect()
}

fn told(effect: &Effect) -> String {
    match effect {
        Effect::Find => "find".to_string(),
        Effect::Join { group_uid } => format!("join {group_uid}"),
        Effect::Beat { group_uid, member_id, epoch, wait_ms } => format!("beat {group_uid} {member_id} epoch {epoch} wait {wait_ms}"),
        Effect::Leave { group_uid, member_id, keeps } => format!("leave {group_uid} {member_id} keeps {keeps}"),
        Effect::Claim(list) => format!("claim {list:?}"),
        Effect::Revoke(uids) => format!("revoke {uids:?}"),
        Effect::Lose => "lose".to_string(),
        Effect::Tell { doing, .. } => format!("tell {doing}"),
        Effect::End(error) => format!("end {:?}", error.code()),
    }
}

fn refused(code: ErrorCode) -> Event {
    Event::Failed(Error::Refused { request: String::new(), code, retriable: code.retriable(), message: String::new(), next: None })
}

fn unanswered() -> Event {
    Event::Failed(Error::io("cannot send to", "a:1", std::io::ErrorKind::TimedOut.into()))
}

#[test]
fn heartbeats_are_held_and_one_follows_the_other() {
    let mut rig = Rig::joined(&[(1, 50)]);
    assert!(rig.on(Event::Tick).is_empty(), "one at a time");
    rig.now_us += u64::from(WAIT_MS) * 1000;
    assert_eq!(rig.on(Event::Beaten { epoch: 100, list: Owned::new() }), ["beat 9 5 epoch 100 wait 10000"]);
    assert_eq!(rig.member.id(), Some(5));
}

#[test]
fn what_stays_is_untouched_and_what_comes_is_claimed_at_once() {
    let mut rig = Rig::joined(&[(1, 50), (2, 50)]);
    let effects = rig.on(Event::Beaten { epoch: 101, list: owned(&[(1, 50), (2, 50), (3, 101)]) });
    assert_eq!(effects, ["claim {3: 101}", "beat 9 5 epoch 101 wait 10000"]);
}

#[test]
fn a_list_is_in_force_once_what_it_lacks_was_released() {
    let mut rig = Rig::joined(&[(1, 50), (2, 50)]);
    let effects = rig.on(Event::Beaten { epoch: 101, list: owned(&[(1, 50), (3, 101)]) });
    assert_eq!(effects, ["claim {3: 101}", "revoke {2}"], "and no word to the home");
    // The home has to hear something all the same; it says at once what it has said.
    assert_eq!(rig.later(), ["beat 9 5 epoch 100 wait 0"]);
    assert_eq!(rig.now_us, 1 + SESSION_US / 3);
    assert!(rig.on(Event::Beaten { epoch: 101, list: owned(&[(1, 50), (3, 101)]) }).is_empty());
    assert_eq!(rig.on(Event::Released), ["beat 9 5 epoch 101 wait 10000"]);
    assert!(!rig.member.is_releasing());
}

#[test]
fn a_list_that_changes_while_something_is_given_up_counts() {
    let mut rig = Rig::joined(&[(1, 50), (2, 50)]);
    assert_eq!(rig.on(Event::Beaten { epoch: 101, list: owned(&[(1, 50)]) }), ["revoke {2}"]);
    assert_eq!(rig.later(), ["beat 9 5 epoch 100 wait 0"]);
    // The other one goes as well, and the first comes back, as a later owner's.
    assert_eq!(rig.on(Event::Beaten { epoch: 103, list: owned(&[(2, 103)]) }), ["revoke {1}"]);
    assert_eq!(rig.on(Event::Released), ["claim {2: 103}", "beat 9 5 epoch 103 wait 10000"]);
}

#[test]
fn a_partition_with_another_epoch_is_given_up_and_claimed_again() {
    let mut rig = Rig::joined(&[(1, 50)]);
    assert_eq!(rig.on(Event::Beaten { epoch: 101, list: owned(&[(1, 101)]) }), ["revoke {1}"]);
    assert_eq!(rig.on(Event::Released), ["claim {1: 101}", "beat 9 5 epoch 101 wait 10000"]);
}

#[test]
fn whoever_was_dropped_loses_everything_and_joins_again_after_a_wait() {
    let mut rig = Rig::joined(&[(1, 50)]);
    assert_eq!(rig.on(refused(ErrorCode::UnknownMember)), ["lose"]);
    assert_eq!((rig.member.id(), rig.member.is_over()), (None, false));
    assert_eq!(rig.later(), ["join 9"]);
    rig.on(Event::Joined { member_id: 6, epoch: 200, list: Owned::new() });
    assert_eq!(rig.member.id(), Some(6));
}

#[test]
fn a_group_that_is_gone_is_found_again() {
    let mut rig = Rig::joined(&[(1, 50)]);
    assert_eq!(rig.on(refused(ErrorCode::UnknownGroup)), ["lose"]);
    assert_eq!(rig.later(), ["find"]);
    assert_eq!(rig.on(Event::Found { group_uid: 10 }), ["join 10"]);
    // Or that turns out when the home is looked for.
    let mut rig = Rig::joined(&[(1, 50)]);
    rig.on(unanswered());
    assert_eq!(rig.later(), ["find"]);
    assert_eq!(rig.on(Event::Found { group_uid: 10 }), ["lose"]);
    assert_eq!(rig.later(), ["join 10"]);
}

#[test]
fn a_home_that_moved_is_found_again_and_the_member_stays_one() {
    for event in [refused(ErrorCode::NotLeader), refused(ErrorCode::NotReady), refused(ErrorCode::ShuttingDown), unanswered()] {
        let mut rig = Rig::joined(&[(1, 50)]);
        assert!(rig.on(event).is_empty());
        assert_eq!(rig.later(), ["find"]);
        assert_eq!(rig.on(Event::Found { group_uid: 9 }), ["beat 9 5 epoch 100 wait 10000"]);
    }
}

#[test]
fn whoever_is_fenced_or_does_not_fit_ends() {
    let mut rig = Rig::joined(&[(1, 50)]);
    assert_eq!(rig.on(refused(ErrorCode::MemberFenced)), ["lose", "end Some(MemberFenced)"]);
    assert!(rig.member.is_over() && rig.later().is_empty());
    let mut rig = Rig::new();
    rig.on(Event::Tick);
    rig.on(Event::Found { group_uid: 9 });
    assert_eq!(rig.on(refused(ErrorCode::GroupSettingsDiffer)), ["end Some(GroupSettingsDiffer)"]);
    // Somebody moves the group's offsets: that passes.
    let mut rig = Rig::new();
    rig.on(Event::Tick);
    rig.on(Event::Found { group_uid: 9 });
    assert!(rig.on(refused(ErrorCode::GroupNotEmpty)).is_empty());
    assert_eq!(rig.later(), ["find"]);
}

#[test]
fn trouble_is_told_when_it_has_lasted_and_tried_on() {
    let mut rig = Rig::joined(&[]);
    let mut told = Vec::new();
    while rig.now_us < 130_000_000 {
        told.extend(rig.on(unanswered()));
        let asked = rig.later();
        assert_eq!(asked, ["find"]);
        rig.now_us += 100_000;
    }
    assert_eq!(told, ["tell finding the home of the group", "tell finding the home of the group"], "once per minute");
}

#[test]
fn a_membership_holds_for_a_session_from_the_last_word_that_was_answered() {
    let mut rig = Rig::joined(&[(1, 50)]);
    let confirmed = |rig: &Rig, us| rig.member.is_confirmed(Now { mono_us: us, utc_us: 0 });
    assert!(confirmed(&rig, SESSION_US) && !confirmed(&rig, 1 + SESSION_US));
    // Away for long: the answer that lay there says nothing about now, so it is asked for one at once.
    rig.now_us = 2 * SESSION_US;
    assert_eq!(rig.on(Event::Beaten { epoch: 100, list: Owned::new() }), ["beat 9 5 epoch 100 wait 0"]);
    assert!(!confirmed(&rig, rig.now_us));
    assert_eq!(rig.on(Event::Beaten { epoch: 100, list: Owned::new() }), ["beat 9 5 epoch 100 wait 10000"]);
    assert!(confirmed(&rig, rig.now_us));
}

#[test]
fn closing_says_goodbye_also_while_a_heartbeat_is_held() {
    let mut rig = Rig::joined(&[]);
    assert_eq!(rig.on(Event::Close { keeps: true }), ["leave 9 5 keeps true"]);
    assert!(rig.on(Event::Close { keeps: true }).is_empty());
    assert!(rig.on(unanswered()).is_empty());
    assert_eq!(rig.later(), ["find"], "it is tried again");
    assert_eq!(rig.on(Event::Found { group_uid: 9 }), ["leave 9 5 keeps true"]);
    rig.on(Event::Left);
    assert!(rig.member.is_over());
    // Left already, when the answer was lost.
    let mut rig = Rig::joined(&[]);
    rig.on(Event::Close { keeps: false });
    assert!(rig.on(refused(ErrorCode::UnknownMember)).is_empty() && rig.member.is_over());
}

#[test]
fn closing_while_joining_leaves_no_member_behind() {
    let mut rig = Rig::new();
    rig.on(Event::Tick);
    rig.on(Event::Found { group_uid: 9 });
    assert!(rig.on(Event::Close { keeps: false }).is_empty());
    assert_eq!(rig.on(Event::Joined { member_id: 5, epoch: 100, list: owned(&[(1, 50)]) }), ["leave 9 5 keeps false"]);
    let mut rig = Rig::new();
    rig.on(Event::Tick);
    rig.on(Event::Close { keeps: false });
    assert!(rig.member.is_over(), "nobody knows it");
}
