//! What a node that acknowledges below `durable` has to have: looked at in the replicas themselves, since a record that is not committed may be lost later
//! and nothing be wrong.
//!
//! Invariant: only what a sound node may not say is an error: where a process has ended, a leader has changed or voters have changed since the request was
//! sent, nothing is said.
//!
//! Not here: leases (`../cluster.rs`), what is promised for ever (`truth.rs`).

use super::ClusterRun;
use crate::ids::{GroupId, LogIndex, PartitionUid, Term};
use crate::shard::Shard;
use crate::sim::Check;
use crate::sim::node::ShardAt;
use tramline_wire::level::Level;

/// A batch was acknowledged below `durable`.
pub(super) struct Reached {
    pub(super) node: usize,
    pub(super) uid: u64,
    pub(super) offset: u64,
    pub(super) asked: Level,
    pub(super) told: Level,
    pub(super) asked_us: u64,
    /// Processes that had ended when it was sent.
    pub(super) lives: u64,
}

impl ClusterRun {
    pub(super) fn judge_reached(&self, reached: &Reached) -> Check {
        let Reached { node, uid, offset, asked, told, asked_us, lives } = *reached;
        if told < asked {
            return Err(format!("partition {uid}: {asked} was asked for, and {told} is told"));
        }
        let Some((leader, group, term)) = self.who_leads(node, uid, asked_us).filter(|_| lives == self.world.lives()) else {
            return Ok(());
        };
        let Some(standing) = leader.standing_of(PartitionUid(uid), offset) else { return Ok(()) };
        let what =
            |has: String| Err(format!("partition {uid} at {offset}: node {} tells {told}, and {has}\n{}", node + 1, self.describe()));
        if standing.term.is_some_and(|of_entry| of_entry != term) {
            // Of a leader before.
            return Ok(());
        }
        if (asked == Level::LeaderDurable || told == Level::LeaderDurable) && !standing.is_durable && !standing.is_committed {
            return what(format!("has it not on its disk ({standing:?})"));
        }
        if asked == Level::Replicated || told == Level::Replicated {
            let (voters, changed_at) = leader.voters_of(group);
            if changed_at > standing.index {
                return Ok(());
            }
            let has_it = |voter: &&usize| **voter == node || self.has_entry(**voter, group, standing.index, term);
            let count = voters.iter().filter(has_it).count();
            if count <= voters.len() / 2 {
                return what(format!("{count} of {voters:?} have it ({standing:?})"));
            }
        }
        Ok(())
    }

    /// The shard of `node` that leads the group of a partition, if it leads in the newest term and did so before.
    fn who_leads(&self, node: usize, uid: u64, asked_us: u64) -> Option<(&Shard, GroupId, Term)> {
        let group = self.group_of(node, uid)?;
        let (term, _, _) = self.reigns.get(&group).filter(|(_, leader, since_us)| *leader == node && *since_us < asked_us)?;
        let (_, leader) = self.world.shards().find(|(at, shard)| at.node == node && shard.led().any(|led| led == (group, *term)))?;
        Some((leader, group, *term))
    }

    fn has_entry(&self, node: usize, group: GroupId, index: LogIndex, term: Term) -> bool {
        let mut shards = (0..usize::from(self.world.params.shards)).filter_map(|shard| self.world.shard(ShardAt { node, shard }));
        shards.any(|shard| shard.has_entry_of(group, index, term))
    }
}
