//! Losing: another node leads a replica group, and what this node did for the queues of its partitions ends (docs/REPLICATION.md, 5.5).
//!
//! Invariants: whoever waits for these parts is told once: receivers that nothing was delivered to are sent elsewhere, and of what was written and is not
//! committed it is said that it may hold, or not; who waits for other groups as well goes on waiting for them. No lease, wait, look, burial, letter or note of the
//! parts is left, so that nothing of them meets the same parts when they are served again.
//!
//! Not here: what becomes of the parts (`rebuild.rs`).

use super::super::shard::Shard;
use super::care::{Awaited, PartKey, of_queue};
use super::receiving::{Filling, Leased, Receive};
use crate::effects::Effects;
use crate::ids::{GroupId, PartitionUid};
use std::collections::BTreeSet;
use tramline_wire::error::ErrorCode;

/// What is lost.
struct Lost {
    group: GroupId,
    /// As `Acks::bit_of`.
    bit: u64,
    keys: BTreeSet<PartKey>,
    partitions: BTreeSet<PartitionUid>,
}

/// What of a receive's leases was lost.
enum LeasesLost {
    All,
    /// Some, and the batches of the others are at hand.
    Some,
    /// Some, and the batches of the others have to be asked for anew.
    Uncollected,
}

impl Receive {
    /// Whether it would take messages of one of these partitions.
    fn wants_one_of(&self, partitions: &BTreeSet<PartitionUid>) -> bool {
        self.partitions.as_ref().is_none_or(|named| named.iter().any(|uid| partitions.contains(uid)))
    }
}

impl Filling {
    /// Whether it has leases of one of these parts.
    fn has_of(&self, keys: &BTreeSet<PartKey>) -> bool {
        self.leased.iter().any(|(uid, _)| keys.contains(&(self.queue, *uid)))
    }

    /// Leases of parts that are lost are not delivered. Where batches are not at hand yet, they have to be asked for anew.
    fn lose(&mut self, is_lost: impl Fn(PartKey) -> bool) -> LeasesLost {
        let queue = self.queue;
        let stays = |(uid, leases): &(PartitionUid, Vec<Leased>)| !leases.is_empty() && !is_lost((queue, *uid));
        if !self.leased.iter().any(stays) {
            return LeasesLost::All;
        }
        if self.collected.is_some() {
            // The places stay: those of the batches are the same.
            self.leased.iter_mut().filter(|(uid, _)| is_lost((queue, *uid))).for_each(|(_, leases)| leases.clear());
            return LeasesLost::Some;
        }
        self.leased.retain(stays);
        LeasesLost::Uncollected
    }
}

impl Shard {
    /// This node does not serve the queues of a group's partitions any more.
    pub(in crate::shard) fn lose_queues(&mut self, group: GroupId, effects: &mut Effects) {
        let bit = self.acks.bit_of(group);
        let keys: BTreeSet<PartKey> = self.queues.parts.iter().filter(|(_, here)| here.group == group).map(|(key, _)| *key).collect();
        let partitions = keys.iter().map(|key| key.1).collect();
        let lost = Lost { group, bit, keys, partitions };
        self.refuse_receives(&lost, effects);
        self.empty_fillings(&lost, effects);
        self.forget_pending(&lost);
        self.lose_awaited(&lost, effects);
        self.lose_under_way(&lost);
        for key in &lost.keys {
            self.queues.forget(*key);
            self.hold(key.1);
        }
        let parts = &self.queues.parts;
        let has_parts = |uid: &_| parts.range(of_queue(*uid)).next().is_some();
        let without: Vec<_> = lost.keys.iter().map(|key| key.0).filter(|uid| !has_parts(uid)).collect();
        for uid in without {
            if let Some(queue) = self.queues.queues.remove(&uid) {
                assert!(queue.waiting.is_empty(), "receivers of queue {uid} were refused");
                self.queues.forget_holder(uid, &queue);
                self.queues.hungry.remove(&uid);
            }
        }
    }

    /// Receivers that wait for one of the parts.
    fn refuse_receives(&mut self, lost: &Lost, effects: &mut Effects) {
        let uids: BTreeSet<_> = lost.keys.iter().map(|key| key.0).collect();
        for uid in uids {
            let Some(queue) = self.queues.queues.get_mut(&uid) else { continue };
            let waits = &mut self.queues.waits;
            queue.waiting.retain(|receive| {
                let is_refused = receive.wants_one_of(&lost.partitions);
                if is_refused {
                    waits.remove(&(receive.deadline_us, uid, receive.id));
                    effects.refuse(&receive.caller, ErrorCode::NotLeader, "", "");
                }
                !is_refused
            });
        }
    }

    /// Leases that were given and are told to nobody yet. Whoever has some of other groups gets these.
    fn empty_fillings(&mut self, lost: &Lost, effects: &mut Effects) {
        let (mut ended, mut again) = (BTreeSet::new(), BTreeSet::new());
        let (fillings, parts) = (&mut self.queues.fillings, &self.queues.parts);
        for (ticket, filling) in fillings {
            if !filling.has_of(&lost.keys) {
                continue;
            }
            // Or deleted meanwhile.
            match filling.lose(|key| lost.keys.contains(&key) || !parts.contains_key(&key)) {
                LeasesLost::All => ended.insert(*ticket),
                LeasesLost::Uncollected => again.insert(*ticket),
                LeasesLost::Some => continue,
            };
        }
        for ticket in &ended {
            let filling = self.queues.fillings.remove(ticket).expect("listed above");
            if !filling.is_orphaned {
                effects.refuse(&filling.receive.caller, ErrorCode::NotLeader, "", "");
            }
        }
        // What is not committed would be waited for.
        self.sessions.drop_collections(|ticket| ended.contains(&ticket) || again.contains(&ticket));
        for ticket in again {
            let _groups = self.collect_leased(ticket);
        }
    }

    /// Notes that are not in the log yet.
    fn forget_pending(&mut self, lost: &Lost) {
        let queues = &mut self.queues;
        // How many of those up to each place stay.
        let mut kept = vec![0];
        for pending in &queues.pending {
            kept.push(kept[kept.len() - 1] + u64::from(pending.group != lost.group));
        }
        let written = queues.notes_written;
        queues.unwritten.iter_mut().for_each(|(notes, ..)| *notes = written + kept[(*notes - written) as usize]);
        queues.pending.retain(|pending| pending.group != lost.group);
        queues.notes_made = written + queues.pending.len() as u64;
    }

    /// Whoever waits for notes, written or not.
    fn lose_awaited(&mut self, lost: &Lost, effects: &mut Effects) {
        let (fillings, mut refused) = (&self.queues.fillings, Vec::new());
        // A state file that is being put together tells of what was served, and one that is whole waits until that is committed.
        let mut gives_up = self.queues.keeping.is_telling();
        let mut keeps = |awaited: &mut Awaited, others: u64| match awaited {
            Awaited::Leases(ticket) => fillings.contains_key(ticket),
            Awaited::Burial(_) => false,
            Awaited::State => {
                gives_up = true;
                false
            }
            Awaited::Answer(caller, settled) => {
                let stays = others != 0 && settled.lose(|uid| lost.partitions.contains(&uid));
                if !stays {
                    refused.push(*caller);
                }
                stays
            }
        };
        self.queues.unwritten.retain_mut(|(_, groups, awaited)| {
            if *groups & lost.bit == 0 {
                return true;
            }
            *groups &= !lost.bit;
            keeps(awaited, *groups)
        });
        self.queues.awaiting.lose_group(lost.bit, &self.acks, keeps);
        if gives_up {
            self.queues.keeping.give_up();
        }
        for caller in refused {
            self.metrics.count_error(ErrorCode::LeadershipLost);
            effects.refuse(&caller, ErrorCode::LeadershipLost, "", "");
        }
    }

    /// Batches that are being read, and burials.
    fn lose_under_way(&mut self, lost: &Lost) {
        let queues = &mut self.queues;
        let mut ended: BTreeSet<u64> = queues.looks.iter().filter(|(_, key)| lost.keys.contains(key)).map(|(ticket, _)| *ticket).collect();
        queues.looks.retain(|_, key| !lost.keys.contains(key));
        ended.extend(queues.burying.lose(&lost.keys));
        self.sessions.drop_collections(|ticket| ended.contains(&ticket));
    }
}
