//! Queues, seen from outside: making, changing, describing and deleting them; looking at their messages, and settling or redelivering them without leases.
//!
//! Invariants: what is asked of the partitions of a queue goes to their leaders, at most a bounded number at once; of a request that is repeated, what was done
//! the first time counts.
//!
//! Not here: receiving and settling (`queue_consumer.rs`), the types of the answers (`queue_types.rs`).

use std::collections::BTreeMap;

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;
use tramline_wire::prim::{DecodeError, List};
use tramline_wire::queue::{
    AlterQueueReply, AlterQueueRequest, BrowseReply, BrowseRequest, BrowseState, CreateQueueFlags, CreateQueueReply, CreateQueueRequest,
    DeleteMessagesReply, DeleteMessagesRequest, DeleteQueueReply, DeleteQueueRequest, DescribeQueueReply, DescribeQueueRequest,
    FindQueueReply, FindQueueRequest, ListQueuesReply, ListQueuesRequest, MessageAt, PurgeReply, PurgeRequest, QUEUE_MESSAGES_MAX,
    QueueFlags, QueueStart, REDRIVEN_MAX, RedriveFlags, RedriveReply, RedriveRequest,
};

use crate::admin::{Aim, Answerer, Shared};
use crate::client::{Client, PARTITIONS_PER_REQUEST_MAX, check_lengths, wire_settings};
use crate::error::Error;
use crate::everywhere::Asked;
use crate::link::Effect;
use crate::owners::{Wanted, aim, answered, refused};
use crate::pages::{self, Page};
use crate::queue_types::{BrowsedPage, CreatedQueue, FoundQueue, QueueDescription, QueuePartitionDescription, QueueSummary};
use crate::types::{At, TopicMetadata};

impl Client {
    /// Creates a queue on a topic, beginning there in each partition. With `if_not_exists` an existing queue is fine, whatever its topic and settings.
    pub fn create_queue(
        &self,
        name: &str,
        topic: &str,
        start: At,
        settings: &[(&str, &str)],
        if_not_exists: bool,
    ) -> Result<CreatedQueue, Error> {
        let flags = if if_not_exists { CreateQueueFlags::IF_NOT_EXISTS } else { CreateQueueFlags(0) };
        self.shared().create_queue(name, topic, start, settings, flags)
    }

    /// Checks what [`create_queue`](Self::create_queue) would check, and creates nothing.
    pub fn validate_queue(&self, name: &str, topic: &str, start: At, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.shared().create_queue(name, topic, start, settings, CreateQueueFlags::VALIDATE_ONLY).map(|_| ())
    }

    /// Changes settings (an empty value: back to the default).
    pub fn alter_queue(&self, name: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
        check_lengths(name, settings)?;
        let settings = wire_settings(settings);
        let request = AlterQueueRequest { name, settings: List::of(&settings) };
        let what = format!("alter queue {name:?}");
        let encode = |meta: &mut Vec<u8>| request.encode(meta);
        self.shared().call(&what, Kind::AlterQueue, Effect::Repeatable, encode, |meta| AlterQueueReply::decode(meta).map(|_| ()))
    }

    /// Deletes a queue; the messages stay in the topic. Receives that wait are ended.
    pub fn delete_queue(&self, name: &str) -> Result<(), Error> {
        check_lengths(name, &[])?;
        let what = format!("delete queue {name:?}");
        let encode = |meta: &mut Vec<u8>| DeleteQueueRequest { name }.encode(meta);
        self.shared().call(&what, Kind::DeleteQueue, Effect::Once, encode, |meta| DeleteQueueReply::decode(meta).map(|_| ()))
    }

    /// All queues, in order of name.
    pub fn list_queues(&self) -> Result<Vec<QueueSummary>, Error> {
        let (shared, deadline) = (self.shared(), self.shared().deadline());
        let ask = |last: Option<&QueueSummary>| {
            let encode = |meta: &mut Vec<u8>| ListQueuesRequest { after: last.map_or("", |queue| &queue.name) }.encode(meta);
            shared.call_until(deadline, "list queues", Kind::ListQueues, Effect::Repeatable, encode, |meta| {
                let reply = ListQueuesReply::decode(meta)?;
                Ok(Page { head: (), items: reply.queues.iter().map(QueueSummary::from).collect(), more: reply.more })
            })
        };
        Ok(pages::collect(|(), ()| true, |a: &QueueSummary, b| a.name < b.name, ask)?.1)
    }

    /// One queue with its settings and how it stands in each partition, as the node that leads that tells. Above some 2,000 partitions it is asked for in pages, which are not of one moment.
    pub fn describe_queue(&self, name: &str) -> Result<QueueDescription, Error> {
        check_lengths(name, &[])?;
        let what = format!("describe queue {name:?}");
        let (shared, deadline) = (self.shared(), self.shared().deadline());
        let kind = Kind::DescribeQueue;
        let mut node = None;
        let ask = |last: Option<&QueuePartitionDescription>| {
            let encode = |meta: &mut Vec<u8>| described_from(name, last).encode(meta);
            let read = |from: Answerer, meta: &[u8]| Ok((from.node, described_page(meta)?));
            // Pages of one node, as long as it answers: where another one does, what it does not lead is asked for below.
            let aim = Aim { deadline, node };
            let (from, page) = shared.call_of_cluster(aim, &what, kind, Effect::Repeatable, &[], encode, read)?;
            node = Some(from);
            Ok(page)
        };
        let (queue, partitions) = pages::collect(is_same_queue, is_partition_before, ask)?;
        let mut queue = QueueDescription { partitions, ..queue };
        let ask = |asked: &mut Asked<'_>| {
            let page = |last: Option<&QueuePartitionDescription>| {
                asked.call(kind, |meta: &mut Vec<u8>| described_from(name, last).encode(meta), described_page)
            };
            Ok(pages::collect(is_same_queue, is_partition_before, page)?.1)
        };
        let first = node.unwrap_or(0);
        queue.silent = shared.complete(&what, (&mut queue, first), deadline, QueueDescription::untold, ask, QueueDescription::take_in)?;
        Ok(queue)
    }

    /// What a consumer has to know of a queue.
    pub fn find_queue(&self, name: &str) -> Result<FoundQueue, Error> {
        self.shared().find_queue(name)
    }

    /// Looks at messages of one partition that are not settled, from an offset on; changes nothing. At most `count_max` (1 to 4,096) at once; go on
    /// at [`BrowsedPage::next`] until [`BrowsedPage::end`].
    pub fn browse_queue(&self, name: &str, partition: u32, from: u64, count_max: u32, state: BrowseState) -> Result<BrowsedPage, Error> {
        if !(1..=QUEUE_MESSAGES_MAX).contains(&count_max) {
            return Err(Error::config(&format!("count_max must be between 1 and {QUEUE_MESSAGES_MAX}, it is {count_max}")));
        }
        let queue = self.find_queue(name)?;
        let what = format!("browse queue {name:?}");
        let shared = self.shared();
        let deadline = shared.deadline();
        let wanted = [Wanted { partition, uid: None, asked: () }];
        let mut page = BrowsedPage::default();
        shared.by_owner(&what, &queue.topic, &wanted, 1, deadline, |questions| {
            let request = BrowseRequest { queue_uid: queue.uid, partition_uid: questions[0].uid, from, max_messages: count_max, state };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            page = shared.call_until(aim(questions, deadline), &what, Kind::Browse, Effect::Repeatable, encode, |meta| {
                Ok(BrowsedPage::from(BrowseReply::decode(meta)?))
            })?;
            Ok(())
        })?;
        if page.next < from || page.messages.iter().any(|message| !(from..page.next).contains(&message.offset)) {
            return Err(Error::protocol("the broker", format!("it browsed from {from} to {} with messages outside", page.next)));
        }
        Ok(page)
    }

    /// Settles every message that is committed now in these partitions (all, when none is named), leased and dead ones too. Returns how many by partition.
    /// After an error some may be settled; asking again is harmless. What an answer that was lost counted is not in the numbers.
    pub fn purge_queue(&self, name: &str, partitions: &[u32]) -> Result<Vec<(u32, u64)>, Error> {
        let what = format!("purge queue {name:?}");
        self.shared().count_by_partition(&what, name, partitions, &|shared, queue_uid, uids, aim| {
            let request = PurgeRequest { queue_uid, partitions: List::of(uids) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            shared.call_until(aim, &what, Kind::Purge, Effect::Repeatable, encode, |meta| {
                Ok(PurgeReply::decode(meta)?.entries.iter().map(|p| (p.partition_uid, p.error, p.purged)).collect())
            })
        })
    }

    /// Makes dead messages that are still in the queue ready again, as if they had never been delivered: the oldest of each partition first, at most so many in all, all when
    /// `None`. `dry_run`: only counts. Returns how many by partition. What went to a dead-letter topic is not in the queue any more. After an error some may be ready; asking
    /// again goes on.
    pub fn redrive_queue(&self, name: &str, partitions: &[u32], count_max: Option<u32>, dry_run: bool) -> Result<Vec<(u32, u64)>, Error> {
        let what = format!("redrive queue {name:?}");
        let flags = if dry_run { RedriveFlags::DRY_RUN } else { RedriveFlags(0) };
        let left = std::cell::Cell::new(count_max.map(u64::from));
        let ask: &AskCounts<'_> = &|shared, queue_uid, uids, aim| {
            let max_messages = match left.get() {
                None => 0,
                Some(0) => return Ok(uids.iter().map(|uid| (*uid, ErrorCode::Ok, 0)).collect()),
                Some(left) => u32::try_from(left).unwrap_or(u32::MAX),
            };
            let request = RedriveRequest { queue_uid, flags, max_messages, partitions: List::of(uids) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            let told: Vec<(u64, ErrorCode, u64)> = shared.call_until(aim, &what, Kind::Redrive, Effect::Repeatable, encode, |meta| {
                Ok(RedriveReply::decode(meta)?.entries.iter().map(|r| (r.partition_uid, r.error, r.redriven)).collect())
            })?;
            let done: u64 = told.iter().map(|(.., count)| *count).sum();
            left.set(left.get().map(|left| left.saturating_sub(done)));
            Ok(told)
        };
        let mut sum: BTreeMap<u32, u64> = BTreeMap::new();
        loop {
            let counts = self.shared().count_by_partition(&what, name, partitions, ask)?;
            // As many as one request brings back: there may be more.
            let goes_on = !dry_run && counts.iter().any(|(_, count)| *count >= REDRIVEN_MAX);
            counts.into_iter().for_each(|(partition, count)| *sum.entry(partition).or_default() += count);
            if !goes_on {
                return Ok(sum.into_iter().collect());
            }
        }
    }

    /// Settles single messages (partition, offset), whatever they are: a delayed one is cancelled by this. Returns in the order asked what became of each: `Ok`, or the broker's code
    /// (`unknown_message` where it is settled already). After an error some may be settled; asking again is harmless.
    pub fn delete_messages(&self, name: &str, messages: &[(u32, u64)]) -> Result<Vec<ErrorCode>, Error> {
        let queue = self.find_queue(name)?;
        let what = format!("delete messages of queue {name:?}");
        let wanted: Vec<_> = messages.iter().map(|&(partition, offset)| Wanted { partition, uid: None, asked: offset }).collect();
        let shared = self.shared();
        let deadline = shared.deadline();
        // What was deleted once would be unknown when all is asked again because one of them has to be.
        let mut told: Vec<Option<ErrorCode>> = vec![None; messages.len()];
        shared.by_owner(&what, &queue.topic, &wanted, PARTITIONS_PER_REQUEST_MAX, deadline, |questions| {
            let open: Vec<_> = questions.iter().filter(|question| told[question.place].is_none()).copied().collect();
            if open.is_empty() {
                return Ok(());
            }
            let entries: Vec<MessageAt> = open.iter().map(|q| MessageAt { partition_uid: q.uid, offset: q.asked }).collect();
            let request = DeleteMessagesRequest { queue_uid: queue.uid, entries: List::of(&entries) };
            let encode = |meta: &mut Vec<u8>| request.encode(meta);
            let answers: Vec<_> =
                shared.call_until(aim(&open, deadline), &what, Kind::DeleteMessages, Effect::Repeatable, encode, |meta| {
                    Ok(DeleteMessagesReply::decode(meta)?.entries.iter().collect())
                })?;
            let mut again = None;
            for (question, answer) in answered(&open, answers, |answer| answer.partition_uid)? {
                if answer.offset != question.asked {
                    return Err(Error::protocol(
                        "the broker",
                        format!("it deleted offset {} where {} was asked", answer.offset, question.asked),
                    ));
                }
                match answer.error.retriable() {
                    true => again = Some(refused(&what, question.partition, answer.error, String::new())),
                    false => told[question.place] = Some(answer.error),
                }
            }
            again.map_or(Ok(()), Err)
        })?;
        Ok(told.into_iter().map(|code| code.unwrap_or(ErrorCode::Internal)).collect())
    }
}

/// Asks for what is behind the last partition.
fn described_from<'a>(name: &'a str, last: Option<&QueuePartitionDescription>) -> DescribeQueueRequest<'a> {
    DescribeQueueRequest { name, first_partition: last.map_or(0, |last| last.partition.saturating_add(1)) }
}

fn described_page(meta: &[u8]) -> Result<Page<QueueDescription, QueuePartitionDescription>, DecodeError> {
    let reply = DescribeQueueReply::decode(meta)?;
    let more = reply.more;
    let mut head = QueueDescription::from(reply);
    Ok(Page { items: std::mem::take(&mut head.partitions), head, more })
}

fn is_same_queue(a: &QueueDescription, b: &QueueDescription) -> bool {
    a.uid == b.uid
}

fn is_partition_before(a: &QueuePartitionDescription, b: &QueuePartitionDescription) -> bool {
    a.partition < b.partition
}

/// Asks one owner of some partitions for numbers: queue, partitions, whom and until when.
type AskCounts<'a> = dyn Fn(&Shared, u64, &[u64], Aim) -> Result<Vec<(u64, ErrorCode, u64)>, Error> + 'a;

impl Shared {
    fn create_queue(
        &self,
        name: &str,
        topic: &str,
        start: At,
        settings: &[(&str, &str)],
        flags: CreateQueueFlags,
    ) -> Result<CreatedQueue, Error> {
        check_lengths(name, settings)?;
        check_lengths(topic, &[])?;
        let (start, start_us) = match start {
            At::Latest => (QueueStart::Latest, 0),
            At::Earliest => (QueueStart::Earliest, 0),
            At::Time(us) if us >= 0 => (QueueStart::Time, us),
            At::Time(us) => return Err(Error::config(&format!("the time {us} us is before 1970: use Earliest"))),
        };
        let settings = wire_settings(settings);
        let request = CreateQueueRequest { name, topic, flags, start, start_us, settings: List::of(&settings) };
        let effect = if flags == CreateQueueFlags(0) { Effect::Once } else { Effect::Repeatable };
        let what = format!("create queue {name:?}");
        let encode = |meta: &mut Vec<u8>| request.encode(meta);
        self.call(&what, Kind::CreateQueue, effect, encode, |meta| {
            let reply = CreateQueueReply::decode(meta)?;
            Ok(CreatedQueue { uid: reply.queue_uid, created: reply.created })
        })
    }

    pub(crate) fn find_queue(&self, name: &str) -> Result<FoundQueue, Error> {
        check_lengths(name, &[])?;
        let what = format!("find queue {name:?}");
        let encode = |meta: &mut Vec<u8>| FindQueueRequest { name }.encode(meta);
        self.call(&what, Kind::FindQueue, Effect::Repeatable, encode, |meta| {
            let reply = FindQueueReply::decode(meta)?;
            Ok(FoundQueue {
                name: name.to_string(),
                uid: reply.queue_uid,
                topic: reply.topic.to_string(),
                topic_uid: reply.topic_uid,
                visibility_timeout_ms: reply.visibility_timeout_ms,
                is_paused: reply.flags.has(QueueFlags::PAUSED),
                is_exclusive: reply.flags.has(QueueFlags::EXCLUSIVE),
            })
        })
    }

    /// Sums up by partition what the owners answer; what was done before a repetition counts.
    fn count_by_partition(&self, what: &str, name: &str, partitions: &[u32], ask: &AskCounts<'_>) -> Result<Vec<(u32, u64)>, Error> {
        let queue = self.find_queue(name)?;
        let deadline = self.deadline();
        let chosen: Vec<u32> = match partitions {
            [] => self.topic(&queue.topic, deadline)?.partitions.iter().map(|partition| partition.index).collect(),
            named => named.to_vec(),
        };
        let wanted: Vec<_> = chosen.iter().map(|&partition| Wanted { partition, uid: None, asked: () }).collect();
        let mut counts: BTreeMap<u32, u64> = chosen.iter().map(|&partition| (partition, 0)).collect();
        let mut done = vec![false; wanted.len()];
        self.by_owner(what, &queue.topic, &wanted, PARTITIONS_PER_REQUEST_MAX, deadline, |questions| {
            let open: Vec<_> = questions.iter().filter(|question| !done[question.place]).copied().collect();
            let uids: Vec<u64> = open.iter().map(|question| question.uid).collect();
            if uids.is_empty() {
                return Ok(());
            }
            let mut failed = None;
            for (question, (_, error, count)) in answered(&open, ask(self, queue.uid, &uids, aim(&open, deadline))?, |(uid, ..)| *uid)? {
                match error.is_ok() {
                    true => {
                        done[question.place] = true;
                        *counts.entry(question.partition).or_default() += count;
                    }
                    false => failed = Some(refused(what, question.partition, error, String::new())),
                }
            }
            failed.map_or(Ok(()), Err)
        })?;
        Ok(counts.into_iter().collect())
    }

    /// A queue with the partitions of its topic.
    pub(crate) fn queue_with_partitions(&self, name: &str) -> Result<(FoundQueue, crate::types::Metadata), Error> {
        let queue = self.find_queue(name)?;
        let metadata = self.metadata(&[&queue.topic])?;
        let TopicMetadata { uid, .. } = crate::client::existing_topic(&metadata, &queue.topic)?;
        if *uid != queue.topic_uid {
            let request = format!("look up the topic of queue {name:?}");
            let code = ErrorCode::QueueDeleted;
            return Err(Error::Refused { request, code, retriable: false, message: String::new(), next: None });
        }
        Ok((queue, metadata))
    }
}
