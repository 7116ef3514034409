//! Atomic steps against a real node of two shards that is killed: each input is worked on once in effect, whatever happens in between.
//!
//! Not here: what is refused, and crashes in the middle of a write (the broker's own tests).

use common::{Node, Options, WAIT};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tramline_client::{
    At, Client, Config, ConsumerConfig, ErrorCode, LeaseToken, ProducerConfig, QueueConsumerConfig, Record, Start, Step,
};

const MESSAGES: usize = 300;
const PARTITIONS: u32 = 4;

fn connect(node: &Node) -> Client {
    connect_to(node.server())
}

fn connect_to(server: String) -> Client {
    let until = Instant::now() + WAIT;
    loop {
        match Client::connect(Config { servers: vec![server.clone()], ..Config::default() }) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// Carries bytes to a node and back. Told to lose the next answer, it closes that connection when the answer comes.
struct Proxy {
    address: SocketAddr,
    node: Arc<Mutex<SocketAddr>>,
    loses: Arc<AtomicBool>,
    lost: Receiver<()>,
}

impl Proxy {
    fn to(node: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (node, loses) = (Arc::new(Mutex::new(node)), Arc::new(AtomicBool::new(false)));
        let (tell, lost) = channel();
        let proxy = Proxy { address, node: Arc::clone(&node), loses: Arc::clone(&loses), lost };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                // While the node is down its connections are closed at once.
                let (client, to) = (client.unwrap(), *node.lock().unwrap());
                let Ok(node) = TcpStream::connect(to) else { continue };
                let (mut asks, mut node_in) = (client.try_clone().unwrap(), node.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut asks, &mut node_in);
                    let _ = node_in.shutdown(Shutdown::Both);
                });
                let (loses, tell) = (Arc::clone(&loses), tell.clone());
                std::thread::spawn(move || carry_answers(node, client, &loses, &tell));
            }
        });
        proxy
    }
}

fn carry_answers(mut node: TcpStream, mut client: TcpStream, loses: &AtomicBool, lost: &Sender<()>) {
    let mut room = [0; 65_536];
    while let Ok(count @ 1..) = node.read(&mut room) {
        if loses.swap(false, Ordering::SeqCst) {
            let _ = lost.send(());
            break;
        }
        if client.write_all(&room[..count]).is_err() {
            break;
        }
    }
    let _ = (node.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
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
fn a_step_whose_answer_is_lost_is_sent_again_also_after_a_kill_and_carried_out_once() {
    let mut node = Some(Node::with(Options::shards(1)));
    let running = |node: &Option<Node>| connect(node.as_ref().expect("it runs"));
    let proxy = Proxy::to(node.as_ref().unwrap().ready.client);
    let client = connect_to(proxy.address.to_string());
    client.create_topic("in", 1, &[], false).unwrap();
    client.create_topic("out", 1, &[("co.locate", "in")], false).unwrap();
    let queue = client.create_queue("work", "in", At::Earliest, &[], false).unwrap();
    let mut producer = running(&node).producer(ProducerConfig::default()).unwrap();
    for value in ["a", "b"] {
        producer.send(&Record { topic: "in", value: Some(value.as_bytes()), ..Record::default() }).unwrap();
    }
    producer.flush(WAIT).unwrap();
    fn record(value: &[u8]) -> Record<'_> {
        Record { topic: "out", partition: Some(0), value: Some(value), ..Record::default() }
    }
    let mut steps = client.steps().unwrap();
    // It looks the partition up, so that the answer that comes next over this connection is that to a step.
    steps.take(&Step::new().publish(record(b"first"))).unwrap();
    for (number, kills) in [false, true].into_iter().enumerate() {
        let message = running(&node).queue_consumer("work", QueueConsumerConfig::default()).unwrap().receive(1, WAIT).unwrap().remove(0);
        let value = message.value.unwrap();
        let step = Step::new().ack(queue.uid, message.token).publish(record(&value));
        proxy.loses.store(true, Ordering::SeqCst);
        let taken = std::thread::scope(|scope| {
            let taking = scope.spawn(|| steps.take(&step));
            proxy.lost.recv_timeout(WAIT).expect("the node answers");
            if kills {
                let mut killed = node.take().expect("it runs");
                killed.process.kill();
                let restarted = killed.restart();
                *proxy.node.lock().unwrap() = restarted.ready.client;
                node = Some(restarted);
            }
            taking.join().unwrap()
        });
        assert_eq!(taken.expect("answered as the first time")[0].1, 1 + number as u64);
        let again = steps.take(&step).expect_err("the message is settled");
        assert_eq!(again.code(), Some(ErrorCode::UnknownLease));
    }
    assert_eq!(read_all(&running(&node), "out"), ["first", "a", "b"]);
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
