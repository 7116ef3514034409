//! Atomic steps against a real node of two shards that is killed: each input is worked on once in effect, whatever happens in between.
//!
//! Not here: what is refused, and crashes in the middle of a write (the broker's own tests).

mod common;

use common::{Node, Options, WAIT};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tramline_client::{
    At, Client, Config, ConsumerConfig, ErrorCode, LeaseToken, ProducerConfig, QueueConsumerConfig, Record, Start, Step,
};

const MESSAGES: usize = 300;
const PARTITIONS: u32 = 4;

fn connect(node: &Node) -> Client {
    let until = Instant::now() + WAIT;
    loop {
        match Client::connect(Config { servers: vec![node.server()], ..Config::default() }) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

fn read_all(client: &Client, topic: &str) -> Vec<String> {
    let mut consumer = client.consumer(ConsumerConfig::default()).unwrap();
    consumer.assign_all(topic, Start::Earliest).unwrap();
    let mut values = Vec::new();
    consumer.read_to_end(WAIT, |record| values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap())).unwrap();
    values
}

#[test]
fn each_input_has_one_output_over_kills_of_the_node() {
    let mut node = Node::with(Options::shards(2));
    let client = connect(&node);
    client.create_topic("in", PARTITIONS, &[], false).unwrap();
    client.create_topic("out", PARTITIONS, &[("co.locate", "in")], false).unwrap();
    let queue =
        client.create_queue("work", "in", At::Earliest, &[("visibility.timeout.ms", "2000"), ("max.deliveries", "-1")], false).unwrap();
    let mut producer = client.producer(ProducerConfig::default()).unwrap();
    for number in 0..MESSAGES {
        let value = number.to_string();
        let record =
            Record { topic: "in", partition: Some(number as u32 % PARTITIONS), value: Some(value.as_bytes()), ..Record::default() };
        producer.send(&record).unwrap();
    }
    producer.flush(WAIT).unwrap();
    let (mut done, mut refused) = (0, 0);
    let until = Instant::now() + 3 * WAIT;
    for kill_after in [100, 200, usize::MAX] {
        let client = connect(&node);
        let mut consumer = client.queue_consumer("work", QueueConsumerConfig::default()).unwrap();
        let mut steps = client.steps().unwrap();
        while done < MESSAGES.min(kill_after) {
            assert!(Instant::now() < until, "{done} steps were taken, {refused} refused");
            for message in consumer.receive(7, Duration::from_millis(200)).unwrap() {
                let value = format!("done {}", String::from_utf8_lossy(message.value.as_deref().unwrap()));
                let output =
                    Record { topic: "out", partition: Some(message.partition), value: Some(value.as_bytes()), ..Record::default() };
                match steps.take(&Step::new().ack(queue.uid, message.token).publish(output)) {
                    Ok(published) => {
                        assert_eq!(published.len(), 1);
                        done += 1;
                    }
                    // Its lease was over: it comes again.
                    Err(error)
                        if matches!(error.code(), Some(ErrorCode::LeaseExpired | ErrorCode::LeaseLost | ErrorCode::UnknownLease)) =>
                    {
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        if kill_after < MESSAGES {
            // In the middle of everything: leases are out, and the step that comes next waits for the node.
            let held = consumer.receive(3, Duration::from_secs(2)).unwrap();
            node.process.kill();
            node = node.restart();
            let mut steps = connect(&node).steps().unwrap();
            for message in held {
                let value = format!("done {}", String::from_utf8_lossy(message.value.as_deref().unwrap()));
                let output =
                    Record { topic: "out", partition: Some(message.partition), value: Some(value.as_bytes()), ..Record::default() };
                let step = Step::new().ack(queue.uid, message.token).publish(output);
                steps.take(&step).expect("a token outlives the node");
                let again = steps.take(&step).expect_err("the message is settled");
                assert_eq!(again.code(), Some(ErrorCode::UnknownLease));
                done += 1;
            }
        }
    }
    let values = read_all(&connect(&node), "out");
    let distinct: BTreeSet<&String> = values.iter().collect();
    assert_eq!((values.len(), distinct.len()), (MESSAGES, MESSAGES));
}

#[test]
fn what_lies_apart_is_refused_and_nothing_of_it_done() {
    let node = Node::with(Options::shards(2));
    let client = connect(&node);
    client.create_topic("in", 2, &[], false).unwrap();
    client.create_topic("out", 2, &[("co.locate", "in")], false).unwrap();
    let mut steps = client.steps().unwrap();
    let record = |partition| Record { topic: "out", partition: Some(partition), value: Some(b"v"), ..Record::default() };
    let apart = steps.take(&Step::new().publish(record(0)).publish(record(1))).expect_err("two shards");
    assert_eq!(apart.code(), Some(ErrorCode::NotCoLocated), "{apart}");
    // The same where one of the two is an ack.
    let found = client.metadata(&["in"]).unwrap();
    let queue = client.create_queue("q", "in", At::Earliest, &[], false).unwrap();
    let token = LeaseToken { partition_uid: found.topics[0].partitions[1].uid, offset: 0, lease: 1 };
    let apart = steps.take(&Step::new().ack(queue.uid, token).publish(record(0))).expect_err("two shards");
    assert_eq!(apart.code(), Some(ErrorCode::NotCoLocated), "{apart}");
    assert!(read_all(&client, "out").is_empty());
    assert_eq!(steps.take(&Step::new().publish(record(1)).publish(record(1))).unwrap().len(), 1);
    assert_eq!(read_all(&client, "out").len(), 2);
    let nothing = steps.take(&Step::new()).expect_err("nothing to do");
    assert_eq!(nothing.code(), Some(ErrorCode::InvalidRequest));
}
