//! What a node that joins is told: who it is in the cluster, and group 0 as it was then, where its own replica of that begins.
//!
//! Stored as `DIR/joined` as well: until the first checkpoint of shard 0 nothing else has the metadata of before (docs/REPLICATION.md, 6.5).
//!
//! Not here: who asks and who answers (runtime/join.rs, shard/).

use super::stored::{self, StoredError};
use crate::ids::{LogIndex, ReplicaId, Term};
use rkyv::{Archive, Deserialize, Serialize};

/// Group 0 as it was when a node joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster's identity.
    pub cluster_id: [u8; 16],
    /// How many disks the node had before this one.
    pub generation: u32,
    /// The last entry that `state` has taken in.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Who votes in group 0.
    pub voters: Vec<ReplicaId>,
    /// Who learns it.
    pub learners: Vec<ReplicaId>,
    /// The metadata, as `State::snapshot` writes them.
    pub state: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct JoinedV1 {
    cluster_id: [u8; 16],
    generation: u32,
    index: u64,
    term: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    state: Vec<u8>,
}

impl Joined {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let raw = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect();
        let joined = JoinedV1 {
            cluster_id: self.cluster_id,
            generation: self.generation,
            index: self.index.0,
            term: self.term.0,
            voters: raw(&self.voters),
            learners: raw(&self.learners),
            state: self.state.clone(),
        };
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&joined).expect("serialising plain values into memory cannot fail");
        stored::seal(stored::JOINED_SCHEMA, 1, &archive)
    }

    /// Reads stored bytes; checked throughout. What `state` says is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Joined, StoredError> {
        let archive = stored::open(bytes, stored::JOINED_SCHEMA, 1)?;
        let joined = rkyv::from_bytes::<JoinedV1, rkyv::rancor::Error>(&archive).map_err(StoredError::archive)?;
        if joined.index == 0 || joined.term == 0 || joined.voters.is_empty() {
            return Err(StoredError::archive("a cluster that has nobody"));
        }
        let ids = |raw: Vec<u64>| raw.into_iter().map(ReplicaId).collect();
        Ok(Joined {
            cluster_id: joined.cluster_id,
            generation: joined.generation,
            index: LogIndex(joined.index),
            term: Term(joined.term),
            voters: ids(joined.voters),
            learners: ids(joined.learners),
            state: joined.state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_not() {
        let joined = Joined {
            cluster_id: [7; 16],
            generation: 2,
            index: LogIndex(9),
            term: Term(3),
            voters: vec![ReplicaId(1)],
            learners: vec![ReplicaId(2), ReplicaId(3)],
            state: vec![1, 2, 3],
        };
        let bytes = joined.encode();
        assert_eq!(Joined::decode(&bytes).unwrap(), joined);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(Joined::decode(&wrong).is_err(), "byte {at}");
            assert!(Joined::decode(&bytes[..at]).is_err(), "{at} bytes");
        }
        assert!(Joined::decode(&Joined { voters: Vec::new(), ..joined }.encode()).is_err());
    }
}
