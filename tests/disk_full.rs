//! A disk that fills up, with the marks as they are by default, on file systems of 1.5 GiB: ext4 and XFS.
//!
//! Producers are warned about, slowed down, then refused with an error that can be retried; reading, trimming and deleting go on; space comes back
//! by sorting alone where every segment is half dead, and produce goes on by itself.

use common::layout::{self, Rec, TIME_US, code};
use common::mount::small_disk;
use common::peer::Refusal;
use common::{Node, Options, Peer, WAIT, temp_dir};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DISK_BYTES: u64 = 1536 << 20;
/// What somebody else has of it, so that there is less to write: the marks go by the size of the whole.
const OTHERS_BYTES: u64 = 1024 << 20;
const OURS_BYTES: u64 = DISK_BYTES - OTHERS_BYTES;
const RECORD_BYTES: usize = 512 << 10;
/// The records' own time is in the past: by default they would be dropped as soon as their segment is sealed.
const FOREVER: [(&str, &str); 2] = [("retention.bytes", "-1"), ("retention.ms", "-1")];

/// Marks and segment size as they are by default; the slow stage is gone through in seconds instead of minutes.
fn options() -> Options {
    Options { settings: Vec::new(), ..Options::default() }.set("memory.prefault", "false").set("throttle.time", "3s")
}

fn record(number: u64) -> Vec<u8> {
    let mut value = format!("record {number};").into_bytes();
    value.resize(RECORD_BYTES, b'.');
    value
}

/// Takes a record in, or says why not.
fn put(peer: &mut Peer, uid: u64, number: u64) -> Result<(), Refusal> {
    let batch = layout::batch(TIME_US, &[Rec::value(record(number))]);
    let results = peer.produce(layout::level::DURABLE, &[(uid, &batch)])?;
    assert_eq!((results[0].error, results[0].base_offset), (code::OK, number));
    Ok(())
}

/// Produces to each in turn, from their `first` on, until it is refused; answers where each of them ends, and the refusal.
fn fill<const N: usize>(peer: &mut Peer, uids: [u64; N], first: [u64; N]) -> ([u64; N], Refusal) {
    let mut ends = first;
    loop {
        for (uid, end) in uids.iter().zip(&mut ends) {
            match put(peer, *uid, *end) {
                Ok(()) => *end += 1,
                Err(refusal) => return (ends, refusal),
            }
            assert!(*end * (RECORD_BYTES as u64) < OURS_BYTES, "more was taken than the disk has");
        }
    }
}

/// Tries until a record is taken: space comes back in the background.
fn put_in_the_end(node: &mut Node, peer: &mut Peer, uid: u64, number: u64) {
    let until = Instant::now() + WAIT;
    while let Err(refusal) = put(peer, uid, number) {
        assert!(refusal.retriable && refusal.code == code::DISK_FULL, "{refusal:?}");
        assert!(Instant::now() < until, "no space came back: {refusal:?}\n{}", node.process.stderr());
        node.process.watch_quietly(Duration::from_millis(50));
    }
}

fn check(peer: &mut Peer, uid: u64, offsets: std::ops::Range<u64>) {
    let records = peer.read_from(uid, offsets.start);
    assert_eq!(records.len() as u64, offsets.end - offsets.start);
    for (found, offset) in records.iter().zip(offsets) {
        assert!(found.offset == offset && found.value.as_deref() == Some(&record(offset)[..]), "offset {offset}");
    }
}

fn fills_up_and_recovers(file_system: &str) {
    let test = format!("a disk of {file_system} that fills up");
    let dir = temp_dir("full");
    let Some((_mount, path)) = small_disk(&test, dir.path(), file_system, DISK_BYTES) else { return };
    take_space(&path, OTHERS_BYTES);
    let mut node = Node::at(&path.join("node"), options());
    let mut peer = Peer::connect(node.ready.client);
    let kept = peer.topic("kept", 1, &FOREVER)[0].uid;
    let [dead, more_dead] = [0, 1].map({
        let partitions = peer.topic("dead", 2, &FOREVER);
        move |partition: usize| partitions[partition].uid
    });
    // Two of three records are dropped later on: three segments fit into one then.
    let ([kept_end, dead_end, more_dead_end], refusal) = fill(&mut peer, [kept, dead, more_dead], [0, 0, 0]);

    // Refused late enough, in words that help, and slowed down before.
    assert!(refusal.retriable && refusal.code == code::DISK_FULL, "{refusal:?}");
    assert!(refusal.message.contains("shard 0") && refusal.message.contains("bytes are free"), "{refusal:?}");
    assert!(
        (kept_end + dead_end + more_dead_end) * RECORD_BYTES as u64 > OURS_BYTES / 5 * 3,
        "{kept_end}, {dead_end} and {more_dead_end} records: most of the disk is used"
    );
    // 1.5 % stay free, less at most one segment that was being made while the file system was looked at.
    assert!(free_bytes(&path) > (22 - 16) << 20, "{}", free_bytes(&path));
    assert!(node.metric("tramline_produce_throttled_seconds_total") > 0.1);
    assert_eq!(node.metric("tramline_disk_pressure_level"), 3.0);
    assert_eq!(node.http("/readyz").0, 200, "it serves, as far as it can");
    // A fast disk goes through the stages before it within one look.
    let told = node.process.stderr();
    assert!(told.contains("and disk.refuse.free keeps 22 MiB: no segment is added any more"), "{told}");

    // Reading goes on; so does trimming. What is dropped lies scattered over all segments: only the sorter can win it back.
    check(&mut peer, kept, 0..kept_end);
    assert_eq!(peer.trim(&[(dead, dead_end), (more_dead, more_dead_end)]).map(|all| all.len()), Ok(2));
    put_in_the_end(&mut node, &mut peer, kept, kept_end);
    assert!(node.metric("tramline_sorter_segments_total") >= 1.0);
    // About a half comes back, bit by bit.
    let more_end = kept_end + OURS_BYTES / 4 / RECORD_BYTES as u64;
    (kept_end + 1..more_end).for_each(|number| put_in_the_end(&mut node, &mut peer, kept, number));
    check(&mut peer, kept, 0..more_end);

    // A start after a kill finds it all, and the same stage.
    node.process.kill();
    let mut node = node.restart();
    let mut peer = Peer::connect(node.ready.client);
    check(&mut peer, kept, 0..more_end);
    let ([after_end], _) = fill(&mut peer, [kept], [more_end]);
    check(&mut peer, kept, kept_end..after_end);

    // Deleting goes on too.
    let other = peer.topic("other", 1, &FOREVER)[0].uid;
    peer.delete_topic("kept").expect("deleting needs no space to speak of");
    put_in_the_end(&mut node, &mut peer, other, 0);
    let ([other_end], _) = fill(&mut peer, [other], [1]);
    assert!(other_end > after_end / 2, "the disk is empty again: {other_end} of {after_end}");
    check(&mut peer, other, 0..other_end);
    node.stop();
}

/// Somebody else's file of so many bytes; answers its name.
fn take_space(path: &Path, bytes: u64) -> PathBuf {
    let name = path.join(format!("others-{bytes}"));
    let file = std::fs::File::create(&name).expect("their file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("its space");
    name
}

fn free_bytes(path: &Path) -> u64 {
    let disk = rustix::fs::statvfs(path).expect("the file system");
    disk.f_bavail * disk.f_frsize
}

#[test]
fn a_disk_of_ext4_fills_up_and_recovers() {
    fills_up_and_recovers("ext4");
}

#[test]
fn a_disk_of_xfs_fills_up_and_recovers() {
    fills_up_and_recovers("xfs");
}

#[test]
fn what_others_take_and_give_back_is_followed_without_a_restart() {
    let dir = temp_dir("others");
    let Some((_mount, path)) = small_disk("what_others_take_and_give_back", dir.path(), "ext4", DISK_BYTES) else { return };
    let mut node = Node::at(&path.join("node"), options());
    let mut peer = Peer::connect(node.ready.client);
    let uid = peer.topic("t", 1, &FOREVER)[0].uid;
    put(&mut peer, uid, 0).expect("an empty disk");
    // Somebody else takes everything, also what the marks would keep: a produce is refused, nothing fails.
    take_space(&path, OTHERS_BYTES);
    let ballast = take_space(&path, free_bytes(&path) - (64 << 10));
    let ([end], refusal) = fill(&mut peer, [uid], [1]);
    assert!(refusal.retriable && refusal.code == code::DISK_FULL, "{refusal:?}");
    assert_eq!(node.http("/readyz").0, 200);
    check(&mut peer, uid, 0..end);
    std::fs::remove_file(&ballast).expect("the ballast goes");
    put_in_the_end(&mut node, &mut peer, uid, end);
    let ([more], _) = fill(&mut peer, [uid], [end + 1]);
    assert!(more > 4 * end, "{end}, then {more}");
    check(&mut peer, uid, 0..more);
    node.stop();
}
