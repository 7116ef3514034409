//! Steps over real sockets against the fake broker: answers that are lost, refusals, numbers.

use std::time::{Duration, Instant};

use tramline_wire::batch::{Batches, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use super::{Step, Steps};
use crate::fake::marks::{Check, Marks};
use crate::fake::queues::{QUEUE_UID, State};
use crate::fake::tcp::FakeServer;
use crate::message::LeaseToken;
use crate::{Client, Config, Error, Record};

/// A call ends after so long where a test wants it to end without an answer.
const SHORT: Duration = Duration::from_millis(300);

struct Rig {
    server: FakeServer,
    steps: Steps,
    uids: Vec<u64>,
}

impl Rig {
    fn with(call_timeout: Duration, expiry_ms: u32) -> Rig {
        let server = FakeServer::start();
        let uids = server.broker().create("t", 2);
        server.broker().expiry_ms = expiry_ms;
        let client = Client::connect(Config { call_timeout, ..server.config() }).expect("the fake broker answers");
        let steps = client.steps().expect("an identity");
        Rig { server, steps, uids }
    }

    fn new() -> Rig {
        Rig::with(Duration::from_secs(20), 3_600_000)
    }

    fn short() -> Rig {
        Rig::with(SHORT, 3_600_000)
    }

    /// A leased message.
    fn leased(&self, offset: u64) -> LeaseToken {
        let state = State { lease: 7, deliveries: 1, ..State::default() };
        self.server.broker().queues.messages.insert((self.uids[0], offset), state);
        LeaseToken { partition_uid: self.uids[0], offset, lease: 7 }
    }

    /// How many steps were sent, and carried out.
    fn counts(&self) -> (usize, usize) {
        let broker = self.server.broker();
        (broker.count(Kind::Step), broker.steps.done)
    }

    /// The marks of all batches of a partition: id, epoch, first number.
    fn marks(&self, partition: usize) -> Vec<(u64, u16, u32)> {
        let broker = self.server.broker();
        let mark = |batch: tramline_wire::batch::BatchView<'_>| batch.producer();
        let marks = Batches::new(&broker.logs[&self.uids[partition]].bytes).map(|batch| mark(batch.expect("good")));
        marks.map(|ProducerMark { id, epoch, sequence }| (id, epoch, sequence)).collect()
    }
}

fn record(partition: u32, value: &'static str) -> Record<'static> {
    Record { topic: "t", partition: Some(partition), value: Some(value.as_bytes()), ..Record::default() }
}

fn publish(value: &'static str) -> Step<'static> {
    Step::new().publish(record(0, value))
}

#[test]
fn a_step_does_all_it_says_and_the_partitions_are_asked_for_once() {
    let mut rig = Rig::new();
    for round in 0..3 {
        let step = Step::new()
            .ack(QUEUE_UID, rig.leased(round))
            .commit(900, rig.uids[1], 0, 10 + round, "note")
            .publish(record(1, "a"))
            .publish(record(0, "b"))
            .publish(record(1, "c"));
        assert_eq!(rig.steps.take(&step).expect("carried out"), [(rig.uids[1], 2 * round), (rig.uids[0], round)]);
        assert!(rig.server.broker().message(rig.uids[0], round).settled);
        assert_eq!(rig.server.broker().group.offsets[&rig.uids[1]].offset, Some(10 + round));
    }
    assert_eq!((rig.marks(0), rig.marks(1)), (vec![(1, 0, 0), (1, 0, 1), (1, 0, 2)], vec![(1, 0, 0), (1, 0, 2), (1, 0, 4)]));
    assert_eq!((rig.counts(), rig.server.broker().count(Kind::Metadata)), ((3, 3), 1));
    // A partition that the topic does not have is looked for once more.
    assert!(matches!(rig.steps.take(&Step::new().publish(record(2, "d"))), Err(Error::NoSuchPartition { partitions: 2, .. })));
    assert_eq!(rig.server.broker().count(Kind::Metadata), 2);
    assert!(rig.steps.settle().expect("nothing to settle").is_none());
}

#[test]
fn a_step_whose_answer_is_lost_with_the_connection_is_sent_again_and_carried_out_once() {
    let mut rig = Rig::new();
    rig.server.broker().steps.swallows = 1;
    let step = publish("a").ack(QUEUE_UID, rig.leased(5));
    let Rig { server, steps, uids } = &mut rig;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(20);
            while server.broker().steps.done == 0 && Instant::now() < until {
                std::thread::yield_now();
            }
            server.cut();
        });
        assert_eq!(steps.take(&step).expect("told as the first time"), [(uids[0], 0)]);
    });
    assert_eq!((rig.counts(), rig.marks(0)), ((2, 1), vec![(1, 0, 0)]));
    rig.steps.take(&publish("b")).expect("the next one");
    assert_eq!(rig.marks(0), [(1, 0, 0), (1, 0, 1)]);
}

#[test]
fn a_step_without_an_answer_is_settled_before_the_next() {
    let mut rig = Rig::short();
    for is_asked in [true, false] {
        let before = rig.counts().1 as u64;
        rig.server.broker().steps.swallows = 1;
        let error = rig.steps.take(&publish("a")).expect_err("no answer");
        assert!(error.outcome_unknown(), "{error}");
        if is_asked {
            assert_eq!(rig.steps.settle().expect("it was carried out"), Some(vec![(rig.uids[0], before)]));
            assert!(rig.steps.settle().expect("nothing left").is_none());
        }
        assert_eq!(rig.steps.take(&publish("b")).expect("carried out"), [(rig.uids[0], before + 1)]);
    }
    assert_eq!((rig.counts(), rig.server.broker().values(rig.uids[0]).len()), ((6, 4), 4));
}

#[test]
fn an_answer_that_does_not_know_is_none() {
    for code in [ErrorCode::Internal, ErrorCode::TimedOut, ErrorCode::StorageFailed, ErrorCode::LeadershipLost] {
        let mut rig = Rig::new();
        rig.server.broker().steps.done_but.push_back(code);
        assert_eq!(rig.steps.take(&publish("a")).expect("told at last"), [(rig.uids[0], 0)]);
        assert_eq!(rig.counts(), (2, 1), "{code:?}");
    }
}

#[test]
fn the_numbers_of_a_step_that_was_refused_are_never_given_again() {
    let mut rig = Rig::new();
    rig.steps.take(&publish("a")).expect("carried out");
    rig.server.broker().steps.refusals.push_back(ErrorCode::LeaseExpired);
    let error = rig.steps.take(&publish("b").publish(record(1, "c"))).expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::LeaseExpired));
    assert!(rig.steps.settle().expect("nothing happened").is_none());
    rig.steps.take(&publish("d").publish(record(1, "e"))).expect("carried out");
    assert_eq!((rig.marks(0), rig.marks(1)), (vec![(1, 0, 0), (1, 1, 0)], vec![(1, 1, 0)]));
    // A copy of the refused one that comes late is shut out.
    let (late, uid) = (ProducerMark { id: 1, epoch: 0, sequence: 1 }, rig.uids[0]);
    assert_eq!(rig.server.broker().log(uid).marks.check(late, 1), Check::Refuse(ErrorCode::ProducerFenced));
}

#[test]
fn what_the_broker_forgot_gets_new_numbers() {
    let mut rig = Rig::new();
    rig.steps.take(&publish("a")).expect("carried out");
    let uid = rig.uids[0];
    rig.server.broker().log(uid).marks = Marks::default();
    assert_eq!(rig.steps.take(&publish("b")).expect("carried out"), [(rig.uids[0], 1)]);
    // Another one goes on under the same id: this one gets an id of its own.
    rig.server.broker().log(uid).marks.take(ProducerMark { id: 1, epoch: 9, sequence: 0 }, 1, 0);
    assert_eq!(rig.steps.take(&publish("c")).expect("carried out"), [(rig.uids[0], 2)]);
    assert_eq!((rig.marks(0), rig.counts()), (vec![(1, 0, 0), (1, 1, 0), (2, 0, 0)], (5, 3)));
}

#[test]
fn a_step_that_is_refused_after_a_copy_of_it_was_lost_is_over_and_unknown() {
    let mut rig = Rig::short();
    let mut is_first = true;
    rig.server.broker().answer_with(move |frame| (frame.header.kind() == Some(Kind::Step) && std::mem::take(&mut is_first)).then(Vec::new));
    assert!(rig.steps.take(&publish("a")).expect_err("no answer").outcome_unknown());
    rig.server.broker().steps.refusals.push_back(ErrorCode::LeaseExpired);
    let error = rig.steps.settle().expect_err("refused");
    assert!(error.outcome_unknown() && error.to_string().contains("lease"), "{error}");
    assert!(rig.steps.settle().expect("it is over").is_none());
    rig.steps.take(&publish("b")).expect("carried out");
    assert_eq!(rig.marks(0), [(1, 1, 0)]);
}

#[test]
fn what_publishes_nothing_is_sent_once() {
    let mut rig = Rig::short();
    rig.server.broker().steps.swallows = 1;
    let step = Step::new().ack(QUEUE_UID, rig.leased(5));
    assert!(rig.steps.take(&step).expect_err("no answer").outcome_unknown());
    assert!(rig.steps.settle().expect("nothing can be found out").is_none());
    assert_eq!(rig.steps.take(&step).expect_err("the message is settled").code(), Some(ErrorCode::UnknownLease));
    assert_eq!(rig.counts(), (2, 1));
}

#[test]
fn nothing_is_sent_again_once_the_broker_may_have_forgotten_it() {
    let mut rig = Rig::with(SHORT, 100);
    rig.server.broker().steps.swallows = 1;
    assert!(rig.steps.take(&publish("a")).expect_err("no answer").outcome_unknown());
    let error = rig.steps.settle().expect_err("too late");
    assert!(error.outcome_unknown() && error.to_string().contains("may not remember"), "{error}");
    assert!(rig.steps.settle().expect("it is over").is_none());
    rig.steps.take(&publish("b")).expect("carried out");
    assert_eq!((rig.marks(0), rig.counts()), (vec![(1, 0, 0), (1, 1, 0)], (2, 2)));
}

#[test]
fn a_step_that_cannot_be_sent_or_is_refused_for_too_long_is_over() {
    let mut rig = Rig::short();
    rig.server.broker().steps.refusals.extend([ErrorCode::Overloaded; 1000]);
    let error = rig.steps.take(&publish("a")).expect_err("refused until its time was over");
    assert_eq!((error.code(), error.outcome_unknown()), (Some(ErrorCode::Overloaded), false), "{error}");
    rig.server.broker().steps.refusals.clear();
    assert!(rig.steps.settle().expect("it is over").is_none());
    rig.steps.take(&publish("b")).expect("carried out");
    assert_eq!((rig.marks(0), rig.counts().1), (vec![(1, 1, 0)], 1));
}
