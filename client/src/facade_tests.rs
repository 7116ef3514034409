//! Client, producer, consumer and raw connection over real sockets, against the fake broker in a thread.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::hello::{HelloReply, Node};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::offsets::{ListOffsetsReply, OffsetAnswer};
use tramline_wire::prim::List;
use tramline_wire::trim::{TrimAnswer, TrimPartitionsReply};

use crate::fake::tcp::FakeServer;
use crate::fake::{refusal_of, reply_to};
use crate::{At, Before, Client, Codec, Config, ConsumerConfig, Error, ProducerConfig, RawConn, Record, SendError, Start};

/// Longer than anything here takes; a test that fails waits for it, none that passes does.
const LONG: Duration = Duration::from_secs(20);

fn connect(server: &FakeServer) -> Client {
    Client::connect(server.config()).expect("the fake broker answers")
}

fn fill(client: &Client, topic: &str, count: u64) {
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for number in 0..count {
        let (key, value) = (format!("key {}", number % 10), format!("value {number}"));
        let record = Record {
            topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_us: Some(number as i64),
            ..Record::default()
        };
        producer.send(&record).expect("taken");
    }
    producer.flush(LONG).expect("acknowledged");
    let mut acked = 0;
    producer.drain(|delivery| {
        assert!(delivery.error.is_none());
        assert_eq!(delivery.level, Level::Durable);
        acked += 1;
    });
    assert_eq!(acked, count);
}

/// Reads until nothing has come for the end offsets: values by partition.
fn read_all(client: &Client, topic: &str, config: ConsumerConfig) -> BTreeMap<u32, Vec<String>> {
    let mut consumer = client.consumer(config).expect("a consumer");
    consumer.assign_all(topic, Start::Earliest).expect("assigned");
    let ends = consumer.end_offsets().expect("offsets");
    let mut values: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    while ends.iter().any(|(topic, partition, end)| consumer.position(topic, *partition) < Some(*end)) {
        let count = consumer
            .poll(LONG, |record| {
                let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                values.entry(record.partition).or_default().push(value);
            })
            .expect("records");
        assert!(count > 0, "nothing came for {LONG:?}");
    }
    values
}

#[test]
fn what_is_produced_is_consumed_by_key_and_in_order() {
    let server = FakeServer::start();
    let client = connect(&server);
    assert!(client.create_topic("t", 4, &[], false).expect("created").created);
    fill(&client, "t", 5000);
    let values = read_all(&client, "t", ConsumerConfig::default());
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), 5000);
    for (partition, values) in values {
        let numbers: Vec<u64> = values.iter().map(|value| value[6..].parse().expect("a number")).collect();
        assert!(numbers.is_sorted());
        for number in numbers {
            assert_eq!(crate::key_partition(format!("key {}", number % 10).as_bytes(), 4), partition);
        }
    }
}

#[test]
fn busy_polling_and_small_credit_give_the_same() {
    let server = FakeServer::start();
    let client = Client::connect(Config { busy_poll: true, ..server.config() }).expect("connects");
    client.create_topic("t", 3, &[], false).expect("created");
    fill(&client, "t", 2000);
    let values = read_all(&client, "t", ConsumerConfig { credit_bytes: 5000, ..ConsumerConfig::default() });
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), 2000);
}

#[test]
fn a_producer_waits_when_its_buffer_is_full_and_try_send_does_not() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    let config = ProducerConfig { buffer_bytes: 20_000, batch_bytes: 2000, ..ProducerConfig::default() };
    let mut producer = client.producer(config).expect("a producer");
    let record = Record { topic: "t", value: Some(&[1; 500]), ..Record::default() };
    server.broker().holds_acks = true;
    let mut taken = 0;
    while producer.try_send(&record).is_ok() {
        taken += 1;
        assert!(taken < 100);
    }
    assert!(matches!(producer.try_send(&record), Err(SendError::BufferFull { .. })));
    {
        let mut broker = server.broker();
        broker.holds_acks = false;
        broker.release(100);
    }
    for _ in 0..200 {
        producer.send(&record).expect("there is room before long");
        taken += 1;
    }
    producer.flush(LONG).expect("acknowledged");
    let mut acked = 0;
    producer.drain(|delivery| acked += u32::from(delivery.error.is_none()));
    assert_eq!(acked, taken);
}

#[test]
fn poll_returns_at_once_when_nothing_is_outstanding() {
    let server = FakeServer::start();
    let client = connect(&server);
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    assert_eq!(producer.poll(LONG).expect("nothing to do"), 0);
}

#[test]
fn every_codec_goes_through() {
    let server = FakeServer::start();
    let client = connect(&server);
    for compression in [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
        let topic = compression.name();
        client.create_topic(topic, 1, &[], false).expect("created");
        let mut producer = client.producer(ProducerConfig { compression, ..ProducerConfig::default() }).expect("a producer");
        for tag in 0..100 {
            let record = Record { topic, value: Some(b"the same again and again"), tag, ..Record::default() };
            producer.send(&record).expect("taken");
        }
        producer.flush(LONG).expect("acknowledged");
        let values = read_all(&client, topic, ConsumerConfig::default());
        assert_eq!(values[&0], vec!["the same again and again"; 100]);
    }
}

#[test]
fn a_consumer_starts_where_it_is_told() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    fill(&client, "t", 100);
    for (start, first) in [(Start::Earliest, 0), (Start::Offset(42), 42), (Start::Time(70), 70)] {
        let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
        consumer.assign("t", 0, start).expect("assigned");
        let mut seen = None;
        consumer
            .poll_until(LONG, |record| {
                seen = Some(record.offset);
                ControlFlow::Break(())
            })
            .expect("a record");
        assert_eq!(seen, Some(first), "{start:?}");
    }
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign("t", 0, Start::Latest).expect("assigned");
    assert_eq!(consumer.position("t", 0), Some(100));
    assert_eq!(consumer.poll(Duration::from_millis(20), |_| {}).expect("nothing"), 0);
    fill(&client, "t", 1);
    assert_eq!(consumer.poll(LONG, |record| assert_eq!(record.offset, 100)).expect("the new one"), 1);
    assert_eq!(consumer.committed_end("t", 0), Some(101));
}

#[test]
fn a_consumer_goes_on_after_its_connection_was_cut() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 2, &[], false).expect("created");
    fill(&client, "t", 1000);
    let mut consumer = client.consumer(ConsumerConfig { credit_bytes: 4096, ..ConsumerConfig::default() }).expect("a consumer");
    consumer.assign_all("t", Start::Earliest).expect("assigned");
    let mut count = 0;
    for round in 0.. {
        if count == 1000 {
            break;
        }
        if round % 5 == 2 && round < 30 {
            server.cut();
        }
        let got = consumer.poll(LONG, |_| {}).expect("no error while it can go on");
        assert!(got > 0);
        count += got;
    }
}

/// Sends three records; the connection is cut when the second one is stored and not answered. What became of each: its offset, or whether it is unknown.
fn cut_after_the_second(config: ProducerConfig) -> Vec<Result<Option<u64>, bool>> {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    let mut producer = client.producer(config).expect("a producer");
    let record = Record { topic: "t", value: Some(b"v"), ..Record::default() };
    producer.send(&record).expect("taken");
    producer.flush(LONG).expect("acknowledged");
    server.broker().holds_acks = true;
    producer.send(&record).expect("taken");
    producer.poll(Duration::ZERO).expect("sent");
    // The broker has it once it has seen the frame.
    while server.broker().held.is_empty() {
        std::thread::yield_now();
    }
    server.cut();
    // Noticed, and not mended by the same call: the next attempt has a wait before it.
    producer.poll(Duration::ZERO).expect("noticed");
    assert!(producer.trouble().is_some() || producer.outstanding() == 0);
    server.broker().holds_acks = false;
    producer.send(&record).expect("taken");
    producer.flush(LONG).expect("each has its fate");
    assert!(producer.trouble().is_none());
    let mut fates = Vec::new();
    producer.drain(|delivery| fates.push(delivery.error.map_or(Ok(delivery.offset), |error| Err(error.outcome_unknown()))));
    fates
}

#[test]
fn records_whose_connection_was_cut_are_sent_again_and_stored_once() {
    assert_eq!(cut_after_the_second(ProducerConfig::default()), [Ok(Some(0)), Ok(Some(1)), Ok(Some(2))]);
}

#[test]
fn without_idempotence_records_whose_connection_was_cut_are_told_and_the_producer_goes_on() {
    let config = ProducerConfig { idempotent: false, ..ProducerConfig::default() };
    assert_eq!(cut_after_the_second(config), [Ok(Some(0)), Err(true), Ok(Some(2))]);
}

#[test]
fn a_connection_that_was_cut_while_idle_costs_no_record() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for _ in 0..3 {
        producer.send(&Record { topic: "t", value: Some(b"v"), ..Record::default() }).expect("taken");
        producer.flush(LONG).expect("acknowledged");
        producer.drain(|delivery| assert!(delivery.error.is_none(), "{:?}", delivery.error));
        server.cut();
        producer.forget_when_received();
    }
}

#[test]
fn administration_is_retried_when_that_is_safe() {
    let server = FakeServer::start();
    let client = connect(&server);
    server.broker().refuse_requests.extend([(Kind::CreateTopic, ErrorCode::NotReady), (Kind::Metadata, ErrorCode::Overloaded)]);
    client.create_topic("t", 2, &[], false).expect("the second attempt");
    assert_eq!(client.metadata(&["t"]).expect("the second attempt").topics[0].partitions.len(), 2);
    let error = client.create_topic("t", 2, &[], false).expect_err("it exists");
    assert_eq!(error.code(), Some(ErrorCode::TopicExists));
    assert!(!client.create_topic("t", 2, &[], true).expect("it exists, which is fine").created);
    server.cut();
    client.ping().expect("on a new connection");
    client.delete_topic("t").expect("deleted");
    let error = client.end_offsets("t").expect_err("gone");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
}

#[test]
fn offsets_are_listed() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    fill(&client, "t", 10);
    let found = client.list_offsets("t", &[(0, At::Earliest), (0, At::Latest), (0, At::Time(4))]).expect("listed");
    assert_eq!(found.iter().map(|found| found.offset).collect::<Vec<_>>(), [0, 10, 4]);
    assert_eq!(found[2].timestamp_us, Some(4));
    assert!(matches!(client.list_offsets("t", &[(5, At::Latest)]), Err(Error::NoSuchPartition { partition: 5, .. })));
}

#[test]
fn answers_about_other_partitions_are_not_taken() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    server.broker().answer_with(|frame| match frame.header.kind() {
        Some(Kind::ListOffsets) => {
            let answers = [OffsetAnswer { partition_uid: 77, error: ErrorCode::Ok, offset: 1234, timestamp_us: -1 }];
            Some(reply_to(frame, |out| ListOffsetsReply { entries: List::of(&answers) }.encode(out)))
        }
        Some(Kind::TrimPartitions) => {
            let answers = [TrimAnswer { partition_uid: 77, error: ErrorCode::Ok, log_start: 7, committed_end: 9 }];
            Some(reply_to(frame, |out| TrimPartitionsReply { entries: List::of(&answers) }.encode(out)))
        }
        _ => None,
    });
    assert!(matches!(client.list_offsets("t", &[(0, At::Latest)]), Err(Error::Protocol { .. })));
    assert!(matches!(client.trim_topic("t", Before::Latest, &[]), Err(Error::Protocol { .. })));
}

#[test]
fn topics_are_trimmed_by_owner_and_not_at_all_where_a_partition_does_not_reach_that_far() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 3, &[], false).expect("created");
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for (partition, count) in [(0, 10), (1, 6), (2, 4)] {
        for number in 0..count {
            let record =
                Record { topic: "t", partition: Some(partition), value: Some(b"v"), timestamp_us: Some(number), ..Record::default() };
            producer.send(&record).expect("taken");
        }
    }
    producer.flush(LONG).expect("acknowledged");
    let trim = |before: Before, partitions: &[u32]| {
        let trimmed = client.trim_topic("t", before, partitions)?;
        Ok::<_, Error>(trimmed.iter().map(|found| (found.partition, found.log_start, found.committed_end)).collect::<Vec<_>>())
    };
    assert_eq!(trim(Before::Offset(1), &[2, 0]).expect("trimmed"), [(2, 1, 4), (0, 1, 10)], "in the order asked");
    assert_eq!(trim(Before::Time(3), &[]).expect("trimmed"), [(0, 3, 10), (1, 3, 6), (2, 3, 4)]);
    let error = trim(Before::Offset(5), &[]).expect_err("partition 2 has four records");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
    assert!(error.to_string().contains("partition 2") && error.to_string().contains("trim before 4 at most"), "{error}");
    assert_eq!(trim(Before::Offset(0), &[]).expect("nothing to do"), [(0, 3, 10), (1, 3, 6), (2, 3, 4)], "the others stayed");
    assert!(matches!(trim(Before::Latest, &[0, 3]), Err(Error::NoSuchPartition { partition: 3, partitions: 3, .. })));
    assert_eq!(client.trim_topic("none", Before::Latest, &[]).expect_err("no such topic").code(), Some(ErrorCode::UnknownTopic));
    // One that may pass is asked again.
    server.broker().logs.values_mut().for_each(|log| log.trim_refusals.push_back(ErrorCode::NotReady));
    assert_eq!(trim(Before::Latest, &[]).expect("trimmed"), [(0, 10, 10), (1, 6, 6), (2, 4, 4)]);
}

#[test]
fn sending_to_an_unknown_topic_or_partition_is_refused_at_once() {
    let server = FakeServer::start();
    let client = connect(&server);
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    let Err(SendError::Client(error)) = producer.send(&Record { topic: "none", value: Some(b"v"), ..Record::default() }) else {
        panic!("taken")
    };
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    client.create_topic("t", 1, &[], false).expect("created");
    let record = Record { topic: "t", partition: Some(1), value: Some(b"v"), ..Record::default() };
    assert!(matches!(producer.send(&record), Err(SendError::Client(Error::NoSuchPartition { .. }))));
}

#[test]
fn connecting_where_nothing_listens_says_so_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let error = Client::connect(Config::new(&address)).expect_err("nobody there").to_string();
    assert!(error.contains(&address) && error.contains("nothing listens there"), "{error}");
}

#[test]
fn a_second_server_is_used_when_the_first_is_down() {
    let server = FakeServer::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let down = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let client = Client::connect(Config::new(&format!("{down}, {}", server.address))).expect("the second answers");
    assert_eq!(client.hello().node, 1);
}

#[test]
fn a_raw_connection_sends_and_receives_frames() {
    let server = FakeServer::start();
    let mut conn = RawConn::open(&server.address, &server.config()).expect("connects");
    let correlations: Vec<u64> = (0..3).map(|_| conn.next_correlation()).collect();
    for correlation in &correlations {
        conn.queue_frame(Kind::Ping, 0, *correlation, &[], &[]).expect("queued");
    }
    for correlation in correlations {
        let frame = conn.recv_frame(Duration::MAX).expect("an answer").expect("in time");
        assert_eq!((frame.header.correlation, frame.header.is_reply()), (correlation, true));
    }
    assert!(conn.recv_frame(Duration::from_millis(5)).expect("nothing more").is_none());
    conn.send_bytes(b"TR").expect("half a magic");
    conn.shutdown_write().expect("closed");
    assert!(matches!(conn.recv_frame(LONG), Err(Error::Io { .. })));
}

#[test]
fn a_client_can_be_shared_and_the_others_can_be_sent() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Client>();
    shared::<Error>();
    sent::<crate::Producer>();
    sent::<crate::Consumer>();
    sent::<RawConn>();
}

#[test]
fn sending_alone_connects_and_sends_full_batches() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 2, &[], false).expect("created");
    let config = ProducerConfig { batch_bytes: 2000, ..ProducerConfig::default() };
    let mut producer = client.producer(config).expect("a producer");
    producer.send(&Record { topic: "t", partition: Some(1), value: Some(b"alone"), ..Record::default() }).expect("taken");
    let record = Record { topic: "t", partition: Some(0), value: Some(&[1; 500]), ..Record::default() };
    let mut acked = 0;
    while acked < 100 {
        producer.send(&record).expect("taken");
        producer.drain(|delivery| {
            assert_eq!(delivery.partition, 0, "what is open without a linger waits for a poll");
            acked += u32::from(delivery.error.is_none());
        });
    }
}

#[test]
fn a_stopped_partition_is_told_although_another_flows() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 2, &[], false).expect("created");
    let mut producer = client.producer(ProducerConfig { batch_bytes: 200, ..ProducerConfig::default() }).expect("a producer");
    for _ in 0..5000 {
        producer.send(&Record { topic: "t", partition: Some(1), value: Some(&[7; 150]), ..Record::default() }).expect("taken");
    }
    producer.flush(LONG).expect("acknowledged");
    let mut consumer = client.consumer(ConsumerConfig { credit_bytes: 4096, ..ConsumerConfig::default() }).expect("a consumer");
    consumer.assign("t", 0, Start::Offset(99)).expect("assigned");
    consumer.assign("t", 1, Start::Earliest).expect("assigned");
    let mut count = 0;
    let error = loop {
        match consumer.poll(LONG, |_| {}) {
            Ok(got) => count += got,
            Err(error) => break error,
        }
    };
    assert!(count < 5000);
    assert_eq!((error.code(), error.resume_offset()), (Some(ErrorCode::OffsetOutOfRange), Some(0)));
}

#[test]
fn a_consumer_reads_to_the_end_as_it_was_and_leaves_out_what_is_paused() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 2, &[], false).expect("created");
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign_all("t", Start::Earliest).expect("assigned");
    assert_eq!(consumer.read_to_end(LONG, |_| {}).expect("nothing to read"), 0);
    fill(&client, "t", 1000);
    assert!(consumer.pause("t", 1) && !consumer.pause("t", 1));
    let mut seen = [0u64; 2];
    let count = consumer.read_to_end(LONG, |record| seen[record.partition as usize] += 1).expect("read");
    assert_eq!((count as u64, seen[1]), (seen[0], 0));
    assert_eq!(consumer.paused().collect::<Vec<_>>(), [("t", 1)]);
    assert!(consumer.resume("t", 1) && !consumer.resume("t", 1));
    consumer.read_to_end(LONG, |record| seen[record.partition as usize] += 1).expect("read");
    assert_eq!(seen.iter().sum::<u64>(), 1000);
    assert_eq!((consumer.metrics().records, consumer.metrics().connections_opened), (1000, 2));
    // A partition that brings nothing more is told when the time is over.
    let end = consumer.position("t", 0).expect("assigned");
    consumer.assign("t", 0, Start::Offset(end - 1)).expect("a seek");
    let first = server.broker().topics[0].partitions[0];
    server.broker().log(first).fetch_refusals.extend([ErrorCode::NotReady; 50]);
    let error = consumer.read_to_end(Duration::from_millis(30), |_| {}).expect_err("refused for longer than that");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn a_call_that_asks_many_owners_has_one_time_for_all() {
    let server = FakeServer::start();
    {
        let mut broker = server.broker();
        broker.shard_ports = vec![broker.port; 50];
    }
    let call_timeout = Duration::from_millis(300);
    let client = Client::connect(Config { call_timeout, ..server.config() }).expect("connects");
    client.create_topic("t", 50, &[], false).expect("created");
    // Each answer takes a time that each owner's request has and all together do not.
    server.broker().answer_with(move |frame| {
        if matches!(frame.header.kind(), Some(Kind::ListOffsets | Kind::TrimPartitions)) {
            let begun = std::time::Instant::now();
            while begun.elapsed() < call_timeout / 10 {
                std::thread::yield_now();
            }
        }
        None
    });
    assert!(matches!(client.end_offsets("t"), Err(Error::Timeout { .. })));
    assert!(matches!(client.trim_topic("t", Before::Latest, &[]), Err(Error::Timeout { .. })));
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    assert!(matches!(consumer.assign_all("t", Start::Earliest), Err(Error::Timeout { .. })));
    for kind in [Kind::ListOffsets, Kind::TrimPartitions] {
        assert!(server.broker().count(kind) < 30, "{kind:?} was asked of most owners");
    }
}

/// A port where a connection neither opens nor fails: its queue of one place is taken.
fn dead_end() -> (std::os::fd::OwnedFd, std::net::TcpStream, u16) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listen(&listener, 0).expect("listens");
    let probe = std::net::TcpListener::from(listener.try_clone().expect("a copy"));
    let address = probe.local_addr().expect("an address");
    let taken = std::net::TcpStream::connect(address).expect("the one place");
    (listener, taken, address.port())
}

#[test]
fn a_call_has_its_time_however_many_nodes_are_dead() {
    let (_listener, _taken, port) = dead_end();
    let server = FakeServer::start();
    let mut is_first = true;
    server.broker().answer_with(move |frame| {
        // The first hello names nodes that swallow what is sent to them; later ones are refused, so that those are tried.
        if !std::mem::take(&mut is_first) {
            return Some(refusal_of(frame, ErrorCode::NotReady));
        }
        let node = Node { node: 2, host: "127.0.0.1", port, shard_ports: List::default() };
        let nodes = vec![node; 1000];
        let reply = HelloReply {
            protocol: 1,
            feature_level: 1,
            cluster_id: [7; 16],
            node: 1,
            shard: 0,
            frame_max: 8 << 20,
            fetch_frame: 0,
            keepalive_ms: 0,
            idle_timeout_ms: 0,
            apis: List::default(),
            mechanisms: List::default(),
            challenge: &[],
            nodes: List::of(&nodes),
        };
        Some(reply_to(frame, |out| reply.encode(out)))
    });
    let config = Config { connect_timeout: LONG, call_timeout: Duration::from_millis(100), ..server.config() };
    let client = Client::connect(config).expect("the first hello");
    let start = std::time::Instant::now();
    let error = client.ping().expect_err("nobody answers");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
}

#[test]
fn a_dead_address_does_not_stall_the_other_partitions_of_a_busy_polling_producer() {
    let server = FakeServer::start();
    let (_listener, _taken, port) = dead_end();
    server.broker().shard_ports[0] = port;
    // Whoever waits for the dead port waits for longer than this test may take.
    let config = Config { busy_poll: true, connect_timeout: 3 * LONG, ..server.config() };
    let client = Client::connect(config).expect("connects");
    client.create_topic("t", 2, &[], false).expect("created");
    let mut producer = client.producer(ProducerConfig { delivery_timeout: 10 * LONG, ..ProducerConfig::default() }).expect("a producer");
    let start = std::time::Instant::now();
    let mut longest = Duration::ZERO;
    let mut acked = 0;
    producer.send(&Record { topic: "t", partition: Some(0), value: Some(b"waits"), ..Record::default() }).expect("taken");
    while acked < 100 {
        assert!(start.elapsed() < LONG, "only {acked} were acknowledged");
        producer.send(&Record { topic: "t", partition: Some(1), value: Some(b"goes"), ..Record::default() }).expect("taken");
        let before = std::time::Instant::now();
        producer.poll(Duration::ZERO).expect("a turn");
        longest = longest.max(before.elapsed());
        producer.drain(|delivery| acked += u32::from(delivery.partition == 1 && delivery.error.is_none()));
    }
    assert!(longest < LONG / 4, "one turn took {longest:?}");
    assert!(producer.outstanding() > 0, "the record for the dead address waits");
}

#[test]
fn a_broker_that_talks_without_an_end_and_sends_no_record_does_not_keep_the_caller() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 1, &[], false).expect("created");
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign("t", 0, Start::Offset(0)).expect("assigned");
    server.broker().chatter_bytes = 2 << 30;
    for timeout in [Duration::from_millis(30), Duration::ZERO] {
        assert_eq!(consumer.poll(timeout, |_| {}).expect("nothing came"), 0);
    }
    assert!(server.broker().chatter_bytes > 0, "it came back when the flood was over, not when the time was");
    server.broker().chatter_bytes = 0;
}

#[test]
fn a_connection_over_which_nothing_is_read_is_closed_and_opened_again_when_it_is_needed() {
    let server = FakeServer::start();
    let client = connect(&server);
    client.create_topic("t", 2, &[], false).expect("created");
    fill(&client, "t", 1000);
    let mut consumer = client.consumer(ConsumerConfig::default()).expect("a consumer");
    consumer.assign_all("t", Start::Earliest).expect("assigned");
    assert_eq!(consumer.read_to_end(LONG, |_| {}).expect("read"), 1000);
    let of_the_second = consumer.position("t", 1).expect("assigned") as usize;
    for opened in [2, 3] {
        assert_eq!(consumer.metrics().connections_opened, opened);
        assert!(consumer.unassign("t", 1));
        assert_eq!(consumer.poll(Duration::ZERO, |_| {}).expect("a turn"), 0);
        consumer.assign("t", 1, Start::Earliest).expect("assigned");
        assert_eq!(consumer.read_to_end(LONG, |record| assert_eq!(record.partition, 1)).expect("read"), of_the_second);
    }
    assert_eq!(consumer.metrics().connections_lost, 0);
}
