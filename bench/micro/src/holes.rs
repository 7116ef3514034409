//! Ten million messages of one queue under lease, acknowledged in random order: bytes per message that is left, time per acknowledgement, and the
//! longest time that one call keeps the shard.
//!
//! One run is timed as a whole, since looking at the clock takes as long as some of the calls; in three more every call is timed, and of each call the
//! shortest time of the three counts.
//!
//! Invariants: the piece under test is the broker's own (`tramline::subscription::queue::Part`), fed with batches as they stand in the log, and its notes are
//! taken away as the broker does; what this program itself allocates is there before the first count.

use crate::allocator::Allocated;
use crate::clock::{Calls, processor_ns};
use std::collections::BTreeMap;
use tramline::effects::Now;
use tramline::ids::{PartitionUid, SubscriptionUid};
use tramline::subscription::queue::{
    Ending, Kind, Looked, Part, QueueNote, QueueRules, SNAPSHOT_BYTES_MAX, SnapshotCursor, Wanted, encode_queue_notes,
};
use tramline_wire::batch::{BatchBuilder, BatchView, LeaderStamp, Limits, NewRecord, ProducerMark, stamp_leader};

/// Messages of a batch, and of a receive.
const AT_ONCE: u64 = 64;
/// Time between two receives.
const RECEIVE_EVERY_US: u64 = 20;
/// Messages that one piece of a snapshot looks at, as in the shard.
const SNAPSHOT_MESSAGES: usize = 500;
/// Messages whose leases end in one call, as in the shard.
const DUE_AT_ONCE: usize = 1000;
/// Twelve hours, the longest lease.
const LEASE_MS: u32 = 43_200_000;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// Runs in which every call is timed.
const TIMED_RUNS: u32 = 3;

/// The calls of a queue that the broker makes in its turns.
#[derive(Default)]
struct Timed {
    look: Calls,
    pick: Calls,
    ack: Calls,
    snapshot: Calls,
    due: Calls,
    /// Bytes per message of a snapshot of all, of a half, of a tenth.
    snapshot_bytes: [f64; 3],
}

/// One queue in one partition, filled.
struct Queue {
    now: Now,
    rules: QueueRules,
    part: Part,
    /// Of each message its lease.
    leases: Vec<u32>,
    notes: Vec<QueueNote>,
}

/// Measures with `messages` messages; the order of their acknowledgements comes from `seed`.
pub fn run(messages: u64, seed: u64) -> Figures {
    let mut figures = Figures::new();
    let order = shuffled(messages, seed);
    slices(&order, &mut figures);
    calls(&order, &mut figures);
    figures
}

/// The first run: memory, and time per acknowledgement in tenths of the messages.
fn slices(order: &[u32], figures: &mut Figures) {
    let messages = order.len() as u64;
    let mut queue = Queue::empty(messages);
    let before = Allocated::now();
    let start = processor_ns();
    queue.fill(messages, None);
    figures.insert("fill_ns_per_message".to_owned(), (processor_ns() - start) as f64 / messages as f64);
    let slice = order.len() / 10;
    let mut slices = Vec::new();
    let mut count = |queue: &Queue, left: usize| {
        let now = Allocated::now();
        let of = |bytes: u64| bytes as f64 / left as f64;
        assert_eq!(queue.part.open_count(), left as u64, "what was acknowledged is settled, and nothing else");
        figures.insert(format!("bytes_{left}"), of(now.taken - before.taken));
        figures.insert(format!("bytes_asked_{left}"), of(now.asked - before.asked));
        figures.insert(format!("bytes_told_{left}"), of(queue.part.memory_bytes_about()));
    };
    count(&queue, order.len());
    let mut left = order.len();
    for acks in order.chunks(slice) {
        // Within the last tenth is looked at once more.
        let stop_at = if left == slice { order.len() / 100 } else { 0 };
        let (first, rest) = acks.split_at(acks.len() - stop_at);
        let start = processor_ns();
        first.iter().for_each(|offset| queue.ack(*offset));
        let mut took = processor_ns() - start;
        left -= first.len();
        if left > 0 {
            count(&queue, left);
        }
        let start = processor_ns();
        rest.iter().for_each(|offset| queue.ack(*offset));
        took += processor_ns() - start;
        left -= rest.len();
        slices.push(took as f64 / acks.len() as f64);
    }
    assert_eq!((queue.part.open_count(), queue.part.settled_to()), (0, messages));
    for (at, ns) in slices.iter().enumerate() {
        figures.insert(format!("ack_ns_tenth_{}", at + 1), *ns);
    }
    figures.insert("ack_last_to_first".to_owned(), slices[slices.len() - 1] / slices[0]);
    let slowest = slices.iter().copied().fold(0.0, f64::max);
    figures.insert("ack_slowest_to_first".to_owned(), slowest / slices[0]);
}

/// Every call by itself.
fn calls(order: &[u32], figures: &mut Figures) {
    let mut timed = timed_run(order);
    for _ in 1..TIMED_RUNS {
        let again = timed_run(order);
        timed.look.keep_shorter(&again.look);
        timed.pick.keep_shorter(&again.pick);
        timed.ack.keep_shorter(&again.ack);
        timed.snapshot.keep_shorter(&again.snapshot);
        timed.due.keep_shorter(&again.due);
    }
    let named = [("look", &timed.look), ("pick", &timed.pick), ("ack", &timed.ack), ("snapshot", &timed.snapshot), ("due", &timed.due)];
    let mut longest = 0.0f64;
    for (name, calls) in named {
        let (p9999, max) = calls.p9999_and_max_us();
        figures.insert(format!("{name}_p9999_us"), p9999);
        figures.insert(format!("{name}_max_us"), max);
        longest = longest.max(max);
    }
    figures.insert("longest_call_us".to_owned(), longest);
    for (part, bytes) in ["all", "half", "tenth"].iter().zip(timed.snapshot_bytes) {
        figures.insert(format!("snapshot_bytes_{part}"), bytes);
    }
}

/// Fills a queue, acknowledges nine tenths of it, lets the leases of the rest run out; takes a snapshot of the full one, of a half, and of that rest.
fn timed_run(order: &[u32]) -> Timed {
    let mut timed = Timed::default();
    let messages = order.len() as u64;
    let mut queue = Queue::empty(messages);
    queue.fill(messages, Some(&mut timed));
    let acked = &order[..order.len() / 10 * 9];
    for (at, offset) in acked.iter().enumerate() {
        if at == 0 || at == order.len() / 2 {
            let bytes = queue.snapshot(messages, &mut timed.snapshot);
            timed.snapshot_bytes[usize::from(at > 0)] = bytes as f64 / (order.len() - at) as f64;
        }
        timed.ack.time(|| queue.ack(*offset));
    }
    let bytes = queue.snapshot(messages, &mut timed.snapshot);
    timed.snapshot_bytes[2] = bytes as f64 / (order.len() - acked.len()) as f64;
    // All at about the same time.
    queue.now.mono_us += u64::from(LEASE_MS) * 1000 + 1_000_000;
    queue.now.utc_us += i64::from(LEASE_MS) * 1000 + 1_000_000;
    while queue.part.next_due_us(queue.now) <= queue.now.mono_us {
        timed.due.time(|| queue.part.on_due(queue.now, &queue.rules, DUE_AT_ONCE, &mut queue.notes));
        queue.notes.clear();
    }
    assert_eq!((queue.part.leased_count(), queue.part.ready_count()), (0, messages - acked.len() as u64));
    timed
}

impl Queue {
    fn empty(messages: u64) -> Queue {
        let now = Now { mono_us: 5_000_000, utc_us: 1_800_000_000_000_000 };
        let rules = QueueRules { max_in_flight: u32::MAX, max_in_flight_per_consumer: u32::MAX, ..QueueRules::default() };
        let mut part = Part::default();
        part.apply(Some(now), &QueueNote { at_us: i64::MIN, ..QueueNote::new(Kind::Begin, 0) });
        Queue { now, rules, part, leases: vec![0; messages as usize], notes: Vec::with_capacity(2 * DUE_AT_ONCE) }
    }

    /// Looks at batches and leases all their messages.
    fn fill(&mut self, messages: u64, mut timed: Option<&mut Timed>) {
        let mut batch = batch(AT_ONCE);
        let mut end = 0;
        while end < messages {
            if messages - end < AT_ONCE {
                batch = self::batch(messages - end);
            }
            let stamp = LeaderStamp { partition_uid: 1, base_offset: end, term: 1, append_time_us: self.now.utc_us };
            stamp_leader(&mut batch, &stamp);
            let view = BatchView::parse(&batch).expect("our own batch");
            let mut look = || self.part.look(self.now, &self.rules, &view);
            let looked = match &mut timed {
                Some(timed) => timed.look.time(look),
                None => look(),
            };
            assert_eq!(looked, Looked::Done);
            end += u64::from(view.record_count());
            let wanted = Wanted { consumer: b"worker", max: AT_ONCE as u32, lease_ms: LEASE_MS };
            let mut pick = || self.part.pick(self.now, &self.rules, wanted, &mut self.notes);
            let picked = match &mut timed {
                Some(timed) => timed.pick.time(pick),
                None => pick(),
            };
            assert_eq!(u64::from(picked), u64::from(view.record_count()));
            for note in self.notes.drain(..) {
                self.leases[note.offset as usize..note.end() as usize].fill(note.number as u32);
            }
            self.now.mono_us += RECEIVE_EVERY_US;
            self.now.utc_us += RECEIVE_EVERY_US as i64;
        }
        assert_eq!(self.part.leased_count(), messages);
    }

    fn ack(&mut self, offset: u32) {
        let lease = u64::from(self.leases[offset as usize]);
        self.part.end(self.now, &self.rules, u64::from(offset), lease, Ending::Ack, &mut self.notes).expect("the lease is valid");
        self.notes.clear();
    }

    /// A whole snapshot, a piece for each turn.
    fn snapshot(&self, committed_end: u64, calls: &mut Calls) -> usize {
        let mut cursor = SnapshotCursor::default();
        let mut bytes = 0;
        let mut is_last = false;
        while !is_last {
            calls.time(|| {
                let mut notes = Vec::new();
                is_last = self.part.snapshot(&mut cursor, committed_end, &mut SNAPSHOT_MESSAGES.clone(), &mut notes);
                let payload = |payload: Vec<u8>| bytes += payload.len();
                encode_queue_notes(PartitionUid(1), SubscriptionUid(1), notes, SNAPSHOT_BYTES_MAX, payload);
            });
        }
        assert!(bytes > 0, "a snapshot of messages says something of them");
        bytes
    }
}

fn batch(records: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Limits::default());
    for _ in 0..records {
        let record = NewRecord { value: Some(b"v"), timestamp_us: 1_800_000_000_000_000, ..NewRecord::default() };
        builder.push(&record).expect("a small record fits");
    }
    let mut bytes = Vec::new();
    builder.finish_plain(&mut bytes, ProducerMark::default());
    bytes
}

/// All offsets below `messages`, in an order of its own for each seed (Fisher and Yates).
fn shuffled(messages: u64, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(messages).expect("bounded by the arguments")).collect();
    let mut state = seed;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_tells_all_its_figures() {
        let figures = run(20_000, 1);
        for name in ["bytes_20000", "bytes_10000", "bytes_2000", "bytes_200", "ack_last_to_first", "longest_call_us", "due_max_us"] {
            assert!(figures.get(name).is_some_and(|value| *value > 0.0), "{name} in {figures:?}");
        }
    }

    #[test]
    fn an_order_has_each_offset_once() {
        let mut order = shuffled(1000, 7);
        assert_ne!(order, shuffled(1000, 8));
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
