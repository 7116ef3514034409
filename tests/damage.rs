//! A bit that flips on the disk is never served, never cut away silently, and never takes its neighbours with it.
//!
//! The node is stopped, one bit of a stored value is flipped in its segment file, the node is started again: a fetch of that
//! batch says `damaged`, all others read as before, `tramline inspect` ends with exit code 1 and names the place.

use common::layout::{Rec, code};
use common::{Node, Options, Peer, WAIT, files_with_prefix, find, tool};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const MARKED: u64 = 5;
/// The records' own time is in the past: by default they would be dropped as soon as their segment is sealed.
const KEEP: &[(&str, &str)] = &[("retention.ms", "-1")];

/// The value of record `n` of a partition; big ones fill segments.
fn value(n: u64, len: usize) -> Vec<u8> {
    let mut value = format!("record {n} of the damaged topic;").into_bytes();
    value.resize(value.len().max(len), b'x');
    value
}

/// Flips one bit of the stored value of record `n`: its segment and the byte's position there.
fn flip(shard_dir: &Path, n: u64) -> (PathBuf, usize) {
    let needle = format!("record {n} of the damaged topic;").into_bytes();
    for path in files_with_prefix(shard_dir, "seg-") {
        let bytes = std::fs::read(&path).expect("a segment");
        if let Some(at) = find(&bytes, &needle) {
            let file = OpenOptions::new().write(true).open(&path).expect("the segment, to write to");
            file.write_all_at(&[bytes[at + 3] ^ 0x10], at as u64 + 3).expect("one byte");
            file.sync_all().expect("the segment is synced");
            return (path, at + 3);
        }
    }
    panic!("record {n} is in no segment of {}", shard_dir.display());
}

/// Breaks the head of record `n`'s batch.
fn break_head(shard_dir: &Path, n: u64) -> PathBuf {
    let (path, at) = flip(shard_dir, n);
    let bytes = std::fs::read(&path).expect("a segment");
    let head = bytes[..at].windows(4).rposition(|window| window == tramline_wire::batch::BATCH_MAGIC).expect("a batch before it");
    assert!(at - head < 512, "the batch's head is {} bytes before its value", at - head);
    let file = OpenOptions::new().write(true).open(&path).expect("the segment, to write to");
    // Behind the magic and the version, in what the header's checksum covers.
    file.write_all_at(&[bytes[head + 9] ^ 0x10], head as u64 + 9).expect("one byte");
    file.sync_all().expect("the segment is synced");
    path
}

/// Breaks the head of record `n`'s batch and the footer of its segment, whose header is the segment's last page.
fn break_head_and_footer(shard_dir: &Path, n: u64) {
    let path = break_head(shard_dir, n);
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the segment, to write to");
    let at = file.metadata().expect("the segment").len() - 4096 + 9;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("one byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("one byte");
    file.sync_all().expect("the segment is synced");
}

/// Fetches record by record; the error code of each offset in `0..count` (0 with the value checked).
fn read_each(peer: &mut Peer, uid: u64, count: u64, len: usize) -> Vec<u16> {
    let error_at = |n: u64| match peer.fetch(uid, n, 1000, 0) {
        Err(refusal) => refusal.code,
        Ok(fetched) if fetched.error != 0 => fetched.error,
        Ok(fetched) => {
            let batch = fetched.batches.first().unwrap_or_else(|| panic!("nothing at {n}"));
            assert!(batch.records[0].value.as_deref() == Some(value(n, len).as_slice()), "not the bytes of record {n}");
            0
        }
    };
    (0..count).map(error_at).collect()
}

fn check_damage(node: Node, uid: u64, count: u64, len: usize) {
    let shard_dir = node.shard_dir(0);
    let before = tool::tramline(&["inspect", &node.dir().display().to_string()]);
    assert_eq!(before.code, 0, "sound before the flip:\n{}{}", before.text(), before.stderr);
    let (segment, position) = flip(&shard_dir, MARKED);

    // Off line: both the file and the whole directory, with the segment's name and a position near the byte.
    for path in [segment.as_path(), node.dir()] {
        let inspected = tool::tramline(&["inspect", &path.display().to_string()]);
        assert_eq!(inspected.code, 1, "{}:\n{}{}", path.display(), inspected.text(), inspected.stderr);
        let all = format!("{}{}", inspected.text(), inspected.stderr);
        assert!(all.to_lowercase().contains("damage"), "{all}");
        assert!(all.contains(&segment.file_name().expect("a name").to_string_lossy().into_owned()), "{all}");
        let near = |word: &str| word.parse::<usize>().is_ok_and(|p| p <= position && position < p + (1 << 20));
        assert!(all.split(|c: char| !c.is_ascii_digit()).any(near), "no position near {position}:\n{all}");
    }

    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let errors = read_each(&mut peer, uid, count, len);
    let expected: Vec<u16> = (0..count).map(|n| if n == MARKED { code::DAMAGED } else { 0 }).collect();
    assert_eq!(errors, expected);
    // A reader that runs through stops there with the reason and can go on behind it.
    let fetched = peer.fetch(uid, 0, 1 << 20, 0).expect("the records before it");
    let last = fetched.batches.last().expect("records before the damaged one");
    assert!(last.end_offset <= MARKED, "served up to {} across the damage", last.end_offset);
    assert_eq!(peer.read_from(uid, MARKED + 1).len() as u64, count - MARKED - 1);
    // New records are taken, another partition is untouched, and the operator can see it.
    assert_eq!(peer.put(uid, &[Rec::value("new")]), count);
    assert_eq!(node.http("/livez").0, 200);
    assert!(node.process.stderr().to_lowercase().contains("damage"), "the log names it:\n{}", node.process.stderr());
}

#[test]
fn a_flipped_bit_in_the_live_segment_is_reported_and_the_rest_is_readable() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    for n in 0..20 {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, 0))]), n);
    }
    node.stop();
    check_damage(node, uid, 20, 0);
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_reported_and_the_rest_is_readable() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    // 48 MiB in segments of 16 MiB: the first is sealed long before the end.
    let count = 96;
    for n in 0..count {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, 512 << 10))]), n);
    }
    assert!(files_with_prefix(&node.shard_dir(0), "seg-").len() >= 3);
    node.stop();
    check_damage(node, uid, count, 512 << 10);
}

#[test]
fn a_batch_that_no_footer_names_any_more_is_told_and_not_passed_over() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    let (count, len) = (96, 512 << 10);
    for n in 0..count {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, len))]), n);
    }
    node.stop();
    break_head_and_footer(&node.shard_dir(0), MARKED);
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let errors = read_each(&mut peer, uid, count, len);
    let expected: Vec<u16> = (0..count).map(|n| if n == MARKED { code::DAMAGED } else { 0 }).collect();
    assert_eq!(errors, expected);
}

#[test]
fn a_partition_whose_only_batch_no_footer_names_says_so_and_goes_on_behind_it() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let lone = peer.topic("lone", 1, KEEP)[0].uid;
    let filler = peer.topic("filler", 1, KEEP)[0].uid;
    assert_eq!(peer.put(lone, &[Rec::value(value(MARKED, 0))]), 0);
    for n in 0..96 {
        assert_eq!(peer.put(filler, &[Rec::value(vec![b'f'; 512 << 10])]), n);
    }
    node.stop();
    break_head_and_footer(&node.shard_dir(0), MARKED);
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let error = match peer.fetch(lone, 0, 1000, 0) {
        Err(refusal) => refusal.code,
        Ok(fetched) => fetched.error,
    };
    assert_eq!(error, code::DAMAGED, "neither an empty answer nor the word that it was dropped in time");
    assert_eq!(peer.put(lone, &[Rec::value("new")]), 1, "its offset is not used again");
    assert_eq!(peer.read_from(lone, 1).len(), 1);
    assert_eq!(peer.read_from(filler, 0).len(), 96);
}

#[test]
fn the_offset_of_a_last_batch_without_a_head_is_not_used_again() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    let other = peer.topic("other", 1, KEEP)[0].uid;
    for n in 0..=MARKED {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, 0))]), n);
    }
    // Behind it, so that it is below the durable end.
    for _ in 0..4 {
        peer.put(other, &[Rec::value("later")]);
    }
    node.process.kill();
    break_head(&node.shard_dir(0), MARKED);
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    assert_eq!(read_each(&mut peer, uid, MARKED + 1, 0)[MARKED as usize], code::DAMAGED);
    let next = peer.put(uid, &[Rec::value("new")]);
    assert!(next > MARKED, "offset {next} was acknowledged before");
    assert_eq!(peer.read_from(uid, next).len(), 1);
}

#[test]
fn a_flipped_bit_after_a_kill_is_damage_too_not_a_torn_tail() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    for n in 0..20 {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, 0))]), n);
    }
    // No checkpoint, no orderly end: recovery scans the tail and has to tell damage from a torn write.
    node.process.kill();
    let dir = node.shard_dir(0);
    flip(&dir, MARKED);
    let node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    let errors = read_each(&mut peer, uid, 20, 0);
    let expected: Vec<u16> = (0..20).map(|n| if n == MARKED { code::DAMAGED } else { 0 }).collect();
    assert_eq!(errors, expected);
    assert_eq!(peer.put(uid, &[Rec::value("new")]), 20);
}

#[test]
fn inspect_prints_a_sound_directory_and_refuses_what_is_none() {
    let mut node = Node::with(Options::shards(2));
    let mut peer = Peer::connect(node.ready.client);
    for partition in peer.topic("t", 4, &[]) {
        peer.put(partition.uid, &[Rec::value("v")]);
    }
    node.stop();
    let all = tool::tramline(&["inspect", &node.dir().display().to_string()]).ok();
    assert!(all.text().contains("seg-"), "{}", all.text());
    let dir = common::temp_dir("nothing");
    for path in [dir.path().join("missing"), dir.path().to_owned()] {
        let inspected = tool::tramline(&["inspect", &path.display().to_string()]);
        assert_eq!(inspected.code, 1, "{}{}", inspected.text(), inspected.stderr);
        assert!(format!("{}{}", inspected.text(), inspected.stderr).contains(&path.display().to_string()), "{inspected:?}");
    }
}

#[test]
fn the_scrubber_finds_what_nobody_has_asked_for() {
    let mut node = Node::start();
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("damaged", 1, KEEP)[0].uid;
    // 30 MB: a segment of 16 MiB is full, and sealed by the end.
    for n in 0..60 {
        assert_eq!(peer.put(uid, &[Rec::value(value(n, 500_000))]), n);
    }
    node.stop();
    flip(&node.shard_dir(0), MARKED);
    let node = node.restart_with(Options::default().set("scrub.bytes.per.second", "64MiB"));
    let until = Instant::now() + WAIT;
    while node.metric("tramline_scrub_passes_total") == 0.0 {
        assert!(Instant::now() < until, "{} bytes are checked", node.metric("tramline_scrub_bytes_total"));
        std::thread::yield_now();
    }
    assert!(node.metric("tramline_scrub_bytes_total") > 10e6, "a sealed segment of 16 MiB was looked at");
    assert_eq!(node.metric("tramline_damaged_ranges_total"), 1.0, "{}", node.process.stderr());
    assert!(node.process.stderr().contains("is damaged"), "{}", node.process.stderr());
}
