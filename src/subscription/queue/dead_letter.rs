//! A dead message as the record that its queue's dead-letter topic gets: the message itself, and in headers where it comes from and how its deliveries
//! failed. docs/PROTOCOL.md lists the headers.
//!
//! Invariants: key, value, time, priority and message group are the message's; it has no delay and no time to live any more, so nothing but its topic's
//! retention ends it; its message id names queue, partition and offset, so a letter that is written twice has the same id twice, and letters of two
//! messages, or of one message in two queues, never have the same.
//!
//! Not here: which messages, and where the letter goes (shard/queue/burying.rs).

use super::note::Why;
use super::part::{ATTEMPTS_MAX, Attempt};
use crate::ids::{PartitionUid, SubscriptionUid};
use tramline_wire::batch::{Attributes, BatchBuilder, NewRecord, PushRefused, RecordView};

/// What the names of a letter's own headers begin with. A message that has such headers was a letter before: they make room for the new ones.
const PREFIX: &str = "tramline-dead-letter-";
/// Headers of a letter that do not come from a failed delivery.
const FIXED_HEADERS: usize = 10;
/// Headers that a letter has beyond those of its message, at most.
pub const LETTER_HEADERS_MAX: u32 = (FIXED_HEADERS + ATTEMPTS_MAX) as u32;
/// Their bytes, at most: names of 249 bytes, an id of 256, and per failed delivery the consumer's name and words and less than 150 bytes besides.
pub const LETTER_HEADERS_BYTES_MAX: u32 = 2048 + ATTEMPTS_MAX as u32 * (150 + 255 + 256);

/// Where a dead message comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// The queue.
    pub queue_uid: SubscriptionUid,
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: u32,
    /// The partition.
    pub partition_uid: PartitionUid,
}

/// Adds the letter about `record`, which was delivered `deliveries` times, to a batch. Where it does not fit otherwise the oldest of the failed deliveries
/// are left out. `Full`: it goes into the next batch. `TooLarge`: it fits into none, not even without them.
pub fn push_letter(
    builder: &mut BatchBuilder,
    origin: &Origin<'_>,
    record: &RecordView<'_>,
    deliveries: u16,
    attempts: &[Attempt],
) -> Result<(), PushRefused> {
    let fixed = fixed_headers(origin, record, deliveries, attempts);
    let lines: Vec<String> = attempts.iter().map(attempt_line).collect();
    let id = format!("{}/{}/{}", origin.queue_uid, origin.partition_uid, record.offset);
    let own = record.headers.filter(|header| !header.name.starts_with(PREFIX)).map(|header| (header.name, header.value));
    let mut headers: Vec<(&str, &[u8])> = own.collect();
    headers.extend(fixed.iter().map(|(name, value)| (*name, value.as_slice())));
    let without_lines = headers.len();
    let attributes = Attributes { deliver_at_us: None, ttl_ms: None, message_id: Some(id.as_bytes()), ..record.attributes };
    for left_out in 0..=lines.len() {
        headers.truncate(without_lines);
        headers.extend(lines[left_out..].iter().map(|line| ("tramline-dead-letter-attempt", line.as_bytes())));
        let letter = NewRecord { key: record.key, value: record.value, headers: &headers, timestamp_us: record.timestamp_us, attributes };
        match builder.push(&letter) {
            Ok(_) => return Ok(()),
            Err(PushRefused::TooLarge { .. }) if left_out < lines.len() => {}
            Err(refused) => return Err(refused),
        }
    }
    unreachable!("the last round returns")
}

fn fixed_headers(origin: &Origin<'_>, record: &RecordView<'_>, deliveries: u16, attempts: &[Attempt]) -> Vec<(&'static str, Vec<u8>)> {
    let mut headers = vec![
        ("tramline-dead-letter-queue", origin.queue.into()),
        ("tramline-dead-letter-topic", origin.topic.into()),
        ("tramline-dead-letter-partition", origin.partition.to_string().into_bytes()),
        ("tramline-dead-letter-offset", record.offset.to_string().into_bytes()),
        ("tramline-dead-letter-timestamp", time_text(record.timestamp_us).into_bytes()),
        ("tramline-dead-letter-deliveries", deliveries.to_string().into_bytes()),
        ("tramline-dead-letter-reason", cause(attempts).into()),
    ];
    if let (Some(first), Some(last)) = (attempts.first(), attempts.last()) {
        headers.push(("tramline-dead-letter-first-at", time_text(first.at_us).into_bytes()));
        headers.push(("tramline-dead-letter-at", time_text(last.at_us).into_bytes()));
    }
    if let Some(id) = record.attributes.message_id {
        headers.push(("tramline-dead-letter-message-id", id.to_vec()));
    }
    assert!(headers.len() <= FIXED_HEADERS && headers.iter().all(|(name, _)| name.starts_with(PREFIX)));
    headers
}

/// Why the last delivery failed; what is not remembered (`HISTORIES_MAX`) is unknown.
fn cause(attempts: &[Attempt]) -> &'static str {
    attempts.last().map_or("unknown", |attempt| attempt.why.word())
}

/// Five fields with tabs between them: number of the delivery, when it failed, how, who had the message, and what he said of it.
fn attempt_line(attempt: &Attempt) -> String {
    let Attempt { at_us, why, deliveries, consumer, reason } = attempt;
    let (at, why) = (time_text(*at_us), Why::word(*why));
    format!("{deliveries}\t{at}\t{why}\t{}\t{}", one_line(consumer), one_line(reason))
}

/// Text without tabs and line breaks, which would look like more fields or lines.
fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A time in microseconds as RFC 3339 text in UTC; one outside of the years 1 to 9999 as the number it is.
fn time_text(us: i64) -> String {
    const DAY_US: i64 = 86_400_000_000;
    /// Of the years 1 and 10,000, from 1970 on.
    const DAYS: std::ops::Range<i64> = -719_162..2_932_897;
    let (days, of_day_us) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    if !DAYS.contains(&days) {
        return us.to_string();
    }
    // Years begin in March here, so that the leap day is a year's last one; eras are the 400 years after which the calendar repeats.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in five.
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (seconds, us) = (of_day_us / 1_000_000, of_day_us % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_wire::batch::{BatchView, Limits, ProducerMark, validate};

    const NOON_US: i64 = 1_771_934_400_000_000;

    fn attempt(deliveries: u16, why: Why) -> Attempt {
        let (consumer, reason) = ((*b"worker 1").into(), (*b"no\tdisk\nat all").into());
        Attempt { at_us: NOON_US + i64::from(deliveries) * 1_500_000, why, deliveries, consumer, reason }
    }

    fn batch(record: &NewRecord<'_>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Limits::default());
        builder.push(record).unwrap();
        let mut bytes = Vec::new();
        builder.finish_plain(&mut bytes, ProducerMark::default());
        bytes
    }

    const ORIGIN: Origin<'static> =
        Origin { queue: "mail", queue_uid: SubscriptionUid(9), topic: "orders", partition: 3, partition_uid: PartitionUid(77) };

    /// The letter's attributes and headers as text.
    fn letter(record: &NewRecord<'_>, attempts: &[Attempt], limits: Limits) -> Result<(String, Vec<(String, String)>), PushRefused> {
        let bytes = batch(record);
        let view = BatchView::parse(&bytes).unwrap();
        let message = view.records(view.stored_values()).next().unwrap().unwrap();
        let mut builder = BatchBuilder::new(limits);
        push_letter(&mut builder, &ORIGIN, &message, 4, attempts)?;
        let mut bytes = Vec::new();
        builder.finish_plain(&mut bytes, ProducerMark::default());
        let view = validate(&bytes, &limits).unwrap();
        let letter = view.records(view.stored_values()).next().unwrap().unwrap();
        assert_eq!((letter.key, letter.value, letter.timestamp_us), (record.key, record.value, record.timestamp_us));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = letter.headers.map(|header| (header.name.to_owned(), text(header.value))).collect();
        Ok((format!("{:?}", letter.attributes), headers))
    }

    #[test]
    fn a_letter_is_the_message_and_its_history() {
        let record = NewRecord {
            key: Some(b"k"),
            value: Some(b"v"),
            headers: &[("trace", b"abc"), ("tramline-dead-letter-queue", b"an earlier one")],
            timestamp_us: NOON_US - 1,
            attributes: Attributes {
                deliver_at_us: Some(5),
                priority: Some(7),
                ttl_ms: Some(100),
                group: Some(b"g"),
                message_id: Some(b"mine"),
            },
        };
        let attempts = [attempt(3, Why::LeaseExpired), attempt(4, Why::Nacked)];
        let (attributes, headers) = letter(&record, &attempts, Limits::default()).unwrap();
        let expected = Attributes { priority: Some(7), group: Some(b"g"), message_id: Some(b"9/77/0"), ..Attributes::default() };
        assert_eq!(attributes, format!("{expected:?}"));
        let expected = [
            ("trace", "abc"),
            ("tramline-dead-letter-queue", "mail"),
            ("tramline-dead-letter-topic", "orders"),
            ("tramline-dead-letter-partition", "3"),
            ("tramline-dead-letter-offset", "0"),
            ("tramline-dead-letter-timestamp", "2026-02-24T11:59:59.999999Z"),
            ("tramline-dead-letter-deliveries", "4"),
            ("tramline-dead-letter-reason", "nacked"),
            ("tramline-dead-letter-first-at", "2026-02-24T12:00:04.500000Z"),
            ("tramline-dead-letter-at", "2026-02-24T12:00:06.000000Z"),
            ("tramline-dead-letter-message-id", "mine"),
            ("tramline-dead-letter-attempt", "3\t2026-02-24T12:00:04.500000Z\tlease expired\tworker 1\tno disk at all"),
            ("tramline-dead-letter-attempt", "4\t2026-02-24T12:00:06.000000Z\tnacked\tworker 1\tno disk at all"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_not_remembered_is_unknown() {
        let (_, headers) = letter(&NewRecord { timestamp_us: NOON_US, ..NewRecord::default() }, &[], Limits::default()).unwrap();
        let reason = headers.iter().find(|(name, _)| name == "tramline-dead-letter-reason").unwrap();
        assert_eq!(reason.1, "unknown");
        assert!(headers.iter().all(|(name, _)| !name.ends_with("-at") && !name.ends_with("-attempt")));
    }

    #[test]
    fn the_history_is_shortened_before_a_letter_is_too_large() {
        let record = NewRecord { value: Some(&[7; 1000]), timestamp_us: NOON_US, ..NewRecord::default() };
        let attempts: Vec<_> = (1..=ATTEMPTS_MAX as u16).map(|n| attempt(n, Why::Nacked)).collect();
        let lines = |record_bytes_max| {
            let (_, headers) = letter(&record, &attempts, Limits { record_bytes_max, ..Limits::default() })?;
            let lines = headers.iter().filter(|(name, _)| name == "tramline-dead-letter-attempt");
            Ok(lines.map(|(_, line)| line.split('\t').next().unwrap().parse().unwrap()).collect::<Vec<u16>>())
        };
        assert_eq!(lines(1 << 20), Ok((1..=16).collect()));
        let some = lines(2000).unwrap();
        assert!(some.len() > 1 && some.len() < 16 && *some.last().unwrap() == 16, "the latest ones stay: {some:?}");
        assert_eq!(lines(1480), Ok(Vec::new()));
        assert!(matches!(lines(1100), Err(PushRefused::TooLarge { what: "record bytes", .. })));
    }

    #[test]
    fn the_longest_history_is_within_its_bounds() {
        let (consumer, reason): (Box<[u8]>, Box<[u8]>) = ([b'c'; 255].into(), [b'r'; 256].into());
        let longest = |n| Attempt { consumer: consumer.clone(), reason: reason.clone(), ..attempt(u16::MAX - n, Why::LeaseExpired) };
        let attempts: Vec<_> = (0..ATTEMPTS_MAX as u16).map(longest).collect();
        let name = "n".repeat(249);
        let origin = Origin { queue: &name, topic: &name, partition: u32::MAX, ..ORIGIN };
        let attributes = Attributes { message_id: Some(&[b'i'; 256]), ..Attributes::default() };
        let bytes = batch(&NewRecord { timestamp_us: NOON_US, attributes, ..NewRecord::default() });
        let view = BatchView::parse(&bytes).unwrap();
        let message = view.records(view.stored_values()).next().unwrap().unwrap();
        let limits = Limits { headers_max: LETTER_HEADERS_MAX, headers_bytes_max: LETTER_HEADERS_BYTES_MAX, ..Limits::default() };
        let mut builder = BatchBuilder::new(limits);
        push_letter(&mut builder, &origin, &message, u16::MAX, &attempts).unwrap();
        let mut bytes = Vec::new();
        builder.finish_plain(&mut bytes, ProducerMark::default());
        let view = BatchView::parse(&bytes).unwrap();
        let letter = view.records(view.stored_values()).next().unwrap().unwrap();
        assert_eq!(letter.headers.len(), LETTER_HEADERS_MAX as usize, "nothing was left out");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
            (253_402_300_800_000_000, "253402300800000000"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
            (i64::MIN, "-9223372036854775808"),
        ] {
            assert_eq!(time_text(us), text);
        }
    }
}
