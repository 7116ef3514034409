//! Decodes bytes as everything there is and goes through the result, allocating nothing itself. Also the fuzz targets' body.

use tramline_wire::batch::{BatchView, Batches, Limits, Records};
use tramline_wire::cluster::*;
use tramline_wire::codec::Codec;
use tramline_wire::error::ErrorBody;
use tramline_wire::fetch::*;
use tramline_wire::frame::{self, Need};
use tramline_wire::group::*;
use tramline_wire::hello::*;
use tramline_wire::metadata::*;
use tramline_wire::offsets::*;
use tramline_wire::prim::{Item, List};
use tramline_wire::produce::*;
use tramline_wire::producer::*;
use tramline_wire::queue::*;
use tramline_wire::step::*;
use tramline_wire::storage::*;
use tramline_wire::topics::*;
use tramline_wire::trim::*;

/// Goes through a list; its iterator must give as many items as it promised.
fn list<'a, T: Item<'a>>(list: &List<'a, T>, mut each: impl FnMut(T)) {
    let mut count = 0;
    for item in list {
        each(item);
        count += 1;
    }
    assert_eq!(count, list.len(), "a validated list gave fewer items than it has");
}

fn nodes<'a>(nodes: &List<'a, Node<'a>>) {
    list(nodes, |node| list(&node.shard_ports, |_| {}));
}

/// Decodes `meta` as every body there is; returns how many accepted it.
pub fn metas(meta: &[u8]) -> usize {
    let mut accepted = 0;
    macro_rules! one {
        ($type:ident) => {
            accepted += $type::decode(meta).is_ok() as usize;
        };
        ($type:ident, $body:ident => $walk:expr) => {
            if let Ok($body) = $type::decode(meta) {
                accepted += 1;
                $walk;
            }
        };
    }
    one!(ErrorBody, body => body.code());
    one!(HelloRequest);
    one!(HelloReply, body => {
        list(&body.apis, |_| {});
        list(&body.mechanisms, |_| {});
        nodes(&body.nodes);
    });
    one!(PingRequest);
    one!(PingReply);
    one!(MetadataRequest, body => list(&body.topics, |_| {}));
    one!(MetadataReply, body => {
        nodes(&body.nodes);
        list(&body.topics, |topic| list(&topic.partitions, |_| {}));
    });
    one!(ProduceRequest, body => {
        list(&body.entries, |_| {});
        if let Ok(batches) = body.batches(meta) {
            batches.for_each(|(_, bytes)| batch(bytes));
        }
    });
    one!(ProduceReply, body => list(&body.results, |_| {}));
    one!(FetchRequest, body => list(&body.entries, |_| {}));
    one!(FetchReply, body => {
        list(&body.entries, |_| {});
        if let Ok(parts) = body.parts(meta) {
            parts.for_each(|(_, bytes)| batch(bytes));
        }
    });
    one!(FetchCreditRequest);
    one!(FetchCancelRequest);
    one!(FetchCancelReply);
    one!(ListOffsetsRequest, body => list(&body.entries, |_| {}));
    one!(ListOffsetsReply, body => list(&body.entries, |_| {}));
    one!(CreateTopicRequest, body => list(&body.settings, |_| {}));
    one!(CreateTopicReply);
    one!(AlterTopicRequest, body => list(&body.settings, |_| {}));
    one!(AlterTopicReply);
    one!(DeleteTopicRequest);
    one!(DeleteTopicReply);
    one!(ListTopicsRequest);
    one!(ListTopicsReply, body => list(&body.topics, |_| {}));
    one!(DescribeTopicRequest);
    one!(DescribeTopicReply, body => {
        list(&body.settings, |_| {});
        list(&body.partitions, |_| {});
    });
    one!(DescribeOptionsRequest);
    one!(DescribeOptionsReply, body => list(&body.options, |_| {}));
    one!(TrimPartitionsRequest, body => list(&body.entries, |_| {}));
    one!(TrimPartitionsReply, body => list(&body.entries, |_| {}));
    one!(InitProducerRequest);
    one!(InitProducerReply);
    one!(FindGroupRequest);
    one!(FindGroupReply);
    one!(JoinGroupRequest, body => list(&body.topics, |_| {}));
    one!(JoinGroupReply, body => list(&body.partitions, |_| {}));
    one!(HeartbeatGroupRequest, body => list(&body.topics, |_| {}));
    one!(HeartbeatGroupReply, body => list(&body.partitions, |_| {}));
    one!(LeaveGroupRequest);
    one!(LeaveGroupReply);
    one!(CommitOffsetsRequest, body => list(&body.entries, |_| {}));
    one!(CommitOffsetsReply, body => list(&body.entries, |_| {}));
    one!(FetchOffsetsRequest, body => list(&body.entries, |_| {}));
    one!(FetchOffsetsReply, body => list(&body.entries, |_| {}));
    one!(ListGroupsRequest);
    one!(ListGroupsReply, body => list(&body.groups, |_| {}));
    one!(DescribeGroupRequest);
    one!(DescribeGroupReply, body => {
        list(&body.members, |_| {});
        list(&body.partitions, |_| {});
    });
    one!(DeleteGroupRequest);
    one!(DeleteGroupReply);
    one!(DescribeClusterRequest);
    one!(DescribeClusterReply, body => {
        list(&body.nodes, |_| {});
        list(&body.groups, |group| {
            list(&group.voters, |_| {});
            list(&group.learners, |_| {});
        });
    });
    one!(AlterClusterRequest);
    one!(AlterClusterReply);
    one!(DescribeStorageRequest);
    one!(DescribeStorageReply, body => list(&body.shards, |_| {}));
    accepted + queue_metas(meta)
}

/// Decodes `meta` as every body of queues.
fn queue_metas(meta: &[u8]) -> usize {
    let mut accepted = 0;
    macro_rules! one {
        ($type:ident) => {
            accepted += $type::decode(meta).is_ok() as usize;
        };
        ($type:ident, $body:ident => $walk:expr) => {
            if let Ok($body) = $type::decode(meta) {
                accepted += 1;
                $walk;
            }
        };
    }
    one!(CreateQueueRequest, body => list(&body.settings, |_| {}));
    one!(CreateQueueReply);
    one!(AlterQueueRequest, body => list(&body.settings, |_| {}));
    one!(AlterQueueReply);
    one!(DeleteQueueRequest);
    one!(DeleteQueueReply);
    one!(ListQueuesRequest);
    one!(ListQueuesReply, body => list(&body.queues, |_| {}));
    one!(FindQueueRequest);
    one!(FindQueueReply);
    one!(DescribeQueueRequest);
    one!(DescribeQueueReply, body => {
        list(&body.settings, |_| {});
        list(&body.partitions, |_| {});
    });
    one!(ReceiveRequest, body => list(&body.partitions, |_| {}));
    one!(ReceiveReply, body => {
        list(&body.entries, |entry| list(&entry.deliveries, |_| {}));
        if let Ok(parts) = body.parts(meta) {
            parts.for_each(|(_, bytes)| batch(bytes));
        }
    });
    one!(SettleRequest, body => list(&body.entries, |_| {}));
    one!(SettleReply, body => list(&body.entries, |_| {}));
    one!(BrowseRequest);
    one!(BrowseReply, body => list(&body.messages, |_| {}));
    one!(PurgeRequest, body => list(&body.partitions, |_| {}));
    one!(PurgeReply, body => list(&body.entries, |_| {}));
    one!(DeleteMessagesRequest, body => list(&body.entries, |_| {}));
    one!(DeleteMessagesReply, body => list(&body.entries, |_| {}));
    one!(RedriveRequest, body => list(&body.partitions, |_| {}));
    one!(RedriveReply, body => list(&body.entries, |_| {}));
    one!(StepRequest, body => {
        list(&body.acks, |_| {});
        list(&body.commits, |_| {});
        list(&body.entries, |_| {});
        if let Ok(batches) = body.batches(meta) {
            batches.for_each(|(_, bytes)| batch(bytes));
        }
    });
    one!(StepReply, body => list(&body.results, |_| {}));
    accepted
}

/// Looks for a frame, and decodes its meta as everything there is.
pub fn frame(bytes: &[u8]) {
    for limits in [frame::Limits::default(), frame::Limits::PROTOCOL, frame::Limits::BEFORE_HELLO] {
        match frame::peek(bytes, &limits) {
            Ok(Need::More(total)) => {
                assert!(total > bytes.len(), "asks for {total} bytes and has {}", bytes.len());
                assert!(total <= frame::HEADER_BYTES + limits.frame_bytes_max as usize, "asks for more than the limit");
            }
            Ok(Need::Whole(frame, len)) => {
                assert_eq!(len, frame::HEADER_BYTES + frame.meta.len() + frame.payload.len());
                metas(frame.meta);
                batches(frame.payload);
            }
            Err(error) => {
                error.code();
                frame::blame(bytes);
            }
        }
    }
}

/// Walks the records; returns how many there were before the end or the first error.
pub fn records(records: Records<'_>) -> usize {
    let mut count = 0;
    for record in records {
        let Ok(record) = record else { break };
        let promised = record.headers.len();
        assert_eq!(record.headers.count(), promised, "checked headers gave fewer than they have");
        count += 1;
    }
    count
}

/// Treats bytes as one batch: header, checksums, index, records, validation.
pub fn batch(bytes: &[u8]) {
    BatchView::declared_len(bytes);
    for limits in [Limits::default(), Limits::LAYOUT] {
        let _ = tramline_wire::batch::validate(bytes, &limits);
        let Ok(view) = BatchView::parse(bytes) else { continue };
        let valid = view.validate_records(&limits).is_ok();
        let _ = view.verify_body();
        let _ = view.verify_header();
        let entries = view.index().take_while(Result::is_ok).count();
        let walked = records(view.records(view.stored_values()));
        if valid {
            assert_eq!(entries, view.record_count() as usize, "the index of a valid batch is short");
            if view.codec() == Codec::None {
                assert_eq!(walked, view.record_count() as usize, "a valid batch does not give all its records");
            }
        }
        // Values that are longer or shorter than declared are an error, never a panic.
        records(view.records(bytes));
        records(view.records(&[]));
        view.last_offset();
        view.next_offset();
        view.effective_newest_us();
    }
}

/// Treats bytes as concatenated batches.
pub fn batches(bytes: &[u8]) {
    let mut seen = 0;
    for view in Batches::new(bytes).flatten() {
        seen += view.len();
        records(view.records(view.stored_values()));
    }
    assert!(seen <= bytes.len());
}
