//! Error codes and the body of an error reply.
//!
//! Invariants: a number is never given to another error; whether an error is retriable travels with it, so that a
//! client can act on a code that it does not know.
//! Not here: the map from the broker's errors to codes (its `api` room).

use crate::prim::{DecodeError, Item, Reader, Zero, fixed, put_str_cut};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $retriable:literal, $sentence:literal;)*) => {
        /// Why a request, or one entry of it, was refused. `Ok` stands in per-entry fields for "not refused".
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// Every code, in order of number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code with this number.
            pub const fn from_u16(number: u16) -> Option<ErrorCode> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }
            /// The name as in the specification.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
            /// Whether the same request may succeed later (or elsewhere) unchanged.
            pub const fn retriable(self) -> bool {
                match self { $(ErrorCode::$name => $retriable,)* }
            }
            /// What happened and what to do, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(ErrorCode::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    /// Not an error.
    #[default]
    Ok = 0, "ok", false, "done";
    /// The body does not decode.
    Malformed = 1, "malformed", false, "the request does not decode: fix the client, and reconnect if the connection was closed";
    /// No common protocol version, or a version of this kind that the node does not read.
    UnsupportedVersion = 2, "unsupported_version", false, "the node does not speak this version: use one that its hello reply lists";
    /// No such kind.
    UnknownKind = 3, "unknown_kind", false, "the node does not know this request kind: use one that its hello reply lists";
    /// Frame above a limit.
    FrameTooLarge = 4, "frame_too_large", false, "the frame is above the node's limit: send smaller requests (frame_max in the hello reply)";
    /// Checksum of a frame or batch is wrong.
    ChecksumMismatch = 5, "checksum_mismatch", false, "the bytes did not arrive as they were sent: reconnect and send again, and look for faulty hardware if it repeats";
    /// Something came before hello.
    HelloRequired = 6, "hello_required", false, "the first request of a connection has to be hello: reconnect and say hello";
    /// Authentication missing or refused.
    Unauthenticated = 7, "unauthenticated", false, "the node does not accept these credentials: use a mechanism that its hello reply lists, with valid credentials";
    /// No topic of this name.
    UnknownTopic = 8, "unknown_topic", false, "no topic of this name: create it, or check the spelling";
    /// The node does not know this partition uid (yet, or any more).
    UnknownPartition = 9, "unknown_partition", true, "the node does not know this partition: refresh metadata and try again";
    /// The name is taken.
    TopicExists = 10, "topic_exists", false, "a topic of this name exists: choose another name, or ask with if-not-exists";
    /// The name is not allowed.
    InvalidTopicName = 11, "invalid_topic_name", false, "this is not a valid topic name: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', not only dots";
    /// A known setting with a value outside its range.
    InvalidSetting = 12, "invalid_setting", false, "the value of a setting is not allowed: the message names it and its range";
    /// A setting nobody knows.
    UnknownSetting = 13, "unknown_setting", false, "no setting of this name: the options request lists all of them";
    /// The fields decode but make no sense together.
    InvalidRequest = 14, "invalid_request", false, "the request contradicts itself or asks for something that does not exist: the message says what";
    /// One record is above a limit.
    RecordTooLarge = 15, "record_too_large", false, "a record, its key or its headers are above the limit: send smaller records or raise the limit";
    /// The batch is above a limit.
    BatchTooLarge = 16, "batch_too_large", false, "the batch is above the limit: send smaller batches";
    /// No such codec.
    UnknownCodec = 17, "unknown_codec", false, "the node does not know this compression codec: use none, lz4, zstd or snappy";
    /// A flag nobody knows.
    UnknownFlag = 18, "unknown_flag", false, "a flag is set that the node does not know: use a feature only when the node has it";
    /// The batch's structure is wrong.
    BadBatch = 19, "bad_batch", false, "the batch is not laid out as specified: fix the producer";
    /// Another node or shard leads; the reply names the next address.
    NotLeader = 20, "not_leader", true, "this node does not lead the partition: go to the address in the reply, or refresh metadata";
    /// A new leader has not committed its first entry yet.
    NotReady = 21, "not_ready", true, "the node is not ready to answer this yet: try again shortly";
    /// A budget is used up.
    Overloaded = 22, "overloaded", true, "the node has too much to do: slow down and try again";
    /// The disk is above its mark.
    DiskFull = 23, "disk_full", true, "the node's disk is nearly full: free or add space, then try again; reading and deleting still work";
    /// No record at this offset.
    OffsetOutOfRange = 24, "offset_out_of_range", false, "the partition has no such offset: start from its log start or its end";
    /// Stored bytes fail their checksum.
    Damaged = 25, "damaged", false, "stored data is damaged here and is not served: skip it, or have it repaired from a replica";
    /// A write or sync failed.
    StorageFailed = 26, "storage_failed", true, "the storage of this shard failed and it no longer accepts data: try another replica, and look at the node's log";
    /// Not finished in the time given.
    TimedOut = 27, "timed_out", true, "the asked level was not reached in time; the records may still be stored: try again, idempotently";
    /// The node goes down in order.
    ShuttingDown = 28, "shutting_down", true, "the node is shutting down: go to another node, or reconnect when it is back";
    /// A configured count is reached.
    LimitExceeded = 29, "limit_exceeded", false, "a limit of the node is reached: the message names it";
    /// No such durability level.
    UnknownLevel = 30, "unknown_level", false, "the node does not know this durability level: use none, leader, leader_durable, replicated or durable";
    /// No streaming fetch with this correlation id.
    UnknownStream = 31, "unknown_stream", false, "no streaming fetch with this id lives on this connection: it ended, or never began";
    /// A defect of the broker.
    Internal = 32, "internal", false, "the broker met a defect of its own: look at its log and report it";
    /// The topic went away meanwhile.
    TopicDeleted = 33, "topic_deleted", false, "the topic was deleted: refresh metadata before using a topic of the same name";
    /// A batch of an idempotent producer that does not follow its last one.
    OutOfSequence = 34, "out_of_sequence", false, "an earlier batch of this producer is missing here: send the missing one first, or begin anew with the next epoch";
    /// A batch of an earlier epoch.
    ProducerFenced = 35, "producer_fenced", false, "the producer has gone on with a higher epoch: this batch was given up";
    /// A repeated batch of which only the number is known.
    DuplicateTooOld = 36, "duplicate_too_old", false, "the batch was stored before, so long ago that its offset is not remembered: take it as stored";
    /// No consumer group of this name or identity.
    UnknownGroup = 37, "unknown_group", false, "no such consumer group: check the name, or find the group with the flag that creates it";
    /// The name is not allowed.
    InvalidGroupName = 38, "invalid_group_name", false, "this is not a valid name of a group: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', not only dots";
    /// The group has members, and what was asked for needs that it has none.
    GroupNotEmpty = 39, "group_not_empty", false, "the group has members: stop them first, or wait until their sessions time out";
    /// Not a member (any more).
    UnknownMember = 40, "unknown_member", false, "the group does not know this member, or has dropped it: give up its partitions and join again";
    /// Another process has the static member's name now.
    MemberFenced = 41, "member_fenced", false, "another process has joined under this member's instance name: stop this one, or give it a name of its own";
    /// An assignment epoch that is over.
    StaleAssignment = 42, "stale_assignment", false, "the partition belongs to a later owner: give it up, and commit nothing for it";
    /// A member with other settings than the group has.
    GroupSettingsDiffer = 43, "group_settings_differ", false, "all members of a group have one assignor and one session timeout: the message names both";
    /// No queue of this name or identity.
    UnknownQueue = 44, "unknown_queue", false, "no such queue: check the name, or create it";
    /// The name is taken.
    QueueExists = 45, "queue_exists", false, "a queue of this name exists: choose another name, or ask with if-not-exists";
    /// The name is not allowed.
    InvalidQueueName = 46, "invalid_queue_name", false, "this is not a valid name of a queue: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', not only dots";
    /// No lease with this token (any more).
    UnknownLease = 47, "unknown_lease", false, "no such lease: the message was settled already, or never leased under this token";
    /// The lease is over, and nobody else has had the message since.
    LeaseExpired = 48, "lease_expired", false, "the lease has run out and its message waits for the next delivery: settle sooner, or extend";
    /// Somebody else has the message now.
    LeaseLost = 49, "lease_lost", false, "the message was delivered again under a later lease: leave it to its holder";
    /// The queue went away meanwhile.
    QueueDeleted = 50, "queue_deleted", false, "the queue was deleted: stop receiving";
    /// Dead messages would come back to where they came from.
    DeadLetterCircle = 51, "dead_letter_circle", false, "the dead-letter topic leads back to the queue's own topic: choose another";
    /// What a message carries for queues is out of range.
    InvalidAttribute = 52, "invalid_attribute", false, "a priority above 9, or a delay, a time to live or the length of a lease out of range";
    /// No message of the queue at this offset (any more).
    UnknownMessage = 53, "unknown_message", false, "the queue has no such message, or it is settled";
    /// One step that would need several replica groups.
    NotCoLocated = 54, "not_co_located", false, "what the step names lies in more than one replica group: create the topics with co-locate";
    /// The node led the partition when it took the request in, and does not any more.
    LeadershipLost = 55, "leadership_lost", true, "another node leads now, and what was sent may be stored or not: send it again there, idempotently";
    /// Nobody is known to lead the cluster's metadata.
    NoMetadataLeader = 56, "no_metadata_leader", true, "the cluster's metadata have no leader: a majority of their voters has to run and to reach each other";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }
    /// Whether this is `Ok`.
    pub const fn is_ok(self) -> bool {
        matches!(self, ErrorCode::Ok)
    }
    /// Whether what was refused so may have been done all the same: the node began, and does not know how it ended.
    pub const fn may_be_done(self) -> bool {
        matches!(self, ErrorCode::TimedOut | ErrorCode::StorageFailed | ErrorCode::Internal | ErrorCode::LeadershipLost)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for ErrorCode {}

impl<'a> Item<'a> for ErrorCode {
    const BYTES_MIN: usize = 2;
    fn read(from: &mut Reader<'a>) -> Result<ErrorCode, DecodeError> {
        let number = from.u16()?;
        ErrorCode::from_u16(number).ok_or(DecodeError::UnknownValue {
            what: "error code",
            value: number as u64,
            code: ErrorCode::Malformed,
        })
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.as_u16().to_le_bytes());
    }
}
fixed!(ErrorCode, |it| it.as_u16().to_le_bytes());

/// Body of a reply with the ERROR flag: the whole request was refused.
///
/// ```text
/// 0 code u16 | 2 retriable u8 | 3 reserved u8 | 4 message str | next str
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// The code as a number; a newer node may send one that [`ErrorBody::code`] does not know.
    pub code: u16,
    /// Whether the same request may succeed later or elsewhere.
    pub retriable: bool,
    /// A sentence for a human.
    pub message: &'a str,
    /// `host:port` to try next; empty when there is none.
    pub next: &'a str,
}

impl<'a> ErrorBody<'a> {
    /// A body for a known code: `retriable` is the code's.
    pub fn new(code: ErrorCode, message: &'a str, next: &'a str) -> ErrorBody<'a> {
        ErrorBody { code: code.as_u16(), retriable: code.retriable(), message, next }
    }
    /// The code, if this crate knows it.
    pub fn code(&self) -> Option<ErrorCode> {
        ErrorCode::from_u16(self.code)
    }
    /// Appends the body. A message above [`crate::prim::MESSAGE_BYTES_MAX`] is cut at a character.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }
    /// Reads a body; refuses trailing bytes.
    pub fn decode(meta: &'a [u8]) -> Result<ErrorBody<'a>, DecodeError> {
        let mut from = Reader::new(meta);
        let body = ErrorBody::read(&mut from)?;
        from.finish()?;
        Ok(body)
    }
}

impl<'a> Item<'a> for ErrorBody<'a> {
    const BYTES_MIN: usize = 8;
    fn read(from: &mut Reader<'a>) -> Result<ErrorBody<'a>, DecodeError> {
        let code = from.u16()?;
        let retriable = match from.u8()? {
            0 => false,
            1 => true,
            other => return Err(DecodeError::UnknownValue { what: "retriable", value: other as u64, code: ErrorCode::Malformed }),
        };
        Zero::<1>::read(from)?;
        Ok(ErrorBody { code, retriable, message: from.str()?, next: from.str()? })
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.code.to_le_bytes());
        to.push(self.retriable as u8);
        to.push(0);
        put_str_cut(to, self.message);
        put_str_cut(to, self.next);
    }
}
