//! The records of a consumer group and their bytes: control payloads of the log, and the same in a checkpoint.
//!
//! ```text
//! envelope (32 bytes, schema 20, version 1), then: subscription uid u64, then records to the end, the first one a Group
//!
//! 1 Group      epoch u64 | assignor u8: 0 none, 1 sticky, 2 uniform | session timeout u32, milliseconds; 0 without assignor
//! 2 Member     member u64 | granted epoch u64 | is exclusive u8: 0, 1 | instance (text, empty: none) | client (text)
//! 3 Topics     member u64 | number of the first u8 | count u8, not 0 | so many names (text, not empty)
//! 4 Gone       member u64
//! 5 Granted    partition u64 | member u64 | assignment epoch u64
//! 6 Releasing  partition u64 | member u64 | assignment epoch u64 | since u64
//! 7 Free       partition u64
//!              each after one byte with its number; text: length u8 | UTF-8; all numbers little-endian
//! ```
//! What each record says stands at `Change`. All records up to the next Group are of that one's epoch; a payload that continues an
//! operation repeats the Group, so each payload is a list of its own.
//!
//! Invariants: a payload is at most `PAYLOAD_BYTES_MAX` with its envelope; a record fits a payload; what is decoded is what was encoded or
//! an error.
//!
//! Not here: what makes sense after what (`durable.rs`).

use super::{Assignor, SESSION_TIMEOUT_MS_MAX, SESSION_TIMEOUT_MS_MIN, Settings, TOPICS_PER_MEMBER_MAX};
use crate::constants::TOPIC_NAME_BYTES_MAX;
use crate::ids::{MemberId, PartitionUid, SubscriptionUid};
use crate::log::envelope::{self, ENVELOPE_BYTES, EnvelopeError};
use std::fmt;

/// Envelope schema of a list of changes.
pub const CHANGE_SCHEMA: u16 = 20;
const CHANGE_VERSION: u16 = 1;
/// Bytes of one payload with its envelope, at most: one page, so that a change of a large group does not hold up a block.
pub const PAYLOAD_BYTES_MAX: usize = 4096;
/// Bytes of the records of one payload, at most.
const RECORDS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - ENVELOPE_BYTES - 8;
const GROUP_BYTES: usize = 14;
/// Bytes of the names in one record of topics, at most, lengths included: half a payload, so that not much of one is left empty.
const TOPIC_RECORD_NAMES_BYTES_MAX: usize = 2048;
/// A member with the longest texts.
const MEMBER_BYTES_MAX: usize = 1 + 8 + 8 + 1 + 256 + 256;
const _: () = assert!(GROUP_BYTES + 1 + 8 + 2 + TOPIC_RECORD_NAMES_BYTES_MAX <= RECORDS_BYTES_MAX, "a record of topics fits a payload");
const _: () = assert!(GROUP_BYTES + MEMBER_BYTES_MAX <= RECORDS_BYTES_MAX, "a member fits a payload");
const _: () = assert!(TOPIC_NAME_BYTES_MAX < 256 && TOPICS_PER_MEMBER_MAX < 256, "lengths and counts are one byte");

/// One thing of a group that must survive a restart. Each is absolute: it says what is, under the epoch of the `Group` before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Opens the records of an operation: the group's epoch from it on.
    Group {
        /// The group's epoch.
        epoch: u64,
        /// `None` before the first member.
        settings: Option<Settings>,
    },
    /// A member, without topics (they follow) and with the partitions that it had.
    Member {
        /// Its id.
        member: MemberId,
        /// The group's epoch at which its grant last changed.
        granted_epoch: u64,
        /// Whether it has the group for itself.
        is_exclusive: bool,
        /// Its instance name.
        instance: Option<String>,
        /// What the client says of itself.
        client: String,
    },
    /// A member's topics from number `first` on are these, and none follow (or they follow in another record).
    Topics {
        /// Whose.
        member: MemberId,
        /// How many are before.
        first: u8,
        /// Names, in order.
        topics: Vec<String>,
    },
    /// A member is gone; what it held is free unless a later record gives it to somebody.
    Gone {
        /// Who.
        member: MemberId,
    },
    /// A partition is granted.
    Granted {
        /// Which.
        partition: PartitionUid,
        /// To whom.
        member: MemberId,
        /// The group's epoch at which it was granted.
        assignment_epoch: u64,
    },
    /// A partition is not granted any more, and its member may still own it.
    Releasing {
        /// Which.
        partition: PartitionUid,
        /// Who has to give it up.
        member: MemberId,
        /// The group's epoch at which it was granted.
        assignment_epoch: u64,
        /// The group's epoch at which it was taken out of the grant.
        since: u64,
    },
    /// Nobody has a partition.
    Free {
        /// Which.
        partition: PartitionUid,
    },
}

/// Stored changes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredChangeError {
    /// The envelope is wrong, or of a version that this program does not know.
    Envelope(EnvelopeError),
    /// It ends in the middle of a record.
    Short,
    /// It does not open with the group's epoch.
    NoEpoch,
    /// A record of a kind that this program does not know.
    UnknownRecord(u8),
    /// A text that is not UTF-8.
    Text,
    /// A value that is never written.
    Value {
        /// Of what.
        what: &'static str,
        /// The value.
        found: u64,
    },
}

impl fmt::Display for StoredChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stored change of a consumer group ")?;
        match self {
            StoredChangeError::Envelope(cause) => write!(f, "is {cause}"),
            StoredChangeError::Short => f.write_str("ends in the middle of a record"),
            StoredChangeError::NoEpoch => f.write_str("does not open with an epoch"),
            StoredChangeError::UnknownRecord(kind) => write!(f, "has a record of the unknown kind {kind}"),
            StoredChangeError::Text => f.write_str("has a text that is not UTF-8"),
            StoredChangeError::Value { what, found } => write!(f, "has {what} {found}, which is never written"),
        }
    }
}

impl std::error::Error for StoredChangeError {}

/// Adds the records of a member's topics.
pub(super) fn topic_records(member: MemberId, topics: &[String], changes: &mut Vec<Change>) {
    let mut first = 0;
    while first < topics.len() {
        let mut bytes = 0;
        let fits = |name: &&String| {
            bytes += 1 + name.len();
            bytes <= TOPIC_RECORD_NAMES_BYTES_MAX
        };
        let count = topics[first..].iter().take_while(fits).count();
        assert!(count > 0, "a name fits a record");
        changes.push(Change::Topics { member, first: first as u8, topics: topics[first..first + count].to_vec() });
        first += count;
    }
}

/// The stored bytes of changes, in payloads of at most `PAYLOAD_BYTES_MAX` that are to be written in this order. Panics when `changes` do
/// not open with a `Group`, as all that a group tells do.
pub fn encode(uid: SubscriptionUid, changes: &[Change]) -> Vec<Vec<u8>> {
    assert!(matches!(changes.first(), None | Some(Change::Group { .. })), "changes of group {uid} open with its epoch");
    let (mut payloads, mut records) = (Vec::new(), Vec::new());
    let (mut group, mut record) = (Vec::new(), Vec::new());
    for change in changes {
        record.clear();
        put_change(&mut record, change);
        if matches!(change, Change::Group { .. }) {
            group.clone_from(&record);
        }
        if records.len() + record.len() > RECORDS_BYTES_MAX {
            payloads.push(seal(uid, &records));
            records.clear();
            if !matches!(change, Change::Group { .. }) {
                records.extend_from_slice(&group);
            }
        }
        records.extend_from_slice(&record);
    }
    if !records.is_empty() {
        payloads.push(seal(uid, &records));
    }
    payloads
}

fn seal(uid: SubscriptionUid, records: &[u8]) -> Vec<u8> {
    let mut list = uid.0.to_le_bytes().to_vec();
    list.extend_from_slice(records);
    let mut bytes = envelope::seal(CHANGE_SCHEMA, CHANGE_VERSION, &list).to_vec();
    bytes.extend_from_slice(&list);
    assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "a payload of group {uid} has {} bytes", bytes.len());
    bytes
}

fn put_u64s(bytes: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    bytes.push(kind);
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("texts were measured when they came"));
    bytes.extend_from_slice(text.as_bytes());
}

fn put_change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Group { epoch, settings } => {
            put_u64s(bytes, 1, &[*epoch]);
            let assignor = settings.map_or(0, |settings| match settings.assignor {
                Assignor::Sticky => 1,
                Assignor::Uniform => 2,
            });
            bytes.push(assignor);
            bytes.extend_from_slice(&settings.map_or(0, |settings| settings.session_timeout_ms).to_le_bytes());
        }
        Change::Member { member, granted_epoch, is_exclusive, instance, client } => {
            put_u64s(bytes, 2, &[member.0, *granted_epoch]);
            bytes.push(u8::from(*is_exclusive));
            put_text(bytes, instance.as_deref().unwrap_or_default());
            put_text(bytes, client);
        }
        Change::Topics { member, first, topics } => {
            put_u64s(bytes, 3, &[member.0]);
            bytes.extend_from_slice(&[*first, topics.len() as u8]);
            topics.iter().for_each(|name| put_text(bytes, name));
        }
        Change::Gone { member } => put_u64s(bytes, 4, &[member.0]),
        Change::Granted { partition, member, assignment_epoch } => put_u64s(bytes, 5, &[partition.0, member.0, *assignment_epoch]),
        Change::Releasing { partition, member, assignment_epoch, since } => {
            put_u64s(bytes, 6, &[partition.0, member.0, *assignment_epoch, *since]);
        }
        Change::Free { partition } => put_u64s(bytes, 7, &[partition.0]),
    }
}

/// Reads one payload; checked throughout.
pub fn decode(bytes: &[u8]) -> Result<(SubscriptionUid, Vec<Change>), StoredChangeError> {
    let list = envelope::open_image(bytes, CHANGE_SCHEMA, CHANGE_VERSION).map_err(StoredChangeError::Envelope)?;
    let mut reader = Reader { rest: list };
    let uid = SubscriptionUid(reader.u64()?);
    let mut changes = Vec::new();
    while !reader.rest.is_empty() {
        changes.push(reader.change()?);
    }
    match changes.first() {
        Some(Change::Group { .. }) => Ok((uid, changes)),
        _ => Err(StoredChangeError::NoEpoch),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], StoredChangeError> {
        self.rest.split_off(..len).ok_or(StoredChangeError::Short)
    }

    fn number(&mut self, len: usize) -> Result<u64, StoredChangeError> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, StoredChangeError> {
        self.number(8)
    }

    fn u8(&mut self) -> Result<u8, StoredChangeError> {
        Ok(self.number(1)? as u8)
    }

    fn text(&mut self, what: &'static str, range: std::ops::RangeInclusive<usize>) -> Result<String, StoredChangeError> {
        let len = usize::from(self.u8()?);
        if !range.contains(&len) {
            return Err(StoredChangeError::Value { what, found: len as u64 });
        }
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_not_utf8| StoredChangeError::Text)
    }

    fn member(&mut self) -> Result<MemberId, StoredChangeError> {
        Ok(MemberId(self.u64()?))
    }

    fn partition(&mut self) -> Result<PartitionUid, StoredChangeError> {
        Ok(PartitionUid(self.u64()?))
    }

    fn change(&mut self) -> Result<Change, StoredChangeError> {
        Ok(match self.u8()? {
            1 => Change::Group { epoch: self.u64()?, settings: self.settings()? },
            2 => {
                let (member, granted_epoch) = (self.member()?, self.u64()?);
                let is_exclusive = match self.u8()? {
                    0 => false,
                    1 => true,
                    found => return Err(StoredChangeError::Value { what: "the flag", found: u64::from(found) }),
                };
                let instance = Some(self.text("an instance name of so many bytes:", 0..=super::INSTANCE_BYTES_MAX)?);
                let client = self.text("a client of so many bytes:", 0..=super::CLIENT_BYTES_MAX)?;
                Change::Member { member, granted_epoch, is_exclusive, instance: instance.filter(|name| !name.is_empty()), client }
            }
            3 => {
                let (member, first, count) = (self.member()?, self.u8()?, self.u8()?);
                if !(1..=TOPICS_PER_MEMBER_MAX).contains(&usize::from(count)) {
                    return Err(StoredChangeError::Value { what: "so many topics:", found: u64::from(count) });
                }
                let mut name = || self.text("a topic's name of so many bytes:", 1..=TOPIC_NAME_BYTES_MAX as usize);
                Change::Topics { member, first, topics: (0..count).map(|_| name()).collect::<Result<_, _>>()? }
            }
            4 => Change::Gone { member: self.member()? },
            5 => Change::Granted { partition: self.partition()?, member: self.member()?, assignment_epoch: self.u64()? },
            6 => Change::Releasing {
                partition: self.partition()?,
                member: self.member()?,
                assignment_epoch: self.u64()?,
                since: self.u64()?,
            },
            7 => Change::Free { partition: self.partition()? },
            kind => return Err(StoredChangeError::UnknownRecord(kind)),
        })
    }

    fn settings(&mut self) -> Result<Option<Settings>, StoredChangeError> {
        let assignor = match self.u8()? {
            0 => None,
            1 => Some(Assignor::Sticky),
            2 => Some(Assignor::Uniform),
            found => return Err(StoredChangeError::Value { what: "the assignor", found: u64::from(found) }),
        };
        let session_timeout_ms = self.number(4)? as u32;
        let in_range = match assignor {
            None => session_timeout_ms == 0,
            Some(_) => (SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX).contains(&session_timeout_ms),
        };
        if !in_range {
            return Err(StoredChangeError::Value { what: "a session timeout of", found: u64::from(session_timeout_ms) });
        }
        Ok(assignor.map(|assignor| Settings { assignor, session_timeout_ms }))
    }
}
