//! The asynchronous twins over real sockets, in a runtime of one thread, against the fake broker in a thread of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::kind::Kind;

use super::{Client, Consumer, GroupConsumer, Producer};
use crate::fake::tcp::FakeServer;
use crate::{Config, ConsumerConfig, Error, GroupConfig, ProducerConfig, QueueConsumerConfig, Record, SendError, Start};

/// Longer than anything here takes; a test that fails waits for it, none that passes does.
const LONG: Duration = Duration::from_secs(20);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LONG, test).await.expect("in time") });
}

async fn connect(server: &FakeServer, partitions: u32) -> Client {
    let client = Client::connect(server.config()).await.expect("the fake broker answers");
    client.run(move |client| client.create_topic("t", partitions, &[], false)).await.expect("created");
    client
}

async fn read_all(client: &Client) -> BTreeMap<u32, Vec<u64>> {
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign_all("t", Start::Earliest).await.expect("assigned");
    let mut read: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let each = |record: &crate::RecordView<'_>| {
        let value = record.value.and_then(|value| value.try_into().ok()).map(u64::from_le_bytes).expect("eight bytes");
        read.entry(record.partition).or_default().push(value);
    };
    consumer.read_to_end(each).await.expect("read");
    read
}

#[test]
fn futures_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(producer: &mut Producer, consumer: &mut Consumer, member: &mut GroupConsumer) {
        is_send(&producer.drive());
        is_send(&producer.flush());
        is_send(&consumer.poll(|_| {}));
        is_send(&consumer.assign_all("t", Start::Earliest));
        is_send(&member.poll(|_| {}));
        is_send(&member.commit());
    }
    let _ = check;
}

#[test]
fn what_is_produced_is_consumed() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 3).await;
        let mut producer = client.producer(ProducerConfig { buffer_bytes: 70_000, ..ProducerConfig::default() }).expect("a producer");
        for number in 0..5000u64 {
            let record =
                Record { topic: "t", partition: Some((number % 3) as u32), value: Some(&number.to_le_bytes()), ..Record::default() };
            producer.send(&record).await.expect("taken");
        }
        producer.flush().await;
        let mut acked = 0;
        producer.drain(|delivery| acked += u32::from(delivery.error.is_none()));
        assert_eq!((acked, producer.outstanding(), producer.held_bytes()), (5000, 0, 0));
        assert!(producer.metrics().buffer_full > 0, "it had to wait for room");
        for (partition, values) in read_all(&client).await {
            assert_eq!(values, (0..5000).filter(|number| (*number % 3) as u32 == partition).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_future_dropped_at_any_await_loses_and_repeats_nothing() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 2).await;
        let mut producer = client.producer(ProducerConfig { batch_bytes: 500, ..ProducerConfig::default() }).expect("a producer");
        producer.partitions("t").await.expect("known");
        for number in 0..2000u64 {
            let record =
                Record { topic: "t", partition: Some((number % 2) as u32), value: Some(&number.to_le_bytes()), ..Record::default() };
            producer.send(&record).await.expect("taken");
            if number.is_multiple_of(3) {
                // Polled once, and dropped where it stood.
                let _ = tokio::time::timeout(Duration::ZERO, producer.drive()).await;
            }
        }
        while tokio::time::timeout(Duration::ZERO, producer.flush()).await.is_err() {}
        let mut failed = 0;
        producer.drain(|delivery| failed += u32::from(delivery.error.is_some()));
        assert_eq!(failed, 0);

        let mut consumer = client.consumer(ConsumerConfig { credit_bytes: 4096, ..ConsumerConfig::default() }).expect("a consumer");
        consumer.assign_all("t", Start::Earliest).await.expect("assigned");
        let mut read: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut count = 0;
        while count < 2000 {
            let each = |record: &crate::RecordView<'_>| {
                let value = record.value.and_then(|value| value.try_into().ok()).map(u64::from_le_bytes).expect("eight bytes");
                read.entry(record.partition).or_default().push(value);
                count += 1;
                if value.is_multiple_of(7) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            if let Ok(result) = tokio::time::timeout(Duration::ZERO, consumer.poll_until(each)).await {
                result.expect("no error");
            }
        }
        for (partition, values) in read {
            assert_eq!(values, (0..2000).filter(|number| (*number % 2) as u32 == partition).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_lost_connection_is_mended_and_nothing_is_stored_twice() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 1).await;
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        let value = |number: u64| number.to_le_bytes();
        producer.send(&Record { topic: "t", value: Some(&value(0)), ..Record::default() }).await.expect("taken");
        producer.flush().await;
        server.broker().holds_acks = true;
        producer.send(&Record { topic: "t", value: Some(&value(1)), ..Record::default() }).await.expect("taken");
        while server.broker().held.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(1), producer.flush()).await;
        }
        server.cut();
        server.broker().holds_acks = false;
        producer.send(&Record { topic: "t", value: Some(&value(2)), ..Record::default() }).await.expect("taken");
        producer.flush().await;
        let mut offsets = Vec::new();
        producer.drain(|delivery| offsets.push(delivery.offset));
        assert_eq!(offsets, [Some(0), Some(1), Some(2)]);
        assert_eq!(read_all(&client).await[&0], [0, 1, 2]);
    });
}

#[test]
fn refusals_are_waited_for_by_the_runtimes_clock() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 1).await;
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        let first = server.broker().topics[0].partitions[0];
        server.broker().log(first).refusals.extend([ErrorCode::Overloaded; 5]);
        server.broker().refuse_requests.push_back((Kind::InitProducer, ErrorCode::NotReady));
        producer.send(&Record { topic: "t", value: Some(&[0; 8]), ..Record::default() }).await.expect("taken");
        producer.flush().await;
        let mut fates = Vec::new();
        producer.drain(|delivery| fates.push(delivery.offset));
        assert_eq!((fates, producer.metrics().refusals), (vec![Some(0)], 5));
    });
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 1).await;
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        let record = Record { topic: "none", value: Some(b"v"), ..Record::default() };
        assert!(matches!(producer.try_send(&record), Err(SendError::Client(Error::Config { .. }))));
        let Err(SendError::Client(error)) = producer.send(&record).await else { panic!("taken") };
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
        assert_eq!(producer.drive().await, 0);
    });
}

#[test]
fn a_broker_that_talks_without_an_end_does_not_keep_the_runtimes_thread() {
    const SHORT: Duration = Duration::from_millis(30);
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 1).await;
        let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
        consumer.assign("t", 0, Start::Offset(0)).await.expect("assigned");
        server.broker().chatter_bytes = 2 << 30;
        assert!(tokio::time::timeout(SHORT, consumer.poll(|_| {})).await.is_err());
        assert!(server.broker().chatter_bytes > 0, "the timer was heard when the flood was over");
        drop(consumer);

        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        server.broker().holds_acks = true;
        producer.send(&Record { topic: "t", value: Some(b"v"), ..Record::default() }).await.expect("taken");
        assert!(tokio::time::timeout(SHORT, producer.flush()).await.is_err());
        assert!(tokio::time::timeout(SHORT, producer.drive()).await.is_err());
        assert!(server.broker().chatter_bytes > 0, "the timer was heard when the flood was over");
        server.broker().chatter_bytes = 0;
        server.broker().release(1);
        producer.flush().await;
    });
}

#[test]
fn a_member_of_a_group_reads_commits_and_leaves() {
    let server = FakeServer::start();
    run(async {
        let client = connect(&server, 2).await;
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        for number in 0..100u64 {
            let partition = Some((number % 2) as u32);
            let record = Record { topic: "t", partition, value: Some(&number.to_le_bytes()), ..Record::default() };
            producer.send(&record).await.expect("taken");
        }
        producer.flush().await;
        let uids = server.broker().topics[0].partitions.clone();
        server.broker().group.next_list = uids.iter().map(|uid| (*uid, 5)).collect();
        let mut member = client.group_consumer(crate::GroupConfig::new("g", &["t"])).expect("a member");
        let mut count = 0;
        while count < 100 {
            count += member.poll(|_| {}).await.expect("records");
        }
        member.seek("t", 0, Start::Offset(48)).await.expect("sought");
        let mut again = Vec::new();
        while again.len() < 2 {
            member.poll(|record| again.push(record.offset)).await.expect("records");
        }
        assert_eq!(again, [48, 49]);
        member.commit().await.expect("committed");
        assert_eq!(member.committed("t", &[0, 1]).await.expect("told"), [Some(50), Some(50)]);
        assert!(member.seek("t", 9, Start::Earliest).await.is_err());
        assert_eq!((member.assigned().len(), member.member_id()), (2, Some(1)));
        member.close().await.expect("left");
        assert_eq!(server.broker().group.left, [(1, false)]);
    });
}

#[test]
fn messages_of_a_queue_are_leased_and_settled_also_after_a_dropped_future() {
    run(async {
        let server = FakeServer::start();
        let client = connect(&server, 2).await;
        server.broker().queues.name = "q".to_string();
        let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).await.expect("a consumer");
        // Dropped while both owners wait: what they lease then is handed out by the next call.
        let dropped = tokio::time::timeout(Duration::from_millis(20), consumer.receive(2, LONG)).await;
        assert!(dropped.is_err());
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        for partition in 0..2 {
            producer.send(&Record { topic: "t", partition: Some(partition), value: Some(b"v"), ..Record::default() }).await.expect("taken");
        }
        producer.flush().await;
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(consumer.receive(2, LONG).await.expect("messages"));
        }
        let tokens = [got[0].token, got[1].token];
        assert!(consumer.ack_all(&tokens).await.expect("answers").iter().all(Result::is_ok));
        assert_eq!(consumer.ack(tokens[0]).await.expect_err("settled already").code(), Some(ErrorCode::UnknownLease));
        assert!(consumer.receive(1, Duration::from_millis(5)).await.expect("nothing").is_empty());
        assert_eq!(consumer.metrics().messages, 2);
        consumer.close(LONG).await.expect("closed in order");
    });
}

/// How often the future was polled until it ended.
async fn polls_of<R>(future: impl Future<Output = R>) -> (usize, R) {
    let mut future = std::pin::pin!(future);
    let mut polls = 0;
    let result = std::future::poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    });
    let result = result.await;
    (polls, result)
}

#[test]
fn a_commit_and_a_close_wait_for_their_answers_and_not_for_an_auto_commit_that_is_due() {
    let server = FakeServer::start();
    run(async {
        let config = Config { call_timeout: Duration::from_millis(500), ..server.config() };
        let client = Client::connect(config).await.expect("the fake broker answers");
        client.run(|client| client.create_topic("t", 1, &[], false)).await.expect("created");
        let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
        producer.send(&Record { topic: "t", value: Some(b"v"), ..Record::default() }).await.expect("taken");
        producer.flush().await;
        let uid = server.broker().topics[0].partitions[0];
        server.broker().group.next_list = vec![(uid, 5)];
        let config = GroupConfig { auto_commit_interval: Duration::from_millis(100), ..GroupConfig::new("g", &["t"]) };
        let mut member = client.group_consumer(config).expect("a member");
        assert_eq!(member.poll(|_| {}).await.expect("a record"), 1);
        server.broker().answer_with(|frame| (frame.header.kind() == Some(Kind::CommitOffsets)).then(Vec::new));
        let (polls, committed) = polls_of(member.commit()).await;
        assert!(matches!(committed, Err(Error::Timeout { .. })) && polls < 50, "{polls} polls: {committed:?}");
        member.commit_later().expect("taken");
        let (polls, _) = polls_of(member.close()).await;
        assert!(polls < 50, "{polls} polls");
        assert_eq!(server.broker().group.left, [(1, false)]);
    });
}
