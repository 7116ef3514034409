//! Queues over real sockets, against the fake broker in a thread: administration, the consumer, its Tokio twin.

use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::queue::REDRIVEN_MAX;

use crate::fake::queues::State;
use crate::fake::tcp::FakeServer;
use crate::{
    Attributes, BrowseState, Client, Config, Error, LeaseToken, MessageState, ProducerConfig, QueueConsumerConfig, Record, Settle,
    deliver_after,
};

/// Longer than anything here takes; a test that fails waits for it, none that passes does.
const LONG: Duration = Duration::from_secs(20);

/// A queue `q` on a topic of four partitions and two shards, with so many messages in turn.
fn filled(count: u64) -> (FakeServer, Client) {
    let server = FakeServer::start();
    let client = Client::connect(server.config()).expect("the fake broker answers");
    client.create_topic("t", 4, &[], false).expect("created");
    server.broker().queues.name = "q".to_string();
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for number in 0..count {
        let value = number.to_string();
        let attributes = Attributes { priority: Some(7), group: Some(b"g"), message_id: Some(value.as_bytes()), ..Attributes::default() };
        let attributes = Attributes { deliver_at_us: Some(deliver_after(Duration::ZERO)), ttl_ms: Some(60_000), ..attributes };
        let partition = Some((number % 4) as u32);
        producer.send(&Record { topic: "t", partition, value: Some(value.as_bytes()), attributes, ..Record::default() }).expect("taken");
    }
    producer.flush(LONG).expect("acknowledged");
    (server, client)
}

#[test]
fn messages_are_received_with_their_attributes_and_settled() {
    let (server, client) = filled(100);
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig { max_messages: 7, ..Default::default() }).expect("a consumer");
    assert_eq!((consumer.queue().topic.as_str(), consumer.queue().is_paused), ("t", false));
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let messages = consumer.poll().expect("messages");
        assert!((1..=7).contains(&messages.len()));
        for message in &messages {
            let attributes = &message.attributes;
            assert_eq!((attributes.priority, attributes.ttl_ms, attributes.group.as_deref()), (Some(7), Some(60_000), Some(&b"g"[..])));
            assert!(attributes.deliver_at_us.is_some() && attributes.message_id == message.value);
            assert_eq!(attributes.borrowed().priority, Some(7));
        }
        let tokens: Vec<LeaseToken> = messages.iter().map(|message| message.token).collect();
        assert!(consumer.ack_all(&tokens).expect("answers").iter().all(Result::is_ok));
        seen.extend(
            messages.iter().map(|m| String::from_utf8_lossy(m.value.as_deref().unwrap_or_default()).parse::<u64>().expect("a number")),
        );
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert!(consumer.receive(1, Duration::ZERO).expect("nothing").is_empty());
    assert_eq!((consumer.metrics().messages, consumer.metrics().settled), (100, 100));
    assert!(server.broker().queues.messages.values().all(|state| state.settled));
}

#[test]
fn a_token_is_settled_by_another_consumer_and_over_a_new_connection() {
    let (server, client) = filled(4);
    let mut holder = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    let mut held = Vec::new();
    while held.len() < 4 {
        held.extend(holder.receive(4, LONG).expect("messages"));
    }
    drop(holder);
    let text = held[0].token.to_string();
    let mut other = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    other.ack(text.parse().expect("a token")).expect("settled");
    assert_eq!(other.ack(held[0].token).expect_err("settled already").code(), Some(ErrorCode::UnknownLease));
    server.cut();
    other.nack(held[1].token, Some(Duration::from_secs(9)), "later").expect("settled");
    other.extend(held[2].token, Duration::from_secs(60)).expect("extended");
    other.release(held[2].token).expect("given back");
    other.reject(held[3].token, "never").expect("dead");
    let state = |place: usize| server.broker().message(held[place].token.partition_uid, held[place].offset);
    assert_eq!((state(1).delay_ms, state(1).reason.as_str(), state(2).deliveries, state(3).dead), (9_000, "later", 0, true));
    assert_eq!(other.receive(10, LONG).expect("given back").len(), 1);
}

#[test]
fn what_cannot_be_asked_is_refused_before_it_is_sent() {
    let (_server, client) = filled(1);
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    assert!(consumer.receive(0, LONG).expect_err("none").to_string().contains("max_messages"));
    assert!(consumer.receive(1, Duration::from_secs(4000)).expect_err("too long").to_string().contains("wait"));
    let message = consumer.receive(1, LONG).expect("one").pop().expect("one");
    assert!(consumer.nack(message.token, None, &"x".repeat(257)).expect_err("too long").to_string().contains("256"));
    let forever = Settle::Nack { delay: Some(Duration::MAX), reason: String::new() };
    assert!(consumer.settle(&[(message.token, forever)]).expect_err("too long").to_string().contains("49 days"));
    assert!(consumer.settle(&[]).expect("nothing").is_empty());
    consumer.ack(message.token).expect("nothing of that was taken");
    let nameless = QueueConsumerConfig { consumer: String::new(), ..Default::default() };
    assert!(client.queue_consumer("q", nameless).expect_err("no name").to_string().contains("consumer"));
}

#[test]
fn a_deleted_queue_ends_a_receive_that_waits() {
    let (server, client) = filled(0);
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || consumer.receive(1, LONG));
        while !server.broker().queues.is_waited_for() {
            std::thread::yield_now();
        }
        server.broker().queues.name.clear();
        let error = waits.join().expect("no panic").expect_err("the queue is gone");
        assert_eq!(error.code(), Some(ErrorCode::QueueDeleted));
    });
    assert_eq!(client.find_queue("q").expect_err("gone").code(), Some(ErrorCode::UnknownQueue));
}

#[test]
fn a_consumer_that_closes_gives_back_what_was_not_handed_out() {
    let (server, client) = filled(0);
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    // Both owners wait; the first message ends the call, the second is leased by the Receive that is left.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| consumer.receive(2, LONG).expect("a message"));
        let fill = |partition: u32| {
            let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
            producer.send(&Record { topic: "t", partition: Some(partition), value: Some(b"v"), ..Record::default() }).expect("taken");
            producer.flush(LONG).expect("acknowledged");
        };
        while !server.broker().queues.is_waited_for() {
            std::thread::yield_now();
        }
        fill(0);
        assert_eq!(waits.join().expect("no panic").len(), 1);
        fill(1);
    });
    consumer.close(LONG).expect("closed in order");
    let broker = server.broker();
    let held = broker.queues.messages.values().filter(|state| state.lease != 0).count();
    assert_eq!(held, 1, "only what was handed out: {:?}", broker.queues.messages);
}

#[test]
fn messages_are_browsed_purged_deleted_and_redriven_by_their_owners() {
    let (server, client) = filled(8);
    let page = client.browse_queue("q", 1, 0, 10, BrowseState::Any).expect("a page");
    assert_eq!((page.messages.len(), page.next, page.end), (2, 2, true));
    assert_eq!(client.browse_queue("q", 1, 0, 1, BrowseState::Ready).expect("a page").next, 1);
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    let message = consumer.receive(1, LONG).expect("one").pop().expect("one");
    let page = client.browse_queue("q", message.partition, 0, 10, BrowseState::Leased).expect("a page");
    assert_eq!((page.messages[0].lease, page.messages[0].state), (Some(message.token.lease), MessageState::Leased));
    consumer.reject(message.token, "broken").expect("dead");
    assert_eq!(client.redrive_queue("q", &[], None, true).expect("counted").iter().map(|(_, count)| count).sum::<u64>(), 1);
    assert_eq!(client.redrive_queue("q", &[message.partition], Some(5), false).expect("redriven"), [(message.partition, 1)]);
    let uid = server.broker().topics[0].partitions[3];
    for offset in 100..101 + REDRIVEN_MAX {
        server.broker().queues.messages.insert((uid, offset), State { dead: true, ..State::default() });
    }
    assert_eq!(client.redrive_queue("q", &[3], None, false).expect("in two requests"), [(3, REDRIVEN_MAX + 1)]);
    // One of two has to be asked again: what the other one came to is not forgotten.
    server.broker().queues.settle_refusals = [ErrorCode::Ok, ErrorCode::NotLeader].into();
    let told = client.delete_messages("q", &[(0, 0), (2, 0), (0, 77)]).expect("answers");
    assert_eq!(told, [ErrorCode::Ok, ErrorCode::Ok, ErrorCode::UnknownMessage]);
    let uid = server.broker().topics[0].partitions[2];
    server.broker().queues.refusals.insert(uid, [ErrorCode::NotLeader].into());
    let purged = client.purge_queue("q", &[]).expect("purged");
    assert_eq!(purged, [(0, 1), (1, 2), (2, 1), (3, 2)]);
    assert!(matches!(client.purge_queue("q", &[9]), Err(Error::NoSuchPartition { partition: 9, partitions: 4, .. })));
    assert!(client.browse_queue("q", 0, 0, 0, BrowseState::Any).expect_err("none").to_string().contains("count_max"));
}

#[test]
fn spinning_gives_the_same() {
    let (server, _) = filled(10);
    let client = Client::connect(Config { busy_poll: true, ..server.config() }).expect("connects");
    let mut consumer = client.queue_consumer("q", QueueConsumerConfig::default()).expect("a consumer");
    let mut count = 0;
    while count < 10 {
        let messages = consumer.receive(3, LONG).expect("messages");
        count += messages.len();
        messages.iter().for_each(|message| consumer.ack(message.token).expect("settled"));
    }
}
