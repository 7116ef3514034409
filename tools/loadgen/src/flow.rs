//! Which record goes next, when, and what its answer means: the writing side without clock and network.
//!
//! Invariants: in the open loop a record's intended time comes from the schedule, whatever happened before, so a stall delays
//! many records and is seen in all of them; in the closed loop it is the time of sending. Each stream's sequence has no holes:
//! a number is given to a record only when the client took it (`undo` takes it back). A slot is free again only after its answer.

use crate::schedule::{Schedule, Window};

/// Open or closed loop.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At a constant rate.
    Open(Schedule),
    /// At most so many records without an answer.
    Closed {
        /// Records without an answer, at most.
        outstanding_max: u64,
    },
}

/// How records are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// So many keys in turn; the client's partitioner chooses.
    Keys(u32),
    /// So many partitions in turn, a run of records on each.
    Partitions(u32),
}

impl Spread {
    fn streams(self) -> u32 {
        match self {
            Spread::Keys(count) | Spread::Partitions(count) => count,
        }
    }
}

/// A record to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Goes with the record and comes back with its answer.
    pub tag: u64,
    /// Number of the key, or index of the partition.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u64,
    /// When it was due, nanoseconds of the run.
    pub intended_ns: u64,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Answer minus intended time.
    pub latency_ns: u64,
    /// Answer minus actual send.
    pub service_ns: u64,
    /// Whether the record was intended for the measured part.
    pub measured: bool,
    /// Stream of the record.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    intended_ns: u64,
    sent_ns: u64,
    sequence: u64,
    stream: u32,
    used: bool,
}

/// See the module's page.
pub struct Flow {
    pace: Pace,
    spread: Spread,
    window: Window,
    /// Records of one run on one partition: what fills a batch.
    run_records: u64,
    /// Records left of the present run.
    run_left: u64,
    /// The stream of the next record.
    turn: u32,
    /// Next number of each stream.
    sequences: Vec<u64>,
    /// Records the client took.
    sent: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Flow {
    /// At the beginning of a run.
    pub fn new(pace: Pace, spread: Spread, window: Window, run_records: u64) -> Flow {
        assert!(spread.streams() > 0 && run_records > 0, "checked when the options were read");
        let sequences = vec![0; spread.streams() as usize];
        Flow { pace, spread, window, run_records, run_left: run_records, turn: 0, sequences, sent: 0, slots: Vec::new(), free: Vec::new() }
    }

    /// Records without an answer.
    pub fn outstanding(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// How many records may be sent now.
    pub fn ready(&self, now_ns: u64) -> u64 {
        match self.pace {
            Pace::Open(schedule) => schedule.due_count(now_ns.min(self.window.end_ns - 1)).saturating_sub(self.sent),
            Pace::Closed { .. } if now_ns >= self.window.end_ns => 0,
            Pace::Closed { outstanding_max } => {
                // Whole runs, so that the client gets full batches instead of a few records as often as an answer comes.
                let run = self.run_records.min(outstanding_max);
                let room = outstanding_max - self.outstanding().min(outstanding_max);
                room / run * run
            }
        }
    }

    /// When the next record is due; none in the closed loop, where only an answer makes room, and after the end.
    pub fn next_due_ns(&self) -> Option<u64> {
        match self.pace {
            Pace::Open(schedule) => Some(schedule.due_ns(self.sent)).filter(|&due| due < self.window.end_ns),
            Pace::Closed { .. } => None,
        }
    }

    /// Records that were due before the end and never sent.
    pub fn unsent(&self) -> u64 {
        match self.pace {
            Pace::Open(schedule) => schedule.due_count(self.window.end_ns - 1).saturating_sub(self.sent),
            Pace::Closed { .. } => 0,
        }
    }

    /// The next record, given out at `now_ns`.
    pub fn next(&mut self, now_ns: u64) -> Next {
        let intended_ns = match self.pace {
            Pace::Open(schedule) => schedule.due_ns(self.sent),
            Pace::Closed { .. } => now_ns,
        };
        let stream = self.turn;
        let sequence = self.sequences[stream as usize];
        let slot = Slot { intended_ns, sent_ns: now_ns, sequence, stream, used: true };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.sequences[stream as usize] += 1;
        self.sent += 1;
        match self.spread {
            Spread::Keys(_) => self.turn_on(),
            Spread::Partitions(_) => {
                self.run_left -= 1;
                if self.run_left == 0 {
                    self.turn_on();
                }
            }
        }
        Next { tag: u64::from(index), stream, sequence, intended_ns }
    }

    /// The client did not take the record: as if it had not been given out. Only for the last one.
    pub fn undo(&mut self, next: &Next) {
        self.release(next.tag);
        assert_eq!(self.sequences[next.stream as usize], next.sequence + 1, "only the last record can be taken back");
        self.sequences[next.stream as usize] = next.sequence;
        self.sent -= 1;
        if self.turn == next.stream && self.run_left < self.run_records {
            self.run_left += 1;
        } else {
            (self.turn, self.run_left) = (next.stream, 1);
        }
    }

    /// A burst is over and goes out as it is: the next one begins on another partition. Without this, a rate of less than one
    /// batch per answer would stay on one partition for long.
    pub fn end_burst(&mut self) {
        if matches!(self.pace, Pace::Open(_)) && self.run_left < self.run_records {
            self.turn_on();
        }
    }

    fn turn_on(&mut self) {
        self.turn = (self.turn + 1) % self.spread.streams();
        self.run_left = self.run_records;
    }

    /// An answer, good or bad, came at `now_ns`. None: there is no such record without an answer.
    pub fn answered(&mut self, tag: u64, now_ns: u64) -> Option<Answered> {
        let slot = self.release(tag)?;
        Some(Answered {
            latency_ns: now_ns.saturating_sub(slot.intended_ns),
            service_ns: now_ns.saturating_sub(slot.sent_ns),
            measured: self.window.contains(slot.intended_ns),
            stream: slot.stream,
            sequence: slot.sequence,
        })
    }

    fn release(&mut self, tag: u64) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::try_from(tag).ok()?).filter(|slot| slot.used)?;
        let released = *slot;
        slot.used = false;
        self.free.push(tag as u32);
        Some(released)
    }

    /// Records that never got an answer, as stream and sequence: their outcome is unknown.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.slots.iter().filter(|slot| slot.used).map(|slot| (slot.stream, slot.sequence))
    }

    /// How many records each stream got.
    pub fn written(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.sequences.iter().enumerate().filter(|(_, end)| **end > 0).map(|(stream, end)| (stream as u32, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::SECOND_NS;

    fn open(rate: u64, partitions: u32, run_records: u64) -> Flow {
        Flow::new(Pace::Open(Schedule::new(rate, 0, 1)), Spread::Partitions(partitions), Window::new(SECOND_NS, SECOND_NS), run_records)
    }

    fn closed(outstanding_max: u64, run_records: u64) -> Flow {
        Flow::new(Pace::Closed { outstanding_max }, Spread::Partitions(2), Window::new(0, SECOND_NS), run_records)
    }

    #[test]
    fn an_open_loop_does_not_wait_for_answers() {
        let mut flow = open(1000, 1, 10);
        assert_eq!(flow.ready(0), 1);
        for n in 0..5 {
            assert_eq!(flow.next(4_500_000).intended_ns, n * 1_000_000, "the intended time is the schedule's, not the sender's");
        }
        assert_eq!((flow.ready(4_500_000), flow.outstanding(), flow.next_due_ns()), (0, 5, Some(5_000_000)));
        assert_eq!(flow.ready(10_000_000), 6);
    }

    #[test]
    fn a_stall_is_in_the_latency_of_each_record_it_delayed() {
        let mut flow = open(1000, 1, 10);
        let tags: Vec<u64> = (0..3).map(|_| flow.next(2_000_000).tag).collect();
        let answers: Vec<(u64, u64)> =
            tags.iter().map(|&tag| flow.answered(tag, 52_000_000).unwrap()).map(|a| (a.latency_ns, a.service_ns)).collect();
        assert_eq!(answers, [(52_000_000, 50_000_000), (51_000_000, 50_000_000), (50_000_000, 50_000_000)]);
    }

    #[test]
    fn nothing_is_sent_after_the_end_and_what_was_due_is_counted() {
        let mut flow = open(1000, 1, 10);
        assert_eq!(flow.ready(u64::MAX), 2000);
        for _ in 0..1500 {
            flow.next(0);
        }
        assert_eq!((flow.unsent(), flow.ready(3 * SECOND_NS)), (500, 500));
        for _ in 0..500 {
            flow.next(0);
        }
        assert_eq!((flow.unsent(), flow.ready(3 * SECOND_NS), flow.next_due_ns()), (0, 0, None));
    }

    #[test]
    fn only_records_intended_for_the_window_are_measured() {
        let mut flow = open(1, 1, 1);
        let (warm_up, measured) = (flow.next(0), flow.next(SECOND_NS));
        assert!(!flow.answered(warm_up.tag, 2 * SECOND_NS).unwrap().measured);
        assert!(flow.answered(measured.tag, 2 * SECOND_NS).unwrap().measured);
        assert_eq!(flow.answered(measured.tag, 2 * SECOND_NS), None, "an answer counts once");
        assert_eq!(flow.answered(999, 0), None);
    }

    #[test]
    fn a_closed_loop_waits_for_answers_and_sends_whole_runs() {
        let mut flow = closed(10, 5);
        assert_eq!((flow.ready(0), flow.next_due_ns()), (10, None));
        let tags: Vec<u64> = (0..10).map(|_| flow.next(7).tag).collect();
        assert_eq!(flow.ready(8), 0);
        for &tag in &tags[..4] {
            flow.answered(tag, 9);
        }
        assert_eq!(flow.ready(9), 0, "four are not a run");
        flow.answered(tags[4], 9);
        assert_eq!(flow.ready(9), 5);
        assert_eq!(flow.ready(SECOND_NS), 0, "the time is over");
        assert_eq!((closed(1, 64).ready(0), closed(100, 64).ready(0)), (1, 64));
    }

    #[test]
    fn partitions_take_turns_by_runs_and_by_bursts() {
        let mut flow = open(1000, 3, 2);
        let streams = |flow: &mut Flow, count| (0..count).map(|_| flow.next(0).stream).collect::<Vec<_>>();
        assert_eq!(streams(&mut flow, 5), [0, 0, 1, 1, 2]);
        flow.end_burst();
        assert_eq!(streams(&mut flow, 2), [0, 0]);
        flow.end_burst();
        assert_eq!(streams(&mut flow, 1), [1], "a burst that ended with a run does not skip a partition");
        assert_eq!(flow.written().collect::<Vec<_>>(), [(0, 4), (1, 3), (2, 1)]);
    }

    #[test]
    fn keys_take_turns_by_record() {
        let mut flow = Flow::new(Pace::Closed { outstanding_max: 9 }, Spread::Keys(3), Window::new(0, SECOND_NS), 64);
        let given: Vec<(u32, u64)> = (0..7).map(|_| flow.next(0)).map(|next| (next.stream, next.sequence)).collect();
        assert_eq!(given, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]);
    }

    #[test]
    fn a_record_that_was_not_taken_leaves_no_trace() {
        for spread in [Spread::Partitions(3), Spread::Keys(3), Spread::Partitions(1), Spread::Keys(1)] {
            let make = || Flow::new(Pace::Open(Schedule::new(1000, 0, 1)), spread, Window::new(0, SECOND_NS), 2);
            let (mut plain, mut tried) = (make(), make());
            for _ in 0..12 {
                let refused = tried.next(5);
                tried.undo(&refused);
                let (a, b) = (plain.next(5), tried.next(5));
                assert_eq!((a.stream, a.sequence, a.intended_ns), (b.stream, b.sequence, b.intended_ns), "{spread:?}");
            }
            assert_eq!((plain.outstanding(), plain.unsent()), (tried.outstanding(), tried.unsent()));
        }
    }

    #[test]
    fn what_never_got_an_answer_is_known() {
        let mut flow = closed(10, 1);
        let given: Vec<Next> = (0..4).map(|_| flow.next(0)).collect();
        flow.answered(given[1].tag, 1);
        flow.answered(given[2].tag, 1);
        let mut rest: Vec<(u32, u64)> = flow.unanswered().collect();
        rest.sort();
        assert_eq!(rest, [(0, 0), (1, 1)]);
    }
}
