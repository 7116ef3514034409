//! A message of a queue, the token of its lease, and what can be said of it.
//!
//! Invariants: a token's text is read back as the same token, and no other text is; a message owns its bytes, since it is worked on for as long as its lease lasts.
//!
//! Not here: receiving and settling (`queue_consumer.rs`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tramline_wire::batch::{Attributes, Header, RecordView};
use tramline_wire::queue::Delivery;

use crate::error::Error;

/// The right to settle one delivery of a message. It belongs to no connection: another process can use it, and it survives a restart of the node.
///
/// As text it is the three numbers in hexadecimal with dashes between them:
///
/// ```
/// use tramline_client::LeaseToken;
/// let token: LeaseToken = "1f-2a0-7".parse()?;
/// assert_eq!((token.partition_uid, token.offset, token.lease), (31, 672, 7));
/// assert_eq!(token.to_string(), "1f-2a0-7");
/// # Ok::<(), tramline_client::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken {
    /// The partition.
    pub partition_uid: u64,
    /// The message.
    pub offset: u64,
    /// The lease.
    pub lease: u64,
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.partition_uid, self.offset, self.lease)
    }
}

impl FromStr for LeaseToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<LeaseToken, Error> {
        let mut parts = text.split('-').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(partition_uid)), Some(Some(offset)), Some(Some(lease)), None) => Ok(LeaseToken { partition_uid, offset, lease }),
            _ => Err(Error::config(&format!(
                "{text:?} is no lease token: it is three hexadecimal numbers with dashes between them, such as 1f-2a0-7"
            ))),
        }
    }
}

/// One way to write a number: `from_str_radix` takes signs and leading zeros as well.
fn number(text: &str) -> Option<u64> {
    let is_canonical = matches!(text.as_bytes(), [b'0'] | [b'1'..=b'9' | b'a'..=b'f', ..]);
    let number = u64::from_str_radix(text, 16).ok().filter(|_| is_canonical)?;
    text.bytes().all(|byte| !byte.is_ascii_uppercase()).then_some(number)
}

/// Queue attributes of a message, as its producer gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageAttributes {
    /// Not to be delivered before, UTC microseconds.
    pub deliver_at_us: Option<i64>,
    /// Priority, 0 to 9; higher is sooner.
    pub priority: Option<u8>,
    /// Time to live from the message's timestamp, in milliseconds.
    pub ttl_ms: Option<u32>,
    /// Message group: order is kept within it.
    pub group: Option<Vec<u8>>,
    /// Message id for deduplication.
    pub message_id: Option<Vec<u8>>,
}

impl From<Attributes<'_>> for MessageAttributes {
    fn from(of: Attributes<'_>) -> MessageAttributes {
        MessageAttributes {
            deliver_at_us: of.deliver_at_us,
            priority: of.priority,
            ttl_ms: of.ttl_ms,
            group: of.group.map(<[u8]>::to_vec),
            message_id: of.message_id.map(<[u8]>::to_vec),
        }
    }
}

impl MessageAttributes {
    /// The same for a record to send.
    pub fn borrowed(&self) -> Attributes<'_> {
        Attributes {
            deliver_at_us: self.deliver_at_us,
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            group: self.group.as_deref(),
            message_id: self.message_id.as_deref(),
        }
    }
}

/// A message under a lease: it is yours until the lease is over, and comes back unless it is settled by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
    /// Timestamp, UTC microseconds: the producer's, or the append time where the topic says so.
    pub timestamp_us: i64,
    /// When the broker appended it, UTC microseconds.
    pub append_time_us: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers: names and values, in order, repeats kept.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Queue attributes.
    pub attributes: MessageAttributes,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
    /// What settles it.
    pub token: LeaseToken,
}

impl Message {
    pub(crate) fn new(partition: u32, partition_uid: u64, append_time_us: i64, record: &RecordView<'_>, delivery: &Delivery) -> Message {
        Message {
            partition,
            offset: record.offset,
            timestamp_us: record.timestamp_us,
            append_time_us,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(|Header { name, value }| (name.to_string(), value.to_vec())).collect(),
            attributes: record.attributes.into(),
            deliveries: delivery.deliveries,
            token: LeaseToken { partition_uid, offset: record.offset, lease: delivery.lease },
        }
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

/// What becomes of a leased message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Ack,
    /// It failed: it is delivered again after the delay, or is dead when it was delivered `max.deliveries` times.
    Nack {
        /// Before the next delivery; `None`: as the queue's retry policy says. To the millisecond.
        delay: Option<Duration>,
        /// Why, at most 256 bytes; may be empty.
        reason: String,
    },
    /// It stays under its lease for so long from now: 100 ms to 12 h.
    Extend(Duration),
    /// Given back as if it had not been delivered.
    Release,
    /// It can never be done: dead at once.
    Reject {
        /// Why, at most 256 bytes; may be empty.
        reason: String,
    },
}

impl Settle {
    /// A nack by the queue's retry policy, without a reason.
    pub const NACK: Settle = Settle::Nack { delay: None, reason: String::new() };
}

/// For [`Attributes::deliver_at_us`]: so long from now, by this machine's clock. The broker compares it with its own.
pub fn deliver_after(delay: Duration) -> i64 {
    crate::clock::utc_us().saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        for numbers in [[0, 0, 0], [31, 672, 7], [u64::MAX; 3]] {
            let token = LeaseToken { partition_uid: numbers[0], offset: numbers[1], lease: numbers[2] };
            assert_eq!(token.to_string().parse::<LeaseToken>().expect("its own text"), token);
        }
        for text in ["", "1-2", "1-2-3-4", "1-2-", "-1-2-3", "1-+2-3", "01-2-3", "1F-2-3", "g-2-3", "1-2-10000000000000000", "1 -2-3"] {
            let message = text.parse::<LeaseToken>().expect_err(text).to_string();
            assert!(message.contains("1f-2a0-7"), "{message}");
        }
    }

    #[test]
    fn a_delay_without_an_end_is_a_time() {
        assert_eq!(deliver_after(Duration::MAX), i64::MAX);
        assert!(deliver_after(Duration::from_secs(5)) > deliver_after(Duration::ZERO) + 4_000_000);
    }
}
