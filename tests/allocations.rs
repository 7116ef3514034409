//! No allocation on a shard's thread for a million records in a thousand blocks, through real sockets, shown with a counting allocator.
//!
//! What is left has nothing to do with records: glommio's timers allocate at each of their turns (50 ms), and the indexes of
//! batches double their memory now and then. The test bounds both by numbers far below the number of blocks.
//!
//! Alone in its binary: the allocator and the node are the process's.

#![allow(unsafe_code)] // a global allocator is an unsafe trait

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tramline::config::{self, Sources};
use tramline::runtime::{self, topology};
use tramline_client::{Client, Config, Level, Producer, ProducerConfig, Record};

struct Counting;

static THREAD: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

fn note() {
    let thread = THREAD.load(Ordering::Relaxed);
    if thread != 0 && rustix::thread::gettid().as_raw_nonzero().get() == thread {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed to the system's allocator unchanged; counting touches only atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn shard_thread() -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
    let mut named = threads.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|name| name.starts_with("shard-0")));
    let thread = named.next().expect("the shard's thread is named after it");
    thread.file_name().to_str().unwrap().parse().unwrap()
}

fn blocks_written(admin: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|l| l.starts_with("tramline_log_blocks_written_total")).expect("the metric is there");
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

/// What a load took.
struct Spent {
    allocations: u64,
    blocks: u64,
    time: Duration,
}

impl Spent {
    /// Glommio's turns each 50 ms (some five allocations), and 32 for indexes that grow.
    fn allowed(&self) -> u64 {
        32 + 8 * (self.time.as_millis() as u64 / 50 + 1)
    }
}

/// Sends `batches` batches of `per_batch` records, each durable before it ends.
fn load(producer: &mut Producer, admin: SocketAddr, batches: u64, per_batch: u64) -> Spent {
    let value = [7u8; 32];
    let blocks = blocks_written(admin);
    let allocations = COUNT.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut acked = 0;
    for _ in 0..batches {
        for tag in 0..per_batch {
            producer.send(&Record { topic: "t", value: Some(&value), tag, ..Record::default() }).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        producer.drain(|delivery| {
            assert!(delivery.error.is_none(), "{:?}", delivery.error);
            acked += 1;
        });
    }
    assert_eq!(acked, batches * per_batch);
    let (allocations, time) = (COUNT.load(Ordering::Relaxed) - allocations, start.elapsed());
    Spent { allocations, time, blocks: blocks_written(admin) - blocks }
}

#[test]
fn a_million_records_allocate_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data_dir = dir.path().join("data").display().to_string();
    let flags = [
        ("data.dir", data_dir.as_str()),
        ("listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
        ("shards", "1"),
        ("unpinned", "true"),
        // Sleeping and waking allocates in glommio, which a busy shard does not do; a small tail cache is full, so warm, sooner.
        ("spin", "always"),
        ("tail.cache.bytes", "4MiB"),
        ("segment.bytes", "256MiB"),
        ("pool.segments", "1"),
    ];
    let sources = Sources { flags: flags.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(), ..Sources::default() };
    let machine = topology::machine();
    let settings = config::load(&sources, &machine).unwrap().settings(&machine).unwrap();
    let (told, ready) = channel();
    let node = std::thread::spawn(move || runtime::run_told(settings, |r| told.send(r.clone()).unwrap()));
    let ready = ready.recv_timeout(Duration::from_secs(60)).expect("the node serves");

    let client = Client::connect(Config { servers: vec![ready.client.to_string()], ..Config::default() }).unwrap();
    client.create_topic("t", 1, &[], false).unwrap();
    THREAD.store(shard_thread(), Ordering::Relaxed);
    let config = ProducerConfig { level: Level::Durable, batch_bytes: 1 << 20, linger_us: 50_000, ..ProducerConfig::default() };
    let mut producer = client.producer(config).unwrap();
    let cold = load(&mut producer, ready.admin, 300, 1000);
    assert!(cold.allocations > 0, "the allocator counts");
    let spent = load(&mut producer, ready.admin, 1000, 1000);
    THREAD.store(0, Ordering::Relaxed);
    let Spent { allocations, blocks, time } = spent;
    println!("1,000,000 records: {allocations} allocations in {blocks} blocks and {time:?}, {} allowed", spent.allowed());
    assert!(blocks >= 1000, "every batch was waited for: {blocks}");
    assert!(allocations <= spent.allowed(), "{allocations} allocations for {blocks} blocks in {time:?}, not {}", spent.allowed());

    signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
    node.join().unwrap().unwrap();
}
