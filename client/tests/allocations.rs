//! A warm producer allocates nothing per record: counted on the sending thread, through a real socket.
//!
//! Once 100,000 records have warmed it up, another 100,000 may cost at most a handful of allocations (a queue that grows once
//! more because the answers came in another rhythm), far below one per batch.
#![allow(unsafe_code)] // a counting allocator cannot be written without it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use tramline_client::wire::error::ErrorCode;
use tramline_client::wire::frame::{self, Frame, Limits, Need};
use tramline_client::wire::hello::{HelloReply, Node};
use tramline_client::wire::kind::Kind;
use tramline_client::wire::metadata::{MetadataReply, PartitionMeta, TopicMeta};
use tramline_client::wire::prim::List;
use tramline_client::wire::produce::{ProduceReplyWriter, ProduceRequest, ProduceResult};
use tramline_client::wire::producer::InitProducerReply;
use tramline_client::{Client, Config, ProducerConfig, Record};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and is not the one that is measured.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches a thread-local cell without a
// destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Accepts everything: one partition, every batch acknowledged.
fn serve(mut stream: TcpStream, port: u16) {
    let mut inbox = Vec::new();
    let mut room = vec![0; 1 << 20];
    let mut next_offset = 0;
    loop {
        match stream.read(&mut room) {
            Ok(0) | Err(_) => return,
            Ok(count) => inbox.extend_from_slice(&room[..count]),
        }
        let mut out = Vec::new();
        let mut read = 0;
        while let Need::Whole(frame, length) = frame::peek(&inbox[read..], &Limits::PROTOCOL).expect("a well-formed frame") {
            answer(&frame, port, &mut next_offset, &mut out);
            read += length;
        }
        inbox.drain(..read);
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn answer(frame: &Frame<'_>, port: u16, next_offset: &mut u64, out: &mut Vec<u8>) {
    let nodes = [Node { node: 1, host: "127.0.0.1", port, shard_ports: List::of(&[]) }];
    let start = frame::begin_reply(out, &frame.header, 0);
    match frame.header.kind() {
        Some(Kind::Hello) => HelloReply {
            protocol: 1,
            feature_level: 1,
            cluster_id: [0; 16],
            node: 1,
            shard: 0,
            frame_max: 8 << 20,
            fetch_frame: 131_072,
            keepalive_ms: 0,
            idle_timeout_ms: 0,
            apis: List::default(),
            mechanisms: List::default(),
            challenge: &[],
            nodes: List::of(&nodes),
        }
        .encode(out),
        Some(Kind::Metadata) => {
            let partitions = [PartitionMeta { index: 0, uid: 7, group: 1, leader_node: 1, leader_shard: 0, term: 1 }];
            let topics = [TopicMeta { error: ErrorCode::Ok, name: "t", topic_uid: 1, partitions: List::of(&partitions) }];
            MetadataReply { view_epoch: 1, nodes: List::of(&nodes), topics: List::of(&topics) }.encode(out);
        }
        Some(Kind::InitProducer) => InitProducerReply { producer_id: 1, batches_kept: 5, expiry_ms: 3_600_000 }.encode(out),
        Some(Kind::Produce) => {
            let request = ProduceRequest::decode(frame.meta).expect("decodes");
            let mut writer = ProduceReplyWriter::begin(out, request.level, 0);
            for (entry, bytes) in request.batches(frame.payload).expect("adds up") {
                let records = tramline_client::wire::batch::BatchView::parse(bytes).expect("a batch").record_count();
                let result = ProduceResult {
                    partition_uid: entry.partition_uid,
                    error: ErrorCode::Ok,
                    base_offset: *next_offset,
                    append_time_us: 0,
                    durable_end: 0,
                };
                *next_offset += u64::from(records);
                writer.push(out, &result);
            }
            writer.finish(out);
        }
        other => panic!("not expected here: {other:?}"),
    }
    frame::finish_frame(out, start, 0).expect("small");
}

#[test]
fn a_warm_producer_allocates_nothing_per_record() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, port));
        }
    });

    let client = Client::connect(Config::new(&format!("127.0.0.1:{port}"))).expect("connects");
    // Eight batches at most, so that warming up meets every state there is: each batch more in flight than ever before costs
    // its buffers once.
    let config = ProducerConfig { batch_bytes: 16 * 1024, buffer_bytes: 128 * 1024, ..ProducerConfig::default() };
    let mut producer = client.producer(config).expect("a producer");
    let value = [42; 256];
    let headers: [(&str, &[u8]); 1] = [("kind", b"test")];
    let mut acked = 0u64;
    let mut run = |count: u64| {
        for tag in 0..count {
            let key = tag.to_le_bytes();
            let record = Record { topic: "t", key: Some(&key), value: Some(&value), headers: &headers, tag, ..Record::default() };
            producer.send(&record).expect("taken");
            producer.drain(|delivery| acked += u64::from(delivery.error.is_none()));
        }
        producer.flush(Duration::from_secs(30)).expect("acknowledged");
        producer.drain(|delivery| acked += u64::from(delivery.error.is_none()));
    };
    run(100_000);
    let before = ALLOCATIONS.with(Cell::get);
    run(100_000);
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(acked, 200_000);
    println!("{allocations} allocations over 100,000 records in some 1,700 batches");
    // None on a quiet machine. On a busy one (232 were seen) it goes on meeting more batches in flight than before; one per batch would be 1,700.
    assert!(allocations < 500, "{allocations} allocations");
}
