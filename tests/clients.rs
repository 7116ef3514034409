//! The client of the documents, `docs/tramline_client.py`, against a real node, and the bytes of docs/CLIENTS.md against the vectors.
//!
//! What the script writes is read by the tests' own peer and lies where the Rust client puts the same keys; what the Rust client and
//! the peer write is printed by the script. Where python3 (3.9 or newer) is missing, the tests that need it say that they did not run.
//!
//! Not here: what the Rust client promises (`client/`), the layouts' vectors (`wire/tests/vectors.rs`).

use common::layout::{Got, Rec, TIME_US};
use common::tool::{self, Ran};
use common::{Dice, Node, Options, Peer};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tramline_client::wire::batch;
use tramline_client::{Client, Config, ProducerConfig, Record, key_partition};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(in_repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The hexadecimal bytes of a text, lines of comments left out.
fn from_hex(text: &str) -> Vec<u8> {
    let words = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    words.map(|word| u8::from_str_radix(word, 16).unwrap_or_else(|e| panic!("{word:?}: {e}"))).collect()
}

fn vector(name: &str) -> Vec<u8> {
    from_hex(&text_of(&format!("wire/vectors/{name}.hex")))
}

/// Whether there is a Python the script runs on; says so aloud when there is none.
fn python_is_there(test: &str) -> bool {
    let asked = Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).output();
    let there = asked.is_ok_and(|output| output.status.success());
    if !there {
        common::not_run(test, "there is no python3 of version 3.9 or newer");
    }
    there
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", in_repository("docs"));
    command
}

/// Runs the script as a user does.
fn script(arguments: &[&str], input: &[u8]) -> Ran {
    tool::run_command(python().arg(in_repository("docs/tramline_client.py")).args(arguments), input)
}

/// Runs a program that imports the script, from the root of the repository.
fn with_script(program: &str) -> String {
    tool::run_command(python().args(["-c", program]).current_dir(in_repository("")), b"").ok().text()
}

/// Bytes as they stand in a column of the script.
fn escaped(bytes: &[u8], also: Option<u8>) -> Vec<u8> {
    let special = |byte: u8| byte < 0x20 || byte == b'\\' || byte == 0x7f || Some(byte) == also;
    bytes.iter().flat_map(|b| if special(*b) { format!("\\x{b:02x}").into_bytes() } else { vec![*b] }).collect()
}

fn unescaped(column: &[u8]) -> Option<Vec<u8>> {
    if column == b"\\N" {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = column;
    while let Some((first, behind)) = rest.split_first() {
        if *first != b'\\' {
            out.push(*first);
            rest = behind;
            continue;
        }
        let digits = behind.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(&hex[..2]).ok()).expect("\\xNN");
        out.push(u8::from_str_radix(digits, 16).expect("two digits"));
        rest = &behind[3..];
    }
    Some(out)
}

/// A record as a line of the script's input.
fn line_of(record: &Rec) -> Vec<u8> {
    let optional = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(b"\\N".to_vec(), |bytes| escaped(bytes, None));
    if record.key.is_none() && record.headers.is_empty() {
        return optional(&record.value);
    }
    let mut columns = vec![optional(&record.key), optional(&record.value)];
    for (name, value) in &record.headers {
        columns.push([escaped(name.as_bytes(), Some(b'=')), escaped(value, None)].join(&b'='));
    }
    columns.join(&b'\t')
}

/// What the script printed, by partition.
fn printed(ran: &Ran) -> HashMap<u32, Vec<Got>> {
    let mut by_partition: HashMap<u32, Vec<Got>> = HashMap::new();
    for line in ran.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let columns: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let number = |n: usize| -> i64 { std::str::from_utf8(columns[n]).ok().and_then(|t| t.parse().ok()).expect("a number") };
        let header = |column: &&[u8]| {
            let at = column.iter().position(|b| *b == b'=').expect("name=value");
            let name = unescaped(&column[..at]).expect("a name");
            (String::from_utf8(name).expect("UTF-8"), unescaped(&column[at + 1..]).expect("a value"))
        };
        by_partition.entry(number(0) as u32).or_default().push(Got {
            offset: number(1) as u64,
            timestamp_us: number(2),
            key: unescaped(columns[3]),
            value: unescaped(columns[4]),
            headers: columns[5..].iter().map(header).collect(),
        });
    }
    by_partition
}

/// What the peer reads of a topic, by partition; partitions without records are left out, as in the script's output.
fn read_by_peer(peer: &mut Peer, topic: &str) -> HashMap<u32, Vec<Got>> {
    let partitions = peer.partitions(topic);
    let read = partitions.into_iter().map(|p| (p.index, peer.read_from(p.uid, 0)));
    read.filter(|(_, records)| !records.is_empty()).collect()
}

fn some_bytes(dice: &mut Dice, at_most: u64) -> Vec<u8> {
    let len = dice.in_range(0, at_most + 1);
    (0..len).map(|_| dice.roll() as u8).collect()
}

/// Records of all sorts: with and without key, value and headers, of any bytes.
fn some_records(dice: &mut Dice, count: usize) -> Vec<Rec> {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let one = |n: usize| {
        let headers = (0..dice.in_range(0, 3)).map(|h| (["trace", "a=b\tž\\"][h as usize].to_owned(), some_bytes(dice, 20))).collect();
        Rec {
            key: [None, Some(format!("key {}", n % 17).into_bytes()), Some(some_bytes(dice, 8))][dice.in_range(0, 3) as usize].clone(),
            value: (n % 11 != 3).then(|| if n.is_multiple_of(50) { all_bytes.clone() } else { some_bytes(dice, 400) }),
            headers,
            time_delta_us: 0,
        }
    };
    (0..count).map(one).collect()
}

#[test]
fn the_script_has_at_most_200_lines() {
    let script = text_of("docs/tramline_client.py");
    assert!(script.lines().count() <= 200, "{} lines", script.lines().count());
    let imports: Vec<&str> = script.lines().filter(|l| l.starts_with("import ") || l.starts_with("from ")).collect();
    assert_eq!(imports, ["import collections, functools, io, re, socket, struct, sys, time"], "the standard library only");
}

#[test]
fn the_bytes_of_the_page_are_those_of_the_vectors() {
    let page = text_of("docs/CLIENTS.md");
    let block_after = |words: &str| {
        let behind = page.split_once(words).unwrap_or_else(|| panic!("docs/CLIENTS.md says {words:?}")).1;
        behind.split("```").nth(1).expect("a block").trim().to_owned()
    };
    assert_eq!(from_hex(&block_after("`wire/vectors/batch_one_plain_record.hex`")), vector("batch_one_plain_record"));
    // Here words stand beside the bytes: the first columns are the bytes.
    let header = block_after("`wire/vectors/metadata_request.hex`");
    assert_eq!(from_hex(header.lines().next().expect("a line")), vector("metadata_request")[..32]);
    let stamped = vector("batch_stamped");
    for line in block_after("`wire/vectors/batch_stamped.hex`").lines() {
        let (bytes, which) = line.split_once("   ").expect("bytes, spaces, words");
        assert!(common::find(&stamped, &from_hex(bytes)).is_some(), "not in the vector: {bytes}");
        assert!(which.trim().starts_with("index:") || which.trim().starts_with("values:"), "{which}");
    }
}

#[test]
fn it_agrees_with_the_documents_on_checksums_keys_and_batches() {
    if !python_is_there("it_agrees_with_the_documents_on_checksums_keys_and_batches") {
        return;
    }
    // Byte 112 on is covered by the body's checksum, all before by the two together; each single flip has to be noticed.
    let told = with_script(
        r##"
import io, tramline_client as client
def vector(name):
    return bytes.fromhex("".join(line for line in open(f"wire/vectors/{name}.hex") if not line.startswith("#")))
print(hex(client.crc32c(b"123456789")), client.crc32c(b""))
for key in "", "a", "N14228", "flights", "žluť":
    print(client.partition_of(key.encode(), 16), client.partition_of(key.encode(), 7))
client.time.time_ns = lambda: 1767323045678901 * 1000
print(client.batch_of([(None, b"plain", [])]) == vector("batch_one_plain_record"))
print(client.batch_of([(None, b"plain", [])], 0x0102030405060708, 9).hex())
stamped, uid = vector("batch_stamped"), 0x0102030405060708
first, behind, records = client.read_batch(client.Reader(io.BytesIO(stamped)), uid)
print(first, behind)
for offset, line in records:
    print(offset, line)
noticed = 0
for at in range(len(stamped)):
    damaged = bytearray(stamped)
    damaged[at] ^= 1 << at % 8
    try:
        client.read_batch(client.Reader(io.BytesIO(bytes(damaged))), uid)
    except SystemExit:
        noticed += 1
print(len(stamped) - noticed)
"##,
    );
    let mut told: Vec<&str> = told.lines().collect();
    // The same batch with an idempotent producer's mark.
    let marked = from_hex(&told.remove(7).as_bytes().chunks(2).map(|two| String::from_utf8_lossy(two) + " ").collect::<String>());
    let marked = batch::validate(&marked, &batch::Limits::default()).expect("a batch that a node takes");
    assert_eq!(marked.producer(), batch::ProducerMark { id: 0x0102030405060708, epoch: 0, sequence: 9 });
    let expected = [
        "0xe3069283 0",
        "1 6",
        "0 1",
        "15 5",
        "1 1",
        "8 4",
        "True",
        "1000 1004",
        r"1000 b'1767323045678901\t\\N\tplain'",
        r"1001 b'1767323045679901\tN14228\t2013,1,1,517'",
        r"1002 b'1767323045677901\t\t\\N'",
        r"1003 b'1767325045678901\tN24211\t\ttrace=abc\t='",
        "0",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_it_produces_is_read_by_others() {
    if !python_is_there("what_it_produces_is_read_by_others") {
        return;
    }
    let node = Node::with(Options::shards(2));
    let records = some_records(&mut Dice(common::seed()), 1500);
    let input = records.iter().flat_map(|r| [line_of(r), b"\n".to_vec()].concat()).collect::<Vec<u8>>();
    let ran = script(&[&node.server(), "from-python", "produce"], &input).ok();
    assert_eq!((ran.stderr.as_str(), ran.stdout.len()), ("1500 records are durable\n", 0));
    let mut peer = Peer::connect(node.ready.client);
    let read = read_by_peer(&mut peer, "from-python");
    assert_eq!(peer.partitions("from-python").len(), 4);
    let as_sent = |got: &Got| Rec { key: got.key.clone(), value: got.value.clone(), headers: got.headers.clone(), time_delta_us: 0 };
    // With a key: in the Rust client's partition, in order. Without one: somewhere, and each once.
    let mut keyless: Vec<Rec> = Vec::new();
    for partition in 0..4 {
        let (with_key, without): (Vec<Rec>, Vec<Rec>) =
            read.get(&partition).into_iter().flatten().map(as_sent).partition(|r| r.key.is_some());
        let belongs_here = |r: &&Rec| r.key.as_ref().is_some_and(|key| key_partition(key, 4) == partition);
        assert_eq!(with_key, records.iter().filter(belongs_here).cloned().collect::<Vec<_>>(), "partition {partition}");
        keyless.extend(without);
    }
    let sorted = |mut lines: Vec<Vec<u8>>| {
        lines.sort();
        lines
    };
    let expected = records.iter().filter(|r| r.key.is_none()).map(line_of).collect();
    assert_eq!(sorted(keyless.iter().map(line_of).collect()), sorted(expected));
    // One more, without a word for what to do: it writes, then reads all.
    let ran = script(&[&node.server(), "from-python"], b"last\tone, and no line's end").ok();
    let mut told = printed(&ran);
    assert_eq!(told, read_by_peer(&mut peer, "from-python"));
    let last = told.get_mut(&key_partition(b"last", 4)).and_then(Vec::pop).expect("a record");
    assert_eq!((last.key, last.value), (Some(b"last".to_vec()), Some(b"one, and no line's end".to_vec())));
}

#[test]
fn what_others_produce_is_printed_by_it() {
    if !python_is_there("what_others_produce_is_printed_by_it") {
        return;
    }
    let node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    let partitions = peer.topic("from-rust", 3, &[]);
    // More than the script's credit of 256 KiB for each partition.
    let records = some_records(&mut Dice(common::seed()), 6000);
    let client = Client::connect(Config::new(&node.server())).expect("the Rust client connects");
    let mut producer = client.producer(ProducerConfig::default()).expect("a producer");
    for record in &records {
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        producer.send(&Record { topic: "from-rust", key, value, headers: &headers, ..Record::default() }).expect("taken");
    }
    producer.flush(Duration::from_secs(60)).expect("flushed");
    let mut failed = Vec::new();
    producer.drain(|delivery| failed.extend(delivery.error.map(ToString::to_string)));
    assert_eq!(failed, Vec::<String>::new());
    let told = printed(&script(&[&node.server(), "from-rust", "consume"], b"").ok());
    assert_eq!(told, read_by_peer(&mut peer, "from-rust"));
    assert_eq!(told.values().map(Vec::len).sum::<usize>(), 6000);

    // A start in the middle of a batch, and times within a batch that go both ways.
    let deltas = |n: i32| Rec { time_delta_us: n * 1000, ..Rec::value(format!("at {n}")) };
    let base = peer.put(partitions[1].uid, &[0, -3, 7, 5].map(deltas));
    assert_eq!(peer.trim(&[(partitions[1].uid, base + 2)]).expect("trimmed")[0].0, 0);
    let told = printed(&script(&[&node.server(), "from-rust", "consume"], b"").ok());
    let times: Vec<_> = told[&1].iter().map(|got| (got.offset, got.timestamp_us)).collect();
    assert_eq!(times, [(base + 2, TIME_US + 7000), (base + 3, TIME_US + 5000)]);

    // Append time, and a topic without records.
    let uid = peer.topic("stamped", 1, &[("timestamp.type", "append")])[0].uid;
    assert_eq!(script(&[&node.server(), "stamped", "consume"], b"").ok().stdout, b"");
    peer.put(uid, &[Rec::value("a"), Rec::value("b")]);
    let told = printed(&script(&[&node.server(), "stamped", "consume"], b"").ok());
    assert_eq!(told, read_by_peer(&mut peer, "stamped"));
    assert!(told[&0][0].timestamp_us > TIME_US, "{told:?}");
}

#[test]
fn what_it_cannot_do_is_told_in_a_sentence() {
    if !python_is_there("what_it_cannot_do_is_told_in_a_sentence") {
        return;
    }
    let node = Node::start();
    let server = node.server();
    let refused = |code: i32, words: &str, arguments: &[&str], input: &[u8]| {
        let ran = script(arguments, input);
        assert_eq!((ran.code, ran.stdout.len()), (code, 0), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("Traceback"), "{arguments:?}: {}", ran.stderr);
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port nobody listens on any more");
    refused(1, "Connection refused", &[&free.to_string(), "t", "consume"], b"");
    refused(1, "no Tramline node", &[&node.ready.admin.to_string(), "t", "consume"], b"");
    refused(1, "unknown_topic", &[&server, "t", "consume"], b"");
    refused(1, "is not a topic name", &[&server, "..", "produce"], b"a\n");
    refused(1, "batch_too_large", &[&server, "t", "produce"], &[b"k\t".to_vec(), vec![b'x'; 1_100_000]].concat());
    refused(1, "record_too_large", &[&server, "t", "produce"], &[vec![b'k'; 5000], b"\tv".to_vec()].concat());
    refused(1, "too long", &[&server, "t", "produce"], &[vec![b'k'; 70_000], b"\tv".to_vec()].concat());
    refused(2, "HOST:PORT TOPIC", &[&server], b"");
    refused(2, "HOST:PORT TOPIC", &[&server, "t", "destroy"], b"");
    refused(2, "HOST:PORT TOPIC", &["here", "t"], b"");
    // Somebody who takes the connection and goes away.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number").to_string();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept()));
        refused(1, "tramline_client: ", &[&address, "t", "consume"], b"");
    });
    // Nothing of what was refused is there, and the topic was created by the first who could.
    assert_eq!(script(&[&server, "t", "consume"], b"").ok().stdout, b"");
}
