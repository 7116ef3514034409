//! Settings of a queue's consumer, and what they may be.
//!
//! Not here: settings of the queue itself, which the broker knows (docs/SETTINGS.md).

use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tramline_wire::queue::{CONSUMER_BYTES_MAX, LEASE_MS, QUEUE_MESSAGES_MAX, RECEIVE_BYTES_MAX};

use super::bounds::{BATCH_VALUES_BYTES, time_within, within};
use crate::error::Error;

/// A page, as of a consumer of streams, to what a broker sends at once, whatever it is asked for.
const MESSAGE_BYTES: RangeInclusive<u32> = 4 << 10..=RECEIVE_BYTES_MAX;

/// What the protocol lets a lease be.
const VISIBILITY: RangeInclusive<Duration> =
    Duration::from_millis(*LEASE_MS.start() as u64)..=Duration::from_millis(*LEASE_MS.end() as u64);

/// Longer than anybody looks at a program that does nothing; who waits for ever calls again.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// Settings of a [`QueueConsumer`](crate::QueueConsumer).
#[derive(Debug, Clone)]
pub struct QueueConsumerConfig {
    /// Who this is: shown while it holds messages, and by it the broker of an exclusive queue knows its holder. 1 to 255 bytes. By default made of the host's name, the
    /// process id, something that is drawn once per process, and a number, so that no two are the same, also of containers on one host.
    pub consumer: String,
    /// Most messages of one [`poll`](crate::QueueConsumer::poll): 1 to 4,096. Default 100. All of them are under leases from then on.
    pub max_messages: u32,
    /// Most bytes of batches in one reply, except that one batch is always sent whole: 4 KiB to 1 MiB. Default 1 MiB.
    pub max_bytes: u32,
    /// How long a [`poll`](crate::QueueConsumer::poll) waits for the first message: at most an hour. Default 5 s. The way of the brokers' answers comes on top, and for each owner that does not answer at all
    /// up to twice `request_timeout`, or twice `connect_timeout` where it cannot be reached.
    pub wait: Duration,
    /// How long leases last: 100 ms to 12 h. `None`: as the queue says.
    pub visibility: Option<Duration>,
    /// Check the crc32c of every batch's header and body.
    pub verify_checksums: bool,
    /// Largest uncompressed size accepted for one batch's values: 1 KiB to 1 GiB.
    pub batch_values_bytes_max: u32,
}

impl Default for QueueConsumerConfig {
    fn default() -> QueueConsumerConfig {
        QueueConsumerConfig {
            consumer: consumer_name(),
            max_messages: 100,
            max_bytes: 1 << 20,
            wait: Duration::from_secs(5),
            visibility: None,
            verify_checksums: true,
            batch_values_bytes_max: 64 << 20,
        }
    }
}

impl QueueConsumerConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        within("consumer's bytes", self.consumer.len(), 1..=CONSUMER_BYTES_MAX)?;
        check_count(self.max_messages)?;
        within("max_bytes", self.max_bytes, MESSAGE_BYTES)?;
        check_wait(self.wait)?;
        self.visibility.map_or(Ok(()), |visibility| time_within("visibility", visibility, VISIBILITY))?;
        within("batch_values_bytes_max", self.batch_values_bytes_max, BATCH_VALUES_BYTES)
    }
}

/// The most messages of one call.
pub(crate) fn check_count(max_messages: u32) -> Result<(), Error> {
    within("max_messages", max_messages, 1..=QUEUE_MESSAGES_MAX)
}

/// How long one call waits.
pub(crate) fn check_wait(wait: Duration) -> Result<(), Error> {
    time_within("wait", wait, WAIT)
}

/// No two of a network are the same: the host's name, the process, something drawn once per process, the how-manieth of the process.
fn consumer_name() -> String {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(process_name);
    format!("{process}/{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Containers on one host can have its name, and all of them the same process id: what is drawn tells them apart.
fn process_name() -> String {
    // Names of hosts have 64 bytes at most. Where it cannot be read there is a name all the same.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|letter| letter.is_ascii_graphic()).take(64).collect();
    let host = if host.is_empty() { "host" } else { host.as_str() };
    // Begins with 32 random bits in hexadecimal, another ones at each reading.
    let drawn = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let drawn: String = drawn.chars().take_while(char::is_ascii_hexdigit).collect();
    let drawn = if drawn.is_empty() { format!("{:x}", crate::clock::seed()) } else { drawn };
    format!("{host}/{}/{drawn}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut QueueConsumerConfig)) -> String {
        let mut config = QueueConsumerConfig::default();
        change(&mut config);
        config.check().expect_err("out of range").to_string()
    }

    #[test]
    fn the_defaults_are_taken_and_no_two_have_one_name() {
        let (one, other) = (QueueConsumerConfig::default(), QueueConsumerConfig::default());
        assert!(one.check().is_ok());
        assert_ne!(one.consumer, other.consumer);
        assert!(one.consumer.contains(&format!("/{}/", std::process::id())), "{}", one.consumer);
        // Nor have two processes with one host and one id.
        let process = |name: &str| name.rsplit_once('/').map(|(process, _)| process.to_string());
        assert_eq!(process(&one.consumer), process(&other.consumer), "drawn once");
        let (this, that) = (process_name(), process_name());
        assert_ne!(this, that);
        let drawn = this.rsplit('/').next().expect("the last part");
        assert!(!drawn.is_empty() && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()), "{this}");
    }

    #[test]
    fn each_setting_has_bounds() {
        assert!(refused(|config| config.consumer = String::new()).contains("consumer's bytes must be between 1 and 255, it is 0"));
        assert!(refused(|config| config.consumer = "c".repeat(256)).contains("256"));
        assert!(refused(|config| config.max_messages = 0).contains("max_messages must be between 1 and 4096"));
        assert!(refused(|config| config.max_messages = 4097).contains("4097"));
        assert!(refused(|config| config.max_bytes = 4095).contains("max_bytes"));
        assert!(refused(|config| config.max_bytes = (1 << 20) + 1).contains("max_bytes"));
        assert!(refused(|config| config.wait = Duration::from_secs(3601)).contains("wait must be between 0ns and 3600s"));
        assert!(refused(|config| config.visibility = Some(Duration::from_millis(99))).contains("between 100ms and 43200s"));
        assert!(refused(|config| config.visibility = Some(Duration::from_secs(43_201))).contains("visibility"));
        assert!(refused(|config| config.batch_values_bytes_max = 1023).contains("batch_values_bytes_max"));
        let widest = QueueConsumerConfig {
            consumer: "c".repeat(255),
            max_messages: 4096,
            max_bytes: 1 << 20,
            wait: Duration::from_secs(3600),
            visibility: Some(Duration::from_secs(43_200)),
            ..QueueConsumerConfig::default()
        };
        assert!(widest.check().is_ok());
    }
}
