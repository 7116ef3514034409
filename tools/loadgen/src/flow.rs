//! Which record goes next, when, and what its answer means: the writing side without clock and network.
//!
//! Invariants: in the open loop a record's intended time comes from its arrivals, whatever happened before, so a stall delays
//! many records and is seen in all of them; in the closed loop it is the time of sending. Each stream's sequence has no holes:
//! a number is given to a record only when the client took it (`undo` takes it back). A slot is free again only after its answer.

use crate::arrivals::Arrivals;
use crate::pick::{Pick, Picker};
use crate::schedule::Window;
use std::collections::HashMap;

/// Open or closed loop.
pub enum Pace {
    /// As they arrive.
    Open(Arrivals),
    /// At most so many records without an answer.
    Closed {
        /// Records without an answer, at most.
        outstanding_max: u64,
    },
}

/// A record to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Goes with the record and comes back with its answer.
    pub tag: u64,
    /// Which record it is.
    pub pick: Pick,
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
    /// Answer minus the time at which its batch was put on the wire.
    pub service_ns: u64,
    /// Whether the record was intended for the measured part.
    pub measured: bool,
    /// Stream of the record.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u64,
    /// Bytes of the value.
    pub size: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    intended_ns: u64,
    sequence: u64,
    stream: u32,
    size: u32,
    used: bool,
}

/// Most streams for which a writer has a table; above it a map of those that were used. With many writers the tables are the memory:
/// 64 Ki streams are 512 KiB each.
const TABLE_STREAMS_MAX: u32 = 1 << 16;

/// The next number of each stream.
enum Sequences {
    Table(Vec<u64>),
    Map(HashMap<u32, u64>),
}

impl Sequences {
    fn of(&mut self, stream: u32) -> &mut u64 {
        match self {
            Sequences::Table(table) => &mut table[stream as usize],
            Sequences::Map(map) => map.entry(stream).or_default(),
        }
    }
}

/// See the module's page.
pub struct Flow {
    pace: Pace,
    picker: Picker,
    window: Window,
    sequences: Sequences,
    /// The record that the client did not take, with its intended time: it is the next one.
    again: Option<(Pick, u64)>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Flow {
    /// At the beginning of a run; `writers` share the memory.
    pub fn new(pace: Pace, picker: Picker, window: Window, writers: u64) -> Flow {
        let streams = picker.streams();
        let small = u64::from(streams) * writers <= u64::from(TABLE_STREAMS_MAX) * 64 || streams <= 64;
        let sequences = if small { Sequences::Table(vec![0; streams as usize]) } else { Sequences::Map(HashMap::new()) };
        Flow { pace, picker, window, sequences, again: None, slots: Vec::new(), free: Vec::new() }
    }

    /// Records without an answer.
    pub fn outstanding(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// How many records may be sent now; of a Poisson process at least so many.
    pub fn ready(&mut self, now_ns: u64) -> u64 {
        let outstanding = self.outstanding();
        match &mut self.pace {
            Pace::Open(arrivals) => arrivals.due(now_ns.min(self.window.end_ns - 1)) + u64::from(self.again.is_some()),
            Pace::Closed { .. } if now_ns >= self.window.end_ns => 0,
            Pace::Closed { outstanding_max } => {
                // Whole runs, so that the client gets full batches instead of a few records as often as an answer comes.
                let run = self.picker.run_records().min(*outstanding_max);
                let room = *outstanding_max - outstanding.min(*outstanding_max);
                room / run * run
            }
        }
    }

    /// When the next record is due; none in the closed loop, where only an answer makes room, and after the end.
    pub fn next_due_ns(&mut self) -> Option<u64> {
        match &mut self.pace {
            Pace::Open(_) if self.again.is_some() => self.again.map(|(_, intended_ns)| intended_ns),
            Pace::Open(arrivals) => Some(arrivals.next_ns()).filter(|&due| due < self.window.end_ns),
            Pace::Closed { .. } => None,
        }
    }

    /// Records that are due at `now_ns`, or were before the end, and were never sent.
    pub fn unsent(&self, now_ns: u64) -> u64 {
        match &self.pace {
            Pace::Open(arrivals) => arrivals.left(now_ns.min(self.window.end_ns - 1)) + u64::from(self.again.is_some()),
            Pace::Closed { .. } => 0,
        }
    }

    /// The next record, given out at `now_ns`.
    #[inline]
    pub fn next(&mut self, now_ns: u64) -> Next {
        let again = self.again.take();
        let intended_ns = match (&mut self.pace, again) {
            (Pace::Closed { .. }, _) => now_ns,
            (Pace::Open(_), Some((_, intended_ns))) => intended_ns,
            (Pace::Open(arrivals), None) => arrivals.take(),
        };
        let pick = again.map_or_else(|| self.picker.next(), |(pick, _)| pick);
        let place = self.sequences.of(pick.stream);
        let sequence = *place;
        *place += 1;
        let slot = Slot { intended_ns, sequence, stream: pick.stream, size: pick.size, used: true };
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
        Next { tag: u64::from(index), pick, sequence, intended_ns }
    }

    /// The client did not take the record: as if it had not been given out; it is the next one again. Only for the last one.
    pub fn undo(&mut self, next: &Next) {
        self.release(next.tag);
        let place = self.sequences.of(next.pick.stream);
        assert_eq!(*place, next.sequence + 1, "only the last record can be taken back");
        *place = next.sequence;
        self.again = Some((next.pick, next.intended_ns));
    }

    /// All that was due is sent, and goes out as it is: the next burst begins on another partition.
    pub fn end_burst(&mut self) {
        if matches!(self.pace, Pace::Open(_)) {
            self.picker.end_burst();
        }
    }

    /// An answer, good or bad, came at `now_ns` to a record that was put on the wire at `sent_ns`, if it got so far. None: there is no such
    /// record without an answer.
    #[inline]
    pub fn answered(&mut self, tag: u64, now_ns: u64, sent_ns: Option<u64>) -> Option<Answered> {
        let slot = self.release(tag)?;
        Some(Answered {
            latency_ns: now_ns.saturating_sub(slot.intended_ns),
            service_ns: now_ns.saturating_sub(sent_ns.unwrap_or(slot.intended_ns)),
            measured: self.window.contains(slot.intended_ns),
            stream: slot.stream,
            sequence: slot.sequence,
            size: slot.size,
        })
    }

    fn release(&mut self, tag: u64) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::try_from(tag).ok()?).filter(|slot| slot.used)?;
        let released = *slot;
        slot.used = false;
        self.free.push(tag as u32);
        Some(released)
    }

    /// Stream and number of records given to the client.
    pub fn written(&self) -> Vec<(u32, u64)> {
        match &self.sequences {
            Sequences::Table(table) => (0..).zip(table.iter().copied()).filter(|(_, count)| *count > 0).collect(),
            Sequences::Map(map) => map.iter().map(|(stream, count)| (*stream, *count)).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Stream and sequence of the records without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, u64)> {
        self.slots.iter().filter(|slot| slot.used).map(|slot| (slot.stream, slot.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Shape;
    use crate::pick::{Choice, Spread, Values};
    use crate::schedule::SECOND_NS;

    fn picker(spread: Spread, run_records: u64) -> Picker {
        Picker::new(spread, Values::Sizes(100, 100), run_records, 0, 1, 7)
    }

    fn of_shape(shape: Shape, rate: u64, spread: Spread, run_records: u64) -> Flow {
        let arrivals = Arrivals::new(shape, rate, 0, 1, 7);
        Flow::new(Pace::Open(arrivals), picker(spread, run_records), Window::new(SECOND_NS, SECOND_NS), 1)
    }

    fn open(rate: u64, partitions: u32, run_records: u64) -> Flow {
        of_shape(Shape::Constant, rate, Spread::Partitions(partitions), run_records)
    }

    fn closed(outstanding_max: u64, run_records: u64) -> Flow {
        Flow::new(Pace::Closed { outstanding_max }, picker(Spread::Partitions(2), run_records), Window::new(0, SECOND_NS), 1)
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
        // The first was on the wire when the server stopped, the others waited in the client until it went on.
        let sent_ns = [2_000_000, 51_000_000, 51_500_000].map(Some);
        let answered = tags.iter().zip(sent_ns).map(|(&tag, sent_ns)| flow.answered(tag, 52_000_000, sent_ns).unwrap());
        let answers: Vec<(u64, u64)> = answered.map(|a| (a.latency_ns, a.service_ns)).collect();
        assert_eq!(answers, [(52_000_000, 50_000_000), (51_000_000, 1_000_000), (50_000_000, 500_000)]);
    }

    #[test]
    fn nothing_is_sent_after_the_end_and_what_was_due_is_counted() {
        let mut flow = open(1000, 1, 10);
        assert_eq!(flow.ready(u64::MAX), 2000);
        for _ in 0..1500 {
            flow.next(0);
        }
        assert_eq!((flow.unsent(u64::MAX), flow.ready(3 * SECOND_NS)), (500, 500));
        assert_eq!(flow.unsent(1_600_500_000), 101, "a run that ends early left only what was due");
        let refused = flow.next(0);
        flow.undo(&refused);
        assert_eq!((flow.unsent(u64::MAX), flow.ready(3 * SECOND_NS)), (500, 500), "the one that was not taken is still to be sent");
        for _ in 0..500 {
            flow.next(0);
        }
        assert_eq!((flow.unsent(u64::MAX), flow.ready(3 * SECOND_NS), flow.next_due_ns()), (0, 0, None));
    }

    #[test]
    fn only_records_intended_for_the_window_are_measured() {
        let mut flow = open(1, 1, 1);
        let (warm_up, measured) = (flow.next(0), flow.next(SECOND_NS));
        assert!(!flow.answered(warm_up.tag, 2 * SECOND_NS, None).unwrap().measured);
        assert!(flow.answered(measured.tag, 2 * SECOND_NS, None).unwrap().measured);
        assert_eq!(flow.answered(measured.tag, 2 * SECOND_NS, None), None, "an answer counts once");
        assert_eq!(flow.answered(999, 0, None), None);
    }

    #[test]
    fn a_closed_loop_waits_for_answers_and_sends_whole_runs() {
        let mut flow = closed(10, 5);
        assert_eq!((flow.ready(0), flow.next_due_ns()), (10, None));
        let tags: Vec<u64> = (0..10).map(|_| flow.next(7).tag).collect();
        assert_eq!(flow.ready(8), 0);
        for &tag in &tags[..4] {
            flow.answered(tag, 9, None);
        }
        assert_eq!(flow.ready(9), 0, "four are not a run");
        flow.answered(tags[4], 9, None);
        assert_eq!(flow.ready(9), 5);
        assert_eq!(flow.ready(SECOND_NS), 0, "the time is over");
        assert_eq!((closed(1, 64).ready(0), closed(100, 64).ready(0)), (1, 64));
    }

    #[test]
    fn partitions_take_turns_by_runs_and_by_bursts() {
        let mut flow = open(1000, 3, 2);
        let streams = |flow: &mut Flow, count| (0..count).map(|_| flow.next(0).pick.stream).collect::<Vec<_>>();
        assert_eq!(streams(&mut flow, 5), [0, 0, 1, 1, 2]);
        flow.end_burst();
        assert_eq!(streams(&mut flow, 2), [0, 0]);
        flow.end_burst();
        assert_eq!(streams(&mut flow, 1), [1], "a burst that ended with a run does not skip a partition");
        assert_eq!(flow.written(), [(0, 4), (1, 3), (2, 1)]);
    }

    #[test]
    fn the_numbers_of_a_stream_have_no_holes_whatever_keeps_them() {
        for (keys, writers) in [(3, 1), (100_000, 10_000)] {
            let picker = picker(Spread::Keys(keys, Choice::Turn), 64);
            let mut flow = Flow::new(Pace::Closed { outstanding_max: 9 }, picker, Window::new(0, SECOND_NS), writers);
            let given: Vec<(u32, u64)> = (0..2 * keys).map(|_| flow.next(0)).map(|next| (next.pick.stream, next.sequence)).collect();
            let expected: Vec<(u32, u64)> = (0..2).flat_map(|number| (0..keys).map(move |key| (key, number))).collect();
            assert_eq!(given, expected);
            let mut written = flow.written();
            written.sort_unstable();
            assert_eq!(written, (0..keys).map(|key| (key, 2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_record_that_was_not_taken_leaves_no_trace() {
        let keys = |choice| Spread::Keys(3, choice);
        for spread in [Spread::Partitions(3), Spread::Partitions(1), keys(Choice::Turn), keys(Choice::Uniform), keys(Choice::Zipf(1.1))] {
            for shape in [Shape::Constant, Shape::Poisson, Shape::Bursts(5)] {
                let make = || of_shape(shape, 1000, spread, 2);
                let (mut plain, mut tried) = (make(), make());
                for _ in 0..12 {
                    let refused = tried.next(5);
                    tried.undo(&refused);
                    assert_eq!(plain.next_due_ns(), tried.next_due_ns());
                    let (a, b) = (plain.next(5), tried.next(5));
                    assert_eq!((a.pick, a.sequence, a.intended_ns), (b.pick, b.sequence, b.intended_ns), "{spread:?} {shape:?}");
                }
                assert_eq!((plain.outstanding(), plain.unsent(u64::MAX)), (tried.outstanding(), tried.unsent(u64::MAX)));
            }
        }
    }

    #[test]
    fn what_never_got_an_answer_is_known() {
        let mut flow = closed(10, 1);
        let given: Vec<Next> = (0..4).map(|_| flow.next(0)).collect();
        flow.answered(given[1].tag, 1, None);
        flow.answered(given[2].tag, 1, None);
        let mut rest: Vec<(u32, u64)> = flow.unanswered().collect();
        rest.sort();
        assert_eq!(rest, [(0, 0), (1, 1)]);
    }
}
